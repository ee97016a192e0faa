"""The MNIST script: its flags, its variables and masks under every method.

What it writes, how it resumes and which mistakes it refuses is in the files
beside.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import distributions, methods
from rigl.mnist import (
  compression,
  epoch_log,
  mask_records,
  mnist_config,
  mnist_data,
  mnist_experiment,
  mnist_input,
  mnist_train_eval,
)
from rigl.training.config import SparsityConfig
from tests import checkpoint_values, tiny_mnist

# floor(sparsity * size) zeros at the script's default flags.
N_ONES = {'layer1': 4704, 'layer2': 3540, 'layer3': 1000}
N_EPOCHS = 2
N_ITERATIONS = N_EPOCHS * tiny_mnist.N_BATCHES

MASKED = [name for name, method in methods.METHODS.items() if method.uses_masks]
DYNAMIC = [name for name, method in methods.METHODS.items() if method.is_dynamic]


# --- Flags -------------------------------------------------------------------


def test_flags_reach_the_configs():
  with tiny_mnist.parsed_flags(
    [
      '--batch_size=7',
      '--learning_rate=0.5',
      '--momentum=0.25',
      '--nouse_nesterov',
      '--num_epochs=9',
      '--lr_drop_epoch=4',
      '--optimizer=adam',
      '--l2_scale=0.125',
      '--sparsity_scale=0.75',
      '--input_mask_path=/former',
      '--prune_begin_step=3',
      '--prune_end_step=8',
      '--seed=6',
      '--training_method=set',
      '--end_sparsity=0.9',
    ]
  ):
    sparsity, config = mnist_train_eval.experiment_from_flags().configs
  assert config == mnist_config.MnistConfig(
    batch_size=7,
    learning_rate=0.5,
    momentum=0.25,
    use_nesterov=False,
    num_epochs=9,
    lr_drop_epoch=4,
    optimizer='adam',
    l2_scale=0.125,
    network_type='fc',
    sparsity_scale=0.75,
    input_mask_path='/former',
  )
  assert sparsity == SparsityConfig(
    training_method='set',
    end_sparsity=0.9,
    pruning_begin_step=3,
    pruning_end_step=8,
    seed=6,
    drop_fraction_anneal='cosine',
    maskupdate_end_step=50000,
  )


# --- Learning rate -----------------------------------------------------------


@pytest.mark.parametrize('index', range(5))
def test_learning_rates_are_those_of_the_reference_data(goldens, index):
  case = goldens('lr_schedules')['mnist_train_eval']['cases'][index]
  with tiny_mnist.parsed_flags(case['flags']):
    sparsity, config = mnist_train_eval.experiment_from_flags().configs
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    rate = tf.identity(
      config.learning_rate_at(
        step, not sparsity.method.uses_masks, case['train_images'] // config.batch_size
      )
    )
    rates = [session.run(rate, {step: s}) for s in case['steps']]
  np.testing.assert_array_equal(rates, np.array(case['learning_rate'], np.float32))


def test_all_learning_rates_of_the_reference_data_are_tested(goldens):
  assert len(goldens('lr_schedules')['mnist_train_eval']['cases']) == 5


# --- Initial masks -----------------------------------------------------------


@pytest.mark.parametrize('index', range(3))
def test_initial_masks_are_those_of_the_reference_data(goldens, data, tmp_path, index):
  run = goldens('mnist_initial_masks')['runs'][index]
  tiny_mnist.train(
    [
      f'--mnist={data}',
      f'--save_path={tmp_path}',
      '--num_epochs=0',
      # Masks do not depend on the method; `static` starts fastest.
      f'--training_method={"scratch" if index else "rigl"}',
      f'--seed={run["seed"]}',
    ]
  )
  values = checkpoint_values.of(tmp_path)
  assert values['global_step'] == 0
  for layer, mask in tiny_mnist.masks_of(values).items():
    golden = run['masks'][layer]
    assert np.count_nonzero(mask) == golden['n_ones'] == N_ONES[layer]
    digest = hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()
    assert digest == golden['sha256_of_uint8_bytes_C_order']


# --- Variables ---------------------------------------------------------------


def expected_variables(goldens, method):
  """{name: (shape, dtype)} of a checkpoint with the default optimizer."""
  golden = goldens('variables_mnist_fc')
  rows = golden['variables']
  if not methods.METHODS[method].uses_masks:
    rows = golden['baseline_variables']
  rows = rows + golden['extra_variables_per_training_method'].get(method, {'extra': []})['extra']
  expected = {'iteration': ((), 'int64')}  # The one that is new.
  for row in rows:
    # The name of an operation there; named after its layer here.
    name = re.sub(
      r'^gradients.*/(layer\d)/.*/ExponentialMovingAverage$', r'\1/dense_gradient_ema', row['name']
    )
    expected[name] = (tuple(row['shape']), row['dtype'])
  return expected


@pytest.mark.parametrize('method', methods.METHODS)
def test_checkpoint_has_the_variables_of_the_reference_data(method, trained, goldens):
  values = checkpoint_values.of(trained(method))
  assert {
    name: (value.shape, value.dtype.name) for name, value in values.items()
  } == expected_variables(goldens, method)


def graph_variables(data, tmp_path, **values):
  """Names of the training graph's variables, in the order of creation."""
  mnist = mnist_data.load_mnist(data)
  with tiny_mnist.parsed_flags(tiny_mnist.arguments(data, tmp_path, **values)):
    experiment = mnist_train_eval.experiment_from_flags()
  graph = mnist_experiment.Graph(
    experiment,
    epoch_log.Schedule(10, 2, 0, 0),
    mnist_input.flat_pixels(mnist.test_images),
    mnist.test_labels,
  )
  with tf.Graph().as_default():
    graph.model_fn(tf.zeros([20, 784]), tf.zeros([20], tf.int32), 'train')
    return [v.op.name for v in tf.global_variables()]


@pytest.mark.parametrize('optimizer', ['adam', 'sgd'])
def test_other_optimizers_have_the_variables_of_the_reference_data(
  optimizer, data, tmp_path, goldens
):
  golden = goldens('variables_mnist_fc')
  names = graph_variables(data, tmp_path, training_method='rigl', optimizer=optimizer)
  model = [row['name'] for row in golden['variables'][:13]]
  assert model[-1] == 'global_step'
  assert names[:13] == model
  assert set(names[13:]) == {
    row['name'] for row in golden[f'rigl_with_optimizer_{optimizer}_non_model_variables']
  }
  assert len(names) == len(set(names))


# --- Masks over a training ---------------------------------------------------


@pytest.mark.parametrize('method', MASKED)
def test_masks_keep_their_count(method, trained):
  folder, row = trained(method), methods.METHODS[method]
  values = checkpoint_values.of(folder)
  records = mask_records.MaskRecords.load(tiny_mnist.records_file(folder))
  assert records.iterations.tolist() == list(
    range(0, N_ITERATIONS + 1, tiny_mnist.RECORD_FREQUENCY)
  )
  assert records.shapes == tiny_mnist.SIZES
  for layer, mask in tiny_mnist.masks_of(values).items():
    assert set(np.unique(mask)) <= {0.0, 1.0}
    np.testing.assert_array_equal(records.mask(layer, -1), mask)
    counts = [int(np.count_nonzero(records.mask(layer, index))) for index in range(len(records))]
    if row.inits_masks:
      assert counts == [N_ONES[layer]] * len(counts)
    elif row.prunes_gradually:
      n = mask.size
      target = {'layer1': 0.98, 'layer2': 0.98 * 0.9, 'layer3': 0.0}[layer]
      # Updates in the iterations from the steps 3, 6, ..., 15 on, the fourth
      # iteration being the first; the schedule spans 2 ... 15.
      fractions = [1 - (1 - (t - 2) / 13) ** 3 for t in (2, 3, 9, 12, 15)]
      np.testing.assert_allclose(counts, [n * (1 - target * f) for f in fractions], atol=2)
    else:
      assert counts == [mask.size] + [N_ONES[layer]] * (len(counts) - 1)


@pytest.mark.parametrize('method', MASKED)
def test_masks_move_if_the_method_moves_them(method, trained):
  records = mask_records.MaskRecords.load(tiny_mnist.records_file(trained(method)))
  moves = [
    bool((records.mask('layer1', index) != records.mask('layer1', index + 1)).any())
    for index in range(len(records) - 1)
  ]
  if method in ('scratch', 'static'):
    assert not any(moves)
  elif method == 'snip':
    assert moves == [True, False, False, False]
  else:
    assert any(moves[:3])


@pytest.mark.parametrize('method', methods.METHODS)
def test_every_iteration_trains_but_those_that_set_masks(method, trained):
  values = checkpoint_values.of(trained(method))
  # RigL moves masks at the steps 0, 3, ..., 12; 15 + 5 iterations are 20.
  spent = {'rigl': 5, 'snip': 1}.get(method, 0)
  assert values['global_step'] == N_ITERATIONS - spent
  if method in DYNAMIC:
    # The others compare the step after the gradient: 1, 4, ..., 19.
    assert values['last_mask_update_step'] == {'rigl': 12}.get(method, 19)


def test_an_iteration_is_one_run_of_the_session(data, tmp_path, session_runs):
  counts = []
  for n_epochs in (1, 3):
    before = len(session_runs)
    tiny_mnist.train(tiny_mnist.arguments(data, tmp_path / f'{n_epochs}', num_epochs=n_epochs))
    counts.append(len(session_runs) - before)
  # An epoch ends with another run, its report.
  assert counts[1] - counts[0] == 2 * (tiny_mnist.N_BATCHES + 1)


@pytest.mark.parametrize('method', methods.METHODS)
def test_weights_are_trained(method, trained):
  folder = trained(method)
  reader = tf.train.load_checkpoint(str(folder / 'model.ckpt-0'))
  values = checkpoint_values.of(folder)
  name = 'weights' if methods.METHODS[method].uses_masks else 'kernel'
  for layer in tiny_mnist.SIZES:
    before, after = reader.get_tensor(f'{layer}/{name}'), values[f'{layer}/{name}']
    assert np.isfinite(after).all()
    assert (before != after).mean() > 0.9  # The penalty moves all of them.


# --- Sparsity of the layers --------------------------------------------------


@pytest.mark.parametrize('distribution', ['erdos_renyi', 'erdos_renyi_kernel'])
def test_last_layer_is_dense_and_the_second_scaled(distribution, data, tmp_path):
  tiny_mnist.train(
    tiny_mnist.arguments(
      data,
      tmp_path,
      training_method='scratch',
      num_epochs=0,
      mask_init_method=distribution,
      end_sparsity=0.9,
      sparsity_scale=0.5,
    )
  )
  masks = tiny_mnist.masks_of(checkpoint_values.of(tmp_path))
  expected = distributions.get_sparsities(
    tiny_mnist.SIZES, distribution, 0.9, {'layer2': 0.45, 'layer3': 0.0}
  )
  assert expected['layer2'] == 0.45 and expected['layer3'] == 0.0
  for layer, mask in masks.items():
    assert mask.size - np.count_nonzero(mask) == distributions.get_n_zeros(
      mask.size, expected[layer]
    )


# --- RigL+ -------------------------------------------------------------------


def test_input_mask_restricts_the_pixels(trained, data, tmp_path):
  former = trained('rigl')
  mask = checkpoint_values.of(former)['layer1/mask']
  kept = mask.any(axis=1)
  assert 0 < kept.sum() < 784
  prefix = tf.train.latest_checkpoint(str(former))
  for path in (str(former), prefix):
    np.testing.assert_array_equal(mnist_config.kept_pixels(path), kept)
  tiny_mnist.train(
    tiny_mnist.arguments(data, tmp_path, training_method='scratch', input_mask_path=former)
  )
  values = checkpoint_values.of(tmp_path)
  assert values['layer1/weights'].shape == (kept.sum(), 300)
  assert values['layer2/weights'].shape == (300, 100)
  # And its own checkpoint is no mask of all pixels.
  with assert_names(
    'input_mask_path', str(tmp_path), 'an input mask itself', f'{kept.sum()} of the 784'
  ):
    mnist_config.kept_pixels(str(tmp_path))


def test_a_run_goes_on_with_the_pixels_it_began_with(trained, data, tmp_path, capsys):
  """Even if the run that they come from has failed."""
  former, run = tmp_path / 'former', tmp_path / 'run'
  shutil.copytree(trained('rigl'), former)
  kept = mnist_config.kept_pixels(str(former))
  begin = tiny_mnist.arguments(
    data, run, training_method='scratch', input_mask_path=former, num_epochs=1
  )
  tiny_mnist.train(begin)
  shutil.rmtree(former)
  np.testing.assert_array_equal(mnist_config.input_pixels(str(former), str(run)), kept)
  tiny_mnist.train([*begin, '--num_epochs=2'])
  assert 'epoch   2/2' in capsys.readouterr().out
  # A new run needs them.
  with assert_names('No checkpoint', str(former)):
    mnist_config.input_pixels(str(former), str(tmp_path / 'new'))


@pytest.mark.parametrize('content', [b'', b'pixels', None])
def test_damaged_pixels_are_named(content, trained, tmp_path):
  run = shutil.copytree(trained('rigl'), tmp_path / 'run')
  file = run / 'input_pixels.npy'
  np.save(file, np.ones([783], bool))
  if content is not None:
    file.write_bytes(content)
  with assert_names(str(file), 'damaged', str(run)):
    mnist_config.input_pixels(str(run), str(run))


@contextlib.contextmanager
def assert_names(*words):
  with pytest.raises(ValueError) as error:
    yield
  for word in words:
    assert word in str(error.value)


def test_input_mask_of_a_wrong_checkpoint(trained, tmp_path):
  with assert_names('layer1/mask is missing', str(trained('baseline'))):
    mnist_config.kept_pixels(str(trained('baseline')))
  with assert_names('No checkpoint', str(tmp_path)):
    mnist_config.kept_pixels(str(tmp_path))


def save_first_mask(folder, mask):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.get_variable('layer1/mask', initializer=mask)
    session.run(tf.global_variables_initializer())
    return tf.train.Saver().save(session, str(folder / 'model.ckpt'))


def test_input_mask_of_other_images(tmp_path, monkeypatch):
  prefix = save_first_mask(tmp_path, np.eye(9, 4))
  with assert_names('9 of the 784 pixels'):
    mnist_config.kept_pixels(prefix)
  monkeypatch.setattr(mnist_data, 'N_PIXELS', 9)
  assert mnist_config.kept_pixels(prefix).tolist() == [True] * 4 + [False] * 5


def test_input_mask_without_a_pixel(tmp_path):
  prefix = save_first_mask(tmp_path, np.zeros([784, 300]))
  with assert_names('input_mask_path', prefix, 'no pixel is connected'):
    mnist_config.kept_pixels(prefix)


def test_no_input_mask():
  assert mnist_config.kept_pixels('') is None


# --- Names of the 2020 script ------------------------------------------------


def test_names_of_2020():
  assert mnist_train_eval.get_compressed_fc is compression.get_compressed_fc

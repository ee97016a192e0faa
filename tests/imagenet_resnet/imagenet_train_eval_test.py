"""The ImageNet script: training, evaluation, reports and exports."""

from __future__ import annotations

import dataclasses
import functools
import glob
import os
import pathlib
import shutil

import numpy as np
import pytest
from absl import flags

import rigl
from rigl.compat import tf, tf2
from rigl.core import methods
from rigl.imagenet_resnet import (
  imagenet_config,
  imagenet_data,
  imagenet_experiment,
  imagenet_input,
  imagenet_model,
  preprocessing,
)
from rigl.imagenet_resnet import imagenet_train_eval as script
from rigl.model_pruning import pruning
from rigl.training import history
from rigl.training.config import SparsityConfig
from tests import (
  checkpoint_values,
  combinations,
  conftest,
  imagenet_script,
  quick_sessions,
  sparse_net,
  tiny_imagenet,
  whole_steps,
)

FLAGS = flags.FLAGS
ARCHITECTURES = ('resnet', 'mobilenet_v1', 'mobilenet_v2', 'vgg_a')

SPARSITY = SparsityConfig(
  training_method='rigl',
  end_sparsity=0.8,
  maskupdate_frequency=2,
  maskupdate_end_step=-1,
  pruning_begin_step=0,
  pruning_end_step=4,
  pruning_frequency=1,
)
CONFIG = imagenet_config.ImageNetConfig(
  resnet_depth=18,
  width=0.125,
  image_size=32,
  num_label_classes=10,
  train_batch_size=4,
  eval_batch_size=4,
  num_train_images=40,
  num_eval_images=10,
)


@pytest.fixture
def short(monkeypatch):
  imagenet_script.shorten_networks(monkeypatch)


def training(folder='', method='rigl', **changes):
  return imagenet_experiment.ImageNetExperiment(
    dataclasses.replace(SPARSITY, training_method=method),
    dataclasses.replace(CONFIG, **changes),
    imagenet_config.RunSettings(),
    str(folder),
  )


def on_tpu(made):
  return dataclasses.replace(made, settings=dataclasses.replace(made.settings, use_tpu=True))


def images(n=4, size=32):
  return np.random.RandomState(0).uniform(0, 255, [n, size, size, 3]).astype(np.float32)


def train_op(made, pixels, labels):
  """Builds the training step; returns (op, what it reports)."""
  logits = imagenet_model.build_logits(pixels, made.config, True)
  loss = imagenet_model.cross_entropy(labels, logits, made.config.label_smoothing)
  loss = tf.reduce_mean(loss) + tf.losses.get_regularization_loss()
  return made.build_train_op(loss, {})


# --- Methods and architectures -----------------------------------------------


def assert_trains(folder, architecture, method):
  values = checkpoint_values.of(
    imagenet_script.run(folder, model_architecture=architecture, training_method=method)
  )
  assert values['global_step'] == 2
  assert all(np.isfinite(value).all() for value in values.values())
  assert any(name.endswith('/mask') for name in values)
  custom = dataclasses.replace(CONFIG, model_architecture=architecture).custom_sparsity_map
  checkpoint_values.assert_sparsities(values, method, 0.8, custom)


@pytest.mark.parametrize(
  'architecture, method', combinations.thinned(ARCHITECTURES, methods.METHODS)
)
def test_short_network_trains(architecture, method, short, tmp_path):
  assert_trains(tmp_path, architecture, method)


@pytest.mark.slow
@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('method', methods.METHODS)
def test_whole_network_trains(architecture, method, tmp_path):
  assert_trains(tmp_path, architecture, method)


@pytest.mark.parametrize(
  'values',
  [
    {
      'precision': 'bfloat16',
      'use_sgdr': True,
      'init_method': 'random_zeros',
      'last_layer_sparsity': 0.5,
      'first_layer_sparsity': 0.25,
      'training_method': 'snip',
    },
    {'use_adam': True, 'init_method': 'sparse', 'transpose_input': True, 'training_method': 'rigl'},
  ],
  ids=str,
)
def test_options(values, short, tmp_path):
  folder = imagenet_script.run(tmp_path, mode='train_and_eval', **values)
  read = checkpoint_values.of(folder)
  for name, value in read.items():
    assert np.isfinite(value).all(), name
    if name not in ('global_step', 'iteration', 'last_mask_update_step', 'is_snipped'):
      assert value.dtype == np.float32, name
  if 'first_layer_sparsity' in values:
    for layer, wanted in (('initial_conv', 0.25), ('final_dense', 0.5)):
      mask = read[f'resnet_model/{layer}/mask']
      assert np.sum(mask == 0) == int(wanted * mask.size)
  assert ('resnet_model/final_dense/weights/Adam' in read) == ('use_adam' in values)


def test_bfloat16_rounds_what_the_network_computes_and_not_its_variables():
  outputs = []
  for precision in imagenet_config.PRECISIONS:
    with tf.Graph().as_default():
      tf.set_random_seed(0)
      logits = imagenet_model.build_logits(
        tf.constant(images()), dataclasses.replace(CONFIG, precision=precision), True
      )
      assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
      assert {m.dtype for m in pruning.get_masked_weights()} == {tf.float32}
      kinds = {
        op.inputs[1].dtype
        for op in tf.get_default_graph().get_operations()
        if op.type in ('Conv2D', 'MatMul')
      }
      assert kinds == {tf.as_dtype(precision)}
      with sparse_net.quick_session() as session:
        session.run(tf.global_variables_initializer())
        outputs.append(session.run(logits))
  assert not np.array_equal(*outputs)
  np.testing.assert_allclose(*outputs, atol=0.1 * np.abs(outputs[0]).max())


@pytest.mark.parametrize(
  'init_method, method', [('sparse', 'rigl'), ('sparse', 'prune'), ('random_zeros', 'rigl')]
)
def test_initial_weights_follow_the_density_of_their_layer(init_method, method, short):
  made = training(method=method, init_method=init_method)
  made = dataclasses.replace(
    made, unscaled=dataclasses.replace(made.unscaled, mask_init_method='erdos_renyi_kernel')
  )
  drawn = []
  for sparsities in (None, made.init_sparsity()):
    with tf.Graph().as_default():
      tf.set_random_seed(0)
      imagenet_model.build_logits(tf.constant(images()), made.config, True, sparsities)
      with sparse_net.quick_session() as session:
        session.run(tf.global_variables_initializer())
        drawn.append(session.run({v.op.name.rsplit('/', 1)[0]: v for v in pruning.get_weights()}))
  assert any(sparsities.values()) == (method == 'rigl')
  for layer, sparsity in sparsities.items():
    dense, weights = drawn[0][layer], drawn[1][layer]
    if init_method == 'random_zeros':
      assert np.sum(weights == 0) == int(sparsity * weights.size)
    else:
      np.testing.assert_allclose(weights, dense / (1.0 - sparsity) ** 0.5, 1e-5)


# --- The graph ---------------------------------------------------------------


def test_pixels_are_normalised_by_the_statistics_of_imagenet():
  pixels = np.float32([[[[0, 0, 0], [255, 255, 255]]]])
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    actual = session.run(imagenet_model.normalize(tf.constant(pixels), CONFIG))
    first = session.run(
      imagenet_model.normalize(
        tf.constant(pixels), dataclasses.replace(CONFIG, data_format='channels_first')
      )
    )
  mean, stddev = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
  np.testing.assert_allclose(actual, (pixels / 255 - mean) / stddev, rtol=1e-5)
  np.testing.assert_array_equal(first, actual.transpose(0, 3, 1, 2))


@functools.cache
def short_network():
  """({name: shape} of all variables, trained ones, masks) of any method."""
  with tf.Graph().as_default():
    imagenet_model.build_logits(tf.constant(images()), CONFIG, True)
    return (
      {v.op.name: v.shape.as_list() for v in tf.global_variables()},
      [v.op.name for v in tf.trainable_variables()],
      [v.op.name for v in pruning.get_masks()],
    )


@pytest.mark.parametrize(
  'method, extra',
  [
    ('baseline', {}),
    ('scratch', {}),
    ('dnw', {}),
    ('rigl', {'last_mask_update_step': []}),
    ('set', {'last_mask_update_step': []}),
    ('static', {'last_mask_update_step': []}),
    ('snip', {'is_snipped': []}),
    ('momentum', {'last_mask_update_step': [], '<ema>': None}),
    ('prune', {'model_pruning/last_mask_update_step': []}),
  ],
)
def test_training_adds_slots_and_the_variables_of_the_method(method, extra, short):
  made = training(method=method)
  network, trained, masks = short_network()
  expected = {
    **network,
    'global_step': [],
    **{f'{name}/Momentum': network[name] for name in trained},
  }
  if extra.pop('<ema>', True) is None:
    expected.update({mask.replace('/mask', '/dense_gradient_ema'): network[mask] for mask in masks})
  with tf.Graph().as_default():
    train_op(made, tf.constant(images()), tf.constant([1, 2, 3, 4]))
    assert {v.op.name: v.shape.as_list() for v in tf.global_variables()} == {**expected, **extra}


def test_batch_statistics_move_on_steps_that_move_masks(short):
  made = training()
  with tf.Graph().as_default():
    op, reported = train_op(made, tf.constant(images()), tf.constant([1, 2, 3, 4]))
    moving = [v for v in tf.global_variables() if 'moving_' in v.op.name]
    step = tf.train.get_global_step()
    with sparse_net.quick_session() as session:
      session.run([tf.global_variables_initializer(), tf.tables_initializer()])
      made.make_scaffold().init_fn(session)
      states = []
      for _ in range(3):
        (trained,), _ = session.run([reported['trained'], op])
        states.append((trained, session.run(step), session.run(moving)))
  assert [state[:2] for state in states] == [(False, 0), (True, 1), (True, 2)]
  for before, after in zip(states, states[1:]):
    for a, b in zip(before[2], after[2]):
      assert not np.array_equal(a, b)


def test_loss_has_label_smoothing_and_weight_decay(short):
  config = dataclasses.replace(CONFIG, weight_decay=0.5, label_smoothing=0.2)
  labels = np.array([1, 9, 0, 4], np.int32)
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    logits = imagenet_model.build_logits(tf.constant(images()), config, True)
    losses = imagenet_model.cross_entropy(labels, logits, 0.2)
    penalty = tf.losses.get_regularization_loss()
    kernels = [v for v in tf.trainable_variables() if v.op.name.endswith('/weights')]
    session.run(tf.global_variables_initializer())
    logits, losses, penalty, kernels = session.run([logits, losses, penalty, kernels])
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  target = 0.8 * np.eye(10)[labels] + 0.02
  np.testing.assert_allclose(losses, -(target * log_p).sum(1), rtol=1e-4)
  np.testing.assert_allclose(penalty, 0.25 * sum((k**2).sum() for k in kernels), rtol=1e-4)


def test_metrics_leave_padding_out():
  rng = np.random.RandomState(0)
  logits = rng.randn(6, 10).astype(np.float32)
  labels = np.array([3, -1, 5, 0, -1, 9], np.int32)
  logits[3] = 0.0  # Ties: the lowest classes are the best.
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    metrics = imagenet_model.metric_fn(tf.constant(labels), tf.constant(logits), 0.0)
    session.run(tf.local_variables_initializer())
    session.run([update for _, update in metrics.values()])
    values = session.run({name: value for name, (value, _) in metrics.items()})
  real = labels >= 0
  ranks = np.argsort(np.argsort(-logits, axis=1, kind='stable'), axis=1)
  ranks = ranks[np.arange(6), labels][real]
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  np.testing.assert_allclose(values['top_1_accuracy'], np.mean(ranks < 1))
  np.testing.assert_allclose(values['top_5_accuracy'], np.mean(ranks < 5))
  np.testing.assert_allclose(values['cross_loss'], -log_p[np.arange(6), labels][real].mean(), 1e-5)


# --- Replicas ----------------------------------------------------------------


# sparse_optimizers_modes_test compiles the steps of all optimizers.
@pytest.mark.parametrize('method', combinations.quick(methods.METHODS, 'rigl'))
def test_step_under_xla_gives_the_masks_of_a_session(method, short):
  """The whole step, masks and all, in float64: the two round differently."""
  made = training(method=method)
  sparsity = 0.8 if made.sparsity.method.inits_masks else None
  (start, plain), (_, compiled) = (
    whole_steps.run(
      lambda pixels, labels: train_op(made, pixels, labels)[0],
      [images().astype(np.float64), [1, 2, 3, 4]],
      3,
      is_compiled,
      sparsity,
    )
    for is_compiled in (False, True)
  )
  assert all(np.isfinite(value).all() for value in compiled.values())
  moved = any((plain[name] != mask).any() for name, mask in start.items())
  assert moved == (method not in ('baseline', 'scratch', 'static'))
  for name in start:
    np.testing.assert_array_equal(plain[name], compiled[name], err_msg=name)


@pytest.mark.parametrize('method', combinations.quick(methods.METHODS, 'rigl', 'set', 'dnw'))
def test_step_is_replicated_with_sums_over_replicas(method, short):
  made = on_tpu(training(method=method))
  n_layers = 6
  with tf.Graph().as_default() as graph:
    inputs = [[tf.zeros([2, 32, 32, 3]), tf.constant([1, 2])] for _ in range(2)]
    with tf.variable_scope('', use_resource=True):
      tf.tpu.replicate(lambda x, y: train_op(made, x, y)[0], inputs)
    functions = graph.as_graph_def().library.function
    sums = [op.type for op in graph.get_operations()]
    sums += [node.op for f in functions for node in f.node_def]
    n_sums = sums.count('CrossReplicaSum')
    n_trained = len(tf.trainable_variables())
    assert len(pruning.get_masks()) == n_layers
  # DNW trains with its dense gradients, which are summed when applied.
  is_ranked = methods.METHODS[method].gradient != '' and method != 'dnw'
  assert n_sums == n_trained + n_layers * is_ranked


def test_the_host_gets_vectors(short):
  with tf.Graph().as_default():
    _, reported = train_op(training(), tf.constant(images()), tf.constant([1, 2, 3, 4]))
    assert all(t.shape.rank == 1 for t in reported.values())


def test_each_host_of_a_tpu_reads_its_own_part(short, monkeypatch):
  asked = []

  def batches(pipeline):
    asked.append(pipeline)

  monkeypatch.setattr(imagenet_input.Pipeline, 'batches', batches)
  data = imagenet_data.find_data(
    '', use_synthetic_data=True, num_train_images=40, num_eval_images=10, num_classes=10
  )
  on_tpu(training()).eval_input(data)(2, 4)
  (pipeline,) = asked
  assert (pipeline.host_index, pipeline.n_hosts) == (2, 4)
  assert pipeline.batch_size == training().config.eval_batch_size // 4
  assert pipeline.pad_last_batch


# --- Outputs -----------------------------------------------------------------


def tags(folder):
  """{tag: steps} of what was written to a folder, in order."""
  found = {}
  for path in sorted(glob.glob(os.path.join(folder, 'events*'))):
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      event = tf.Event.FromString(record)
      for value in event.summary.value:
        found.setdefault(value.tag, []).append(event.step)
  return found


def test_summaries_have_the_tags_of_the_reference(goldens, short, tmp_path):
  golden = goldens('summary_tags')['imagenet_rigl_training']
  folder = imagenet_script.run(
    tmp_path, training_method='rigl', train_steps=3, log_mask_imgs_each_iteration=True
  )
  written = tags(folder)
  layers = [
    name[: -len('/mask')] for name in checkpoint_values.of(folder) if name.endswith('/mask')
  ]
  # In 2020 pruning/<layer>/mask/sparsity.
  of_masks = {
    'global_sparsity',
    'moved',
    'itop_rate',
    'dead_units',
    *(f'{kind}/{name}' for kind in ('density', 'mask') for name in layers),
  }
  expected = set(golden[:-1])
  # Those of the first layer with a mask; ours are of all layers.
  assert expected - set(written) == {'fw_nz_mask', 'fw_nz_weight', 'fw_l1_weight'}
  assert set(written) - expected == {
    'active_connections',
    'nonzero_weights',
    'l1_norm',
    'top_1_accuracy',
    *of_masks,
  } - {'global_sparsity'}
  # Once a step, though steps that move masks leave the global step as it is.
  # The loss is that of a step, and masks are shown as the step leaves them.
  assert all(
    steps == ([1, 2, 3] if tag in {'loss', *of_masks} else [0, 1, 2])
    for tag, steps in written.items()
  ), written


def test_summaries_show_the_network_a_step_begins_with(short):
  made = training()
  with tf.Graph().as_default():
    op, reported = train_op(made, tf.constant(images()), tf.constant([1, 2, 3, 4]))
    with sparse_net.quick_session() as session:
      session.run([tf.global_variables_initializer(), tf.tables_initializer()])
      made.make_scaffold().init_fn(session)
      session.run(op)  # Moves the masks.
      masks, weights, trained = session.run(
        [pruning.get_masks(), pruning.get_weights(), tf.trainable_variables()]
      )
      values, _ = session.run([reported, op])
      after = session.run(tf.trainable_variables())
  assert any((a != b).any() for a, b in zip(trained, after))
  in_use = [m * w for m, w in zip(masks, weights)]
  expected = {
    'active_connections': sum((m != 0).sum() for m in masks),
    'nonzero_weights': sum((w != 0).sum() for w in in_use),
    'l1_norm': sum(np.abs(w).sum() for w in in_use),
    'var_norm': sum((v**2).sum() for v in trained) ** 0.5,
    'global_step': 0,
    'current_epoch': 0,
    'drop_fraction': 0.3,
    'learning_rate': 0.1 * 4 / 256,
    'trained': True,
  }
  for name, value in expected.items():
    np.testing.assert_allclose(values[name], [value], rtol=1e-5, err_msg=name)
  assert values['grad_norm'][0] > 0


def test_export_predicts_what_evaluation_sees(short, tmp_path):
  """Exports come at their steps, whenever checkpoints do."""
  folder = imagenet_script.run(
    tmp_path, training_method='rigl', train_steps=5, export_model_freq=2, steps_per_checkpoint=1000
  )
  exported = pathlib.Path(folder, 'export')
  assert sorted(p.name for p in exported.iterdir()) == ['2', '4', '5']
  model = tf2.saved_model.load(str(exported / '5'))
  config = script.experiment_from_flags().config
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    logits = imagenet_model.build_logits(tf.constant(images()), config)
    tf.train.Saver().restore(session, tf.train.latest_checkpoint(folder))
    expected = session.run(logits)
    png = session.run(tf.io.encode_png(images()[0].astype(np.uint8)))
    decoded = session.run(preprocessing.preprocess_eval(png, image_size=32))
  predict = model.signatures['serving_default']
  outputs = predict(images=tf2.constant(images()))
  np.testing.assert_allclose(outputs['logits'], expected, atol=1e-5)
  np.testing.assert_allclose(
    model.signatures['predict_jpeg'](image_bytes=tf2.constant([png]))['logits'],
    predict(images=tf2.constant(decoded[None]))['logits'],
    atol=1e-5,
  )


def test_an_export_that_is_missing_at_the_end_is_made_up_for(short, tmp_path):
  imagenet_script.run(tmp_path, train_steps=2, export_model_freq=0)
  folder = imagenet_script.run(tmp_path, train_steps=2, export_model_freq=100)
  exported = pathlib.Path(folder, 'export', '2')
  assert exported.is_dir()
  before = exported.stat()
  imagenet_script.run(tmp_path, train_steps=2, export_model_freq=100)
  assert exported.stat() == before


# --- Evaluation --------------------------------------------------------------


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  """A copy of the folder of a training of 3 steps."""
  with conftest.restored_flags(), pytest.MonkeyPatch.context() as patch:
    imagenet_script.shorten_networks(patch)
    return imagenet_script.run(tmp_path_factory.mktemp('original'), train_steps=3)


@pytest.fixture
def trained(original, short, tmp_path):
  return str(shutil.copytree(original, tmp_path / 'trained'))


def test_evaluation_sees_every_image_once(trained, monkeypatch):
  seen = []
  monkeypatch.setattr(
    imagenet_experiment.ImageNetExperiment, 'text_of', lambda _, metrics: seen.append(metrics)
  )
  for batch_size in (8, 20):
    imagenet_script.run(trained, mode='eval_once', eval_batch_size=batch_size)
  n_right = [float(m['top_5_accuracy']) * 20 for m in seen]
  np.testing.assert_allclose(n_right, round(n_right[0]), atol=1e-4)
  losses = [m['cross_loss'] for m in seen]
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_evaluation_on_the_training_images(trained, monkeypatch):
  seen = []
  monkeypatch.setattr(
    imagenet_experiment.ImageNetExperiment, 'text_of', lambda _, metrics: seen.append(metrics)
  )
  # No share of 7 images but all and none is one of 64.
  imagenet_script.run(trained, mode='eval_once', eval_on_train=True, num_eval_images=7)
  n_right = float(seen[0]['top_5_accuracy']) * 64
  assert abs(n_right - round(n_right)) < 1e-3
  assert round(n_right) % 64


@pytest.mark.parametrize('mode, part', [('train', 'train'), ('eval_once', 'validation')])
def test_a_bad_record_is_named_as_its_file_is(mode, part, trained, tmp_path):
  data = tmp_path / "it's" / 'the "data"'
  records = tiny_imagenet.make_records(9)
  tiny_imagenet.write_folder(data, 9, 9)
  tiny_imagenet.write_part(data, part, [*records[:8], tiny_imagenet.make_record(b'text', 3)], 1)
  for path in data.glob(f'{part}-*-of-0000[23]'):
    path.unlink()
  with pytest.raises(ValueError) as error:
    imagenet_script.run(
      trained,
      mode=mode,
      train_steps=9,
      data_directory=str(data),
      use_synthetic_data=False,
      num_train_images=9,
      num_eval_images=9,
      num_label_classes=10,
    )
  assert str(error.value) == (
    '' if mode == 'train' else f'Cannot evaluate the checkpoint {trained}/model.ckpt-3: '
  ) + (
    f'{data}/{part}-00000-of-00001: record 8 (counted from 0) does not '
    "hold a JPEG or PNG under 'image/encoded' and a label from 1 to 10 "
    "under 'image/class/label'. Its label is 3."
  )


def test_eval_follows_the_checkpoints_until_the_last(trained, monkeypatch):
  seen = []

  def train_on(experiment, metrics):
    seen.append(int(metrics['global_step']))
    if seen == [3]:
      state = {name: FLAGS[name].value for name in FLAGS}
      imagenet_script.run(trained, mode='train', train_steps=5)
      for name, value in state.items():
        FLAGS[name].value = value
    return ''

  monkeypatch.setattr(imagenet_experiment.ImageNetExperiment, 'text_of', train_on)
  imagenet_script.run(trained, mode='eval', train_steps=5)
  assert seen == [3, 5]


def test_train_and_eval_takes_turns(short, tmp_path, capsys):
  imagenet_script.run(tmp_path, mode='train_and_eval', train_steps=3, steps_per_eval=2)
  lines = capsys.readouterr().out.splitlines()
  assert [line.partition(':')[0] for line in lines if 'top 5' in line] == ['step 2', 'step 3']
  assert any(line.startswith('step 3/3  loss') for line in lines)
  # The process may have died before the last evaluation.
  imagenet_script.run(tmp_path, mode='train_and_eval', train_steps=3, steps_per_eval=2)
  first, *again = capsys.readouterr().out.splitlines()
  assert first == lines[0] == 'resnet-18, scratch at sparsity 0.8, 3 steps'
  assert again[:2] == lines[1:3] and again[1] == f'Run: {tmp_path}'
  *_, evaluated, trained = lines
  assert trained == f'Trained to step 3: {tmp_path}/model.ckpt-3.'
  assert again[2:] == [f'{tmp_path} already holds 3 steps.', evaluated]
  rows = history.read(str(tmp_path))
  assert [row['step'] for row in rows if row['split'] == 'validation'] == [2, 3]
  assert evaluated.startswith(f'step 3: top 1 {rows[-1]["top_1_accuracy"]:.2%}, ')


def test_it_trains_from_python_as_the_script_does(short, tmp_path, capsys):
  settings = {**imagenet_script.SMALL, 'mask_init_method': 'uniform'}
  expected = checkpoint_values.of(
    imagenet_script.run(tmp_path, training_method='rigl', mask_init_method='random')
  )
  capsys.readouterr()
  with quick_sessions.of_scripts():
    result = rigl.imagenet_resnet.train('rigl', settings.pop('end_sparsity'), **settings)
  assert capsys.readouterr().out == ''
  assert [(row['step'], row['split']) for row in result.history] == [
    (1, 'train'),
    (2, 'train'),
    (2, 'validation'),
  ]
  assert {
    'epoch',
    'learning_rate',
    'drop_fraction',
    'sparsity',
    'moved',
    'top_1_accuracy',
    'loss',
  } <= set(result.history[0])
  assert result.masks
  for layer, mask in result.masks.items():
    np.testing.assert_array_equal(mask, expected[f'{layer}/mask'])
    np.testing.assert_array_equal(
      result.weights[f'{layer}/weights'], expected[f'{layer}/weights'] * mask
    )


def test_batch_statistics_in_evaluation(trained, monkeypatch):
  seen = []
  monkeypatch.setattr(
    imagenet_experiment.ImageNetExperiment, 'text_of', lambda _, metrics: seen.append(metrics)
  )
  for value in (False, True):
    imagenet_script.run(trained, mode='eval_once', use_batch_statistics=value)
  assert abs(seen[0]['cross_loss'] - seen[1]['cross_loss']) > 1e-6


def test_old_paths():
  from rigl.imagenet_resnet import utils
  from rigl.training import checkpoints, summaries

  assert utils.initialize_parameters_from_ckpt is (checkpoints.initialize_parameters_from_ckpt)
  for name in ('format_tensors', 'host_call_fn', 'mask_summaries'):
    assert getattr(utils, name) is getattr(summaries, name)

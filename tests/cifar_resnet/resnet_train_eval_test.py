"""The CIFAR-10 script: every method trains, resumes and evaluates."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pathlib
import shutil

import numpy as np
import pytest
from absl import flags

import rigl
from rigl import checkpoint_files, gin_configs
from rigl.cifar_resnet import cifar_data, cifar_experiment
from rigl.cifar_resnet import resnet_train_eval as script
from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.core import methods
from rigl.model_pruning import pruning
from rigl.training import checkpoints, factory, history, mask_init, runner
from rigl.training.config import SparsityConfig
from tests import checkpoint_values, combinations, conftest, quick_sessions, sparse_net, whole_steps
from tests import script_flags as flags_of_script

FLAGS = flags.FLAGS


def _set_flags(folder):
  FLAGS.train_dir = str(folder / 'runs')
  FLAGS.resnet_depth = 10
  FLAGS.resnet_width = 1
  FLAGS.batch_size = 10
  FLAGS.max_steps = 6
  FLAGS.checkpoint_steps = 6
  FLAGS.summaries_steps = 2
  FLAGS.maskupdate_frequency = 2
  FLAGS.maskupdate_end_step = 5
  FLAGS.sparsity_begin_step = 1
  FLAGS.sparsity_end_step = 5
  FLAGS.pruning_frequency = 1
  tf.get_logger().setLevel('ERROR')


@pytest.fixture(autouse=True)
def script_flags(tmp_path):
  _set_flags(tmp_path)


@pytest.fixture(scope='module')
def data():
  return cifar_data.make_synthetic(n_train=60, n_test=23)


def _run(method, data, mode='train'):
  FLAGS.training_method, FLAGS.mode = method, mode
  experiment = script.experiment_from_flags()
  with quick_sessions.of_scripts():
    experiment.train_or_evaluate(data)
  return experiment.folder


def masks_of(values):
  return [value for name, value in values.items() if name.endswith('/mask')]


@pytest.fixture(scope='module')
def original(data, tmp_path_factory):
  """A copy of the folder of a training of 2 steps."""
  folder = tmp_path_factory.mktemp('original')
  with conftest.restored_flags():
    _set_flags(folder)
    FLAGS.max_steps = 2
    _run('scratch', data)
  return folder


@pytest.fixture
def trained(original, tmp_path):
  """Folder of a training of 2 steps with the current flags."""
  shutil.copytree(original, tmp_path, dirs_exist_ok=True)
  FLAGS.training_method, FLAGS.max_steps = 'scratch', 2
  return script.experiment_from_flags().folder


# imagenet_resume_test resumes others, sparse_optimizers_modes_test all
# optimizers.
@pytest.mark.parametrize('method', combinations.quick(methods.METHODS, 'prune'))
def test_method_trains_evaluates_and_resumes_exactly(method, data, capsys, tmp_path):
  FLAGS.mask_init_method = 'erdos_renyi_kernel'
  folder = _run(method, data, 'train_and_eval')
  whole, rows = checkpoint_values.of(folder), history.read(folder)
  printed = capsys.readouterr().out
  assert 'step 6: accuracy' in printed
  assert [(row['step'], row['split']) for row in rows] == [
    (2, 'train'),
    (4, 'train'),
    (6, 'train'),
    (6, 'test'),
  ]
  sparsity = 1.0 - sum(m.sum() for m in masks_of(whole)) / max(
    1, sum(m.size for m in masks_of(whole))
  )
  if masks_of(whole):
    assert rows[2]['sparsity'] == pytest.approx(sparsity)
    assert f'sparsity {sparsity:.4f}' in printed
  else:
    assert rows[2]['sparsity'] == 0.0 and 'sparsity' not in printed
  # Static grows the connections that it has dropped.
  assert any(row['moved'] > 0.0 for row in rows[:3]) == (
    method in ('set', 'momentum', 'rigl', 'dnw')
  )
  assert f'accuracy {rows[3]["accuracy"]:.2%}' in printed
  assert whole['global_step'] == 6
  assert any(name.endswith('/mask') for name in whole) == (methods.METHODS[method].uses_masks)
  checkpoint_values.assert_sparsities(whole, method, 0.9, pruned=0.9)

  FLAGS.train_dir = str(tmp_path / 'again')
  FLAGS.max_steps = 2
  _run(method, data)
  FLAGS.max_steps = 6
  folder = _run(method, data)
  resumed = checkpoint_values.of(folder)
  for row in (*rows, *(again := history.read(folder))):
    del row['seconds']
  assert again == rows[:3]
  assert sorted(whole) == sorted(resumed)
  for name, value in whole.items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_masks_keep_their_counts_through_hundreds_of_steps():
  """With batch norm, dropout and weight decay on."""
  config = SparsityConfig(
    training_method='rigl', end_sparsity=0.8, maskupdate_frequency=3, maskupdate_end_step=-1
  )
  rng = np.random.RandomState(0)
  with tf.Graph().as_default():
    step, _, _, _ = script.build_model(
      'train',
      tf.constant(rng.randn(2, 8, 8, 3), tf.float32),
      tf.constant([1, 2]),
      'rigl',
      depth=10,
      width=1,
      config=CifarConfig(),
    )
    inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
    train_op = factory.make_train_op(
      factory.make_optimizer(config, inner), tf.losses.get_total_loss(), step
    )
    set_masks = mask_init.make_scaffold(config).init_fn
    masks = pruning.get_masks()
    with sparse_net.quick_session() as session:
      session.run(tf.global_variables_initializer())
      set_masks(session)
      before = session.run(masks)
      for _ in range(200):
        session.run(train_op)
      after = session.run(masks)
  assert [m.sum() for m in before] == [m.sum() for m in after]
  assert any((a != b).any() for a, b in zip(before, after))


def test_evaluation_sees_every_image_once(data, trained, monkeypatch):
  seen = []
  monkeypatch.setattr(
    cifar_experiment.CifarExperiment, 'text_of', lambda _, metrics: seen.append(metrics)
  )
  for batch_size in (10, 23):
    FLAGS.batch_size = batch_size
    _run('scratch', data, 'eval')
  n_right = [float(m['accuracy']) * len(data.test_labels) for m in seen]
  # Each of the 23 images counts once, so the number of right ones is an
  # integer.
  np.testing.assert_allclose(n_right, round(n_right[0]), atol=1e-4)
  assert {'precision/class_9', 'recall/class_0'} <= set(seen[0])
  # A process that follows a training does not write to its rows.
  (row,) = history.read(os.path.join(trained, 'eval'))
  assert (row['step'], row['split']) == (2, 'test')
  assert row['accuracy'] == pytest.approx(float(seen[0]['accuracy']))
  assert not history.evaluations(history.read(trained))


def test_learning_rates_are_those_of_the_reference(goldens):
  for case in goldens('lr_schedules')['cifar_resnet_train_eval']['cases']:
    multiplier = next((float(f.split('=')[1]) for f in case['flags']), 1.0)
    config = CifarConfig(training_steps_multiplier=multiplier)
    sparsity = SparsityConfig(
      maskupdate_end_step=75000, pruning_begin_step=20000, pruning_end_step=75000
    ).scaled(multiplier)
    expected = case['flags_after_main_scaling']
    assert config.total_steps == expected['max_steps']
    assert sparsity.maskupdate_end_step == expected['maskupdate_end_step']
    assert sparsity.maskupdate_frequency == expected['maskupdate_frequency']
    assert sparsity.pruning_begin_step == expected['sparsity_begin_step']
    assert sparsity.pruning_end_step == expected['sparsity_end_step']
    with tf.Graph().as_default(), tf.Session() as session:
      rates = session.run(
        [config.learning_rate_at(tf.constant(s, tf.int64)) for s in case['steps']]
      )
    np.testing.assert_allclose(rates, case['learning_rate'], rtol=1e-6)


def test_no_step_at_all_is_a_mistake():
  with pytest.raises(ValueError, match='max_steps 9 .*less than a step'):
    CifarConfig(max_steps=9, training_steps_multiplier=0.1)


# imagenet_train_eval_test has a smaller network.
@pytest.mark.slow
def test_step_under_xla_gives_the_masks_of_a_session():
  """The whole RigL step of WRN-10-1, masks and all.

  In float64: the two round differently, which in float32 is enough for a few
  other connections.
  """
  config = SparsityConfig(
    training_method='rigl', end_sparsity=0.8, maskupdate_frequency=2, maskupdate_end_step=-1
  )
  images = np.random.RandomState(0).randn(4, 32, 32, 3)

  def build(images, labels):
    step, _, _, _ = script.build_model('train', images, labels, 'rigl', depth=10, width=1)
    inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
    return factory.make_train_op(
      factory.make_optimizer(config, inner), tf.losses.get_total_loss(), step
    )

  (start, plain), (_, compiled) = (
    whole_steps.run(build, [images, [1, 2, 3, 4]], 4, is_compiled, 0.8)
    for is_compiled in (False, True)
  )
  assert any((plain[name] != mask).any() for name, mask in start.items())
  for name in start:
    np.testing.assert_array_equal(plain[name], compiled[name], err_msg=name)


def test_the_written_config_gives_the_same_training_again(data):
  FLAGS.training_steps_multiplier = 2.0
  FLAGS.max_steps = 1
  folder = _run('rigl', data)
  bound = gin_configs.read([os.path.join(folder, 'config.gin')], (), (SparsityConfig, CifarConfig))
  assert bound[SparsityConfig, 'maskupdate_end_step'] == 5
  assert bound[CifarConfig, 'max_steps'] == 1
  assert checkpoint_values.of(folder)['global_step'] == 2


def test_a_training_that_was_over_says_so(data, trained, capsys):
  for FLAGS.max_steps in (2, 1):
    _run('scratch', data)
    assert capsys.readouterr().out == f'{trained} already holds 2 steps.\n'


def test_the_evaluation_that_a_dying_process_owed_is_made_up_for(data, trained, monkeypatch):
  """The training died between the last checkpoint and its evaluation."""
  steps = []
  monkeypatch.setattr(
    cifar_experiment.CifarExperiment,
    'text_of',
    lambda _, metrics: steps.append(metrics['global_step']),
  )
  _run('scratch', data, 'train_and_eval')
  assert checkpoints.latest_step(trained) == 2
  assert steps == [2]


def test_parameters_and_nothing_else_are_loaded(data, trained, tmp_path):
  FLAGS.train_dir = str(tmp_path / 'next')
  FLAGS.initial_value_checkpoint, FLAGS.seed = trained, 5
  folder = _run('rigl', data)
  start = checkpoint_values.of(os.path.join(folder, 'model.ckpt-0'))
  source = checkpoint_values.of(trained)
  assert start['global_step'] == 0
  leaves = set()
  for name, value in start.items():
    leaf = name.rsplit('/', 1)[-1]
    leaves.add(leaf)
    if leaf == 'mask':
      assert (value != source[name]).any()
    elif leaf == 'Momentum':
      assert not value.any()
    elif leaf in checkpoint_files.PARAMETER_SUFFIXES:
      np.testing.assert_array_equal(value, source[name], err_msg=name)
  assert {'mask', 'Momentum', 'weights', 'gamma', 'moving_mean'} <= leaves


def _main_without_a_folder(tmp_path, **values):
  """Runs main() on synthetic images; --train_dir must not exist afterwards."""
  for name, value in {'use_synthetic_data': True, **values}.items():
    setattr(FLAGS, name, value)
  try:
    script.main(['resnet_train_eval.py'])
  finally:
    assert not (tmp_path / 'runs').exists()


def test_evaluation_makes_no_folder(tmp_path, monkeypatch):
  """As --train_dir may be mistyped."""
  monkeypatch.setattr(runner, 'evaluate_until', lambda *_, **__: ())
  _main_without_a_folder(tmp_path, mode='eval')


def _evaluate_folder(data, folder, *given):
  """Runs main() with --mode=eval, the folder and these flags."""
  with flags_of_script.parsed(['--mode=eval', f'--train_dir={folder}', *given]):
    with pytest.MonkeyPatch.context() as patch, quick_sessions.of_scripts():
      patch.setattr(cifar_data, 'load_cifar', lambda *_, **__: data)
      script.main(['resnet_train_eval.py'])


# Whether the first and the last layer have masks, by method.
MASKS = {'rigl': (True, False), 'scratch': (False, True), 'baseline': None}


@pytest.fixture(scope='module')
def evaluated_of(data, tmp_path_factory):
  """fn(method) -> (folder of a run, its evaluation as the training printed it)."""

  @functools.cache
  def get(method):
    printed = io.StringIO()
    with conftest.restored_flags(), contextlib.redirect_stdout(printed):
      _set_flags(tmp_path_factory.mktemp('evaluated'))
      FLAGS.max_steps = FLAGS.checkpoint_steps = 2
      FLAGS.prune_first_layer, FLAGS.prune_last_layer = MASKS[method] or (True, True)
      folder = _run(method, data, 'train_and_eval')
    (line,) = [
      line for line in printed.getvalue().splitlines() if line.startswith('step 2: accuracy')
    ]
    return pathlib.Path(folder), line

  return get


@pytest.fixture(params=MASKS)
def evaluated(request, evaluated_of):
  return evaluated_of(request.param)


def test_it_trains_from_python_as_the_script_does(data, evaluated_of, monkeypatch, capsys):
  expected = checkpoint_values.of(evaluated_of('rigl')[0])
  capsys.readouterr()
  monkeypatch.setattr(cifar_data, 'load_cifar', lambda *_, **__: data)
  with quick_sessions.of_scripts():
    result = rigl.cifar_resnet.train(
      'rigl',
      resnet_depth=10,
      resnet_width=1,
      batch_size=10,
      max_steps=2,
      maskupdate_frequency=2,
      maskupdate_end_step=5,
      summaries_steps=2,
      prune_first_layer=True,
      prune_last_layer=False,
    )
  assert capsys.readouterr().out == ''
  assert [row['split'] for row in result.history] == ['train', 'test']
  assert len(result.masks) == len(masks_of(expected))
  for layer, mask in result.masks.items():
    np.testing.assert_array_equal(mask, expected[f'{layer}/mask'])
    np.testing.assert_array_equal(
      result.weights[f'{layer}/weights'], expected[f'{layer}/weights'] * mask
    )
  assert set(result.weights) == {
    name for name in expected if name.rpartition('/')[2] in checkpoint_files.PARAMETER_SUFFIXES
  }


def test_the_folder_is_enough_to_evaluate(evaluated, data, capsys):
  folder, expected = evaluated
  _evaluate_folder(data, folder)
  assert capsys.readouterr().out.splitlines() == [expected]


def test_masks_are_found_without_a_config(evaluated, data, tmp_path, capsys):
  """For any flags of the masks."""
  folder, expected = evaluated
  for file in folder.glob('model.ckpt-2.*'):
    shutil.copy(file, tmp_path)
  _evaluate_folder(
    data,
    tmp_path,
    '--resnet_depth=10',
    '--resnet_width=1',
    '--max_steps=2',
    '--batch_size=10',
    '--training_method=set',
    '--noprune_last_layer',
  )
  assert capsys.readouterr().out.splitlines() == [expected]


def test_a_flag_of_another_network_than_that_of_the_folder(data, trained):
  with pytest.raises(ValueError) as error:
    _evaluate_folder(data, trained, '--resnet_width=2', '--resnet_depth=16')
  message = str(error.value)
  assert 'does not fit' in message and '\n' not in message
  assert message.startswith(
    f'The run in {trained} has resnet_depth=10, not 16; resnet_width=1, not '
    '2. Leave out --resnet_depth, --resnet_width. '
  )


def test_batch_of_more_than_all_images_makes_no_folder(tmp_path):
  with pytest.raises(ValueError, match='batch_size 5001 is more than the 5000'):
    _main_without_a_folder(tmp_path, batch_size=5001)


def test_a_collapsed_network_is_right_by_chance():
  """All its logits are equal."""
  images, labels = np.zeros([10, 32, 32, 3], np.float32), np.arange(10)
  with tf.Graph().as_default(), tf.Session() as session:
    _, accuracy, top_5, logits = script.build_model(
      'eval', tf.constant(images), tf.constant(labels)
    )
    evaluated = cifar_experiment.metric_fn(tf.constant(labels, tf.int32), logits, per_class=True)
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    for weights in tf.trainable_variables():
      if weights.op.name.endswith('/weights'):
        weights.load(np.zeros(weights.shape.as_list()), session)
    assert not session.run(logits).any()
    assert session.run([accuracy, top_5]) == [np.float32(0.1), 0.5]
    session.run([update for _, update in evaluated.values()])
    found = session.run({k: value for k, (value, _) in evaluated.items()})
  assert (found['accuracy'], found['top_5_accuracy']) == (np.float32(0.1), 0.5)
  assert (found['recall/class_0'], found['recall/class_1']) == (1.0, 0.0)


def test_the_config_is_that_of_the_training_in_the_folder(data, trained):
  """Not of a training that is refused or already complete."""
  path = pathlib.Path(trained, 'config.gin')
  before = path.read_bytes()
  FLAGS.l2 = 0.0
  _run('scratch', data)
  FLAGS.max_steps, FLAGS.resnet_width = 4, 2
  with pytest.raises(ValueError, match='does not fit'):
    _run('scratch', data)
  assert path.read_bytes() == before


# Beside the network, the momentum slots and the step.
EXTRA_VARIABLES = {
  'baseline': (),
  'scratch': (),
  'dnw': (),
  'rigl': ('last_mask_update_step',),
  'set': ('last_mask_update_step',),
  'static': ('last_mask_update_step',),
  'snip': ('is_snipped',),
  'momentum': ('last_mask_update_step', '<layer>/dense_gradient_ema'),
  'prune': ('model_pruning/last_mask_update_step',),
}


@pytest.mark.parametrize(
  'golden, depth, width, chosen',
  [
    # imagenet_train_eval_test has the variables of all methods.
    ('variables_wrn_16_4', 16, 4, ('momentum', 'baseline')),
    pytest.param('variables_wrn_16_4', 16, 4, tuple(EXTRA_VARIABLES), marks=pytest.mark.slow),
    pytest.param('variables_wrn_22_2', 22, 2, ('rigl',), marks=pytest.mark.slow),
  ],
)
def test_the_graph_of_each_method_has_the_published_names(golden, depth, width, chosen, goldens):
  reference = goldens(golden)
  assert set(EXTRA_VARIABLES) == set(methods.METHODS)
  FLAGS.resnet_depth, FLAGS.resnet_width = depth, width
  for method in chosen:
    FLAGS.training_method = method
    network = dict(reference['variables'])
    if method == 'baseline':
      variant = reference['variants']['pruning_method=baseline']
      for name in variant['missing']:
        del network[name]
      network.update(variant['added'])
    expected = {**network, 'global_step': []}
    for name, shape in network.items():
      layer, last = name.rsplit('/', 1)
      if last in ('weights', 'biases', 'gamma', 'beta'):
        expected[f'{name}/Momentum'] = shape
      if last == 'mask' and method == 'momentum':
        expected[f'{layer}/dense_gradient_ema'] = shape
    for name in EXTRA_VARIABLES[method]:
      if '<layer>' not in name:
        expected[name] = []
    with tf.Graph().as_default():
      script.wide_resnet_w_pruning(tf.zeros([2, 32, 32, 3]), tf.zeros([2], tf.int32), 'train', {})
      actual = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert actual == expected, method

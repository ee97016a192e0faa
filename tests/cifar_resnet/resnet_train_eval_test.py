"""The CIFAR-10 script: every method trains, resumes and evaluates."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest
from absl import flags

from rigl.cifar_resnet import cifar_data
from rigl.cifar_resnet import resnet_train_eval as script
from rigl.compat import tf
from rigl.core import distributions
from rigl.model_pruning import pruning
from rigl.training import factory, gin_configs, methods

FLAGS = flags.FLAGS
GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
CONFIGS = pathlib.Path(script.__file__).parent / 'configs'


def _golden(name):
  return json.loads((GOLDENS / f'{name}.json').read_text())


@pytest.fixture(autouse=True)
def script_flags(tmp_path):
  script.sparse_flags.set_script_defaults(script.SCRIPT_DEFAULTS)
  FLAGS.train_dir = str(tmp_path / 'runs')
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


@pytest.fixture(scope='module')
def data():
  return cifar_data.make_synthetic(seed=0, n_train=60, n_test=23)


def _run(method, data, mode='train'):
  FLAGS.training_method = method
  sparsity, config = script.configs_from_flags()
  folder = script.run_folder(sparsity)
  os.makedirs(folder, exist_ok=True)
  script.run(mode, sparsity, config, data, folder)
  return folder


def _values(folder):
  reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(folder))
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def _assert_sparsities(method, values):
  """Every mask has the zeros that ERK at 0.9 gives it."""
  masks = {name: v for name, v in values.items() if name.endswith('/mask')}
  assert bool(masks) == methods.METHODS[method].uses_masks
  shapes = {name: mask.shape for name, mask in masks.items()}
  wanted = distributions.get_sparsities(shapes, 'erdos_renyi_kernel', 0.9)
  for name, mask in masks.items():
    n_zeros = mask.size - np.count_nonzero(mask)
    if methods.METHODS[method].prunes_gradually:
      # The same sparsity everywhere, rounded.
      assert abs(n_zeros - 0.9 * mask.size) <= 1, name
    else:
      assert n_zeros == distributions.get_n_zeros(mask.size, wanted[name]), name


@pytest.mark.parametrize('method', methods.METHODS)
def test_method_trains_evaluates_and_resumes_exactly(
    method, data, capsys, tmp_path):
  FLAGS.mask_init_method = 'erdos_renyi_kernel'
  whole = _values(_run(method, data, 'train_and_eval'))
  assert 'step 6: accuracy' in capsys.readouterr().out
  assert whole['global_step'] == 6
  _assert_sparsities(method, whole)

  FLAGS.train_dir = str(tmp_path / 'again')
  FLAGS.max_steps = 2
  _run(method, data)
  FLAGS.max_steps = 6
  resumed = _values(_run(method, data))
  assert sorted(whole) == sorted(resumed)
  for name, value in whole.items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)


def test_masks_keep_their_counts_through_hundreds_of_steps():
  """With batch norm, dropout and weight decay on."""
  config = script.SparsityConfig(
      training_method='rigl', end_sparsity=0.8, maskupdate_frequency=3,
      maskupdate_end_step=-1)
  rng = np.random.RandomState(0)
  with tf.Graph().as_default():
    step, _, _, _ = script.build_model(
        'train', tf.constant(rng.randn(2, 8, 8, 3), tf.float32),
        tf.constant([1, 2]), 'rigl', depth=10, width=1,
        config=script.CifarConfig())
    inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
      train_op = factory.make_train_op(
          config, factory.make_optimizer(config, inner),
          tf.losses.get_total_loss(), step)
    set_masks = script.mask_init.make_scaffold(config).init_fn
    masks = pruning.get_masks()
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      set_masks(session)
      before = session.run(masks)
      for _ in range(200):
        session.run(train_op)
      after = session.run(masks)
  assert [m.sum() for m in before] == [m.sum() for m in after]
  assert any((a != b).any() for a, b in zip(before, after))


def test_evaluation_sees_every_image_once(data, monkeypatch):
  _run('baseline', data)
  seen = []
  monkeypatch.setattr(script, '_print_metrics', seen.append)
  for batch_size in (10, 7, 23):
    FLAGS.batch_size = batch_size
    _run('baseline', data, 'eval')
  n_right = [float(m['accuracy']) * len(data.test_labels) for m in seen]
  # Of 23 images each counts once, so the same whole number is right.
  np.testing.assert_allclose(n_right, round(n_right[0]), atol=1e-4)
  assert {'precision/class_9', 'recall/class_0'} <= set(seen[0])


def test_learning_rates_are_those_of_the_reference():
  for case in _golden('lr_schedules')['cifar_resnet_train_eval']['cases']:
    multiplier = next(
        (float(f.split('=')[1]) for f in case['flags']), 1.)
    config = script.CifarConfig(training_steps_multiplier=multiplier)
    sparsity = script.SparsityConfig(
        maskupdate_end_step=75000, pruning_begin_step=20000,
        pruning_end_step=75000).scaled(multiplier)
    expected = case['flags_after_main_scaling']
    assert config.total_steps == expected['max_steps']
    assert sparsity.maskupdate_end_step == expected['maskupdate_end_step']
    assert sparsity.maskupdate_frequency == expected['maskupdate_frequency']
    assert sparsity.pruning_begin_step == expected['sparsity_begin_step']
    assert sparsity.pruning_end_step == expected['sparsity_end_step']
    with tf.Graph().as_default(), tf.Session() as session:
      rates = session.run([config.learning_rate_at(tf.constant(s, tf.int64))
                           for s in case['steps']])
    np.testing.assert_allclose(rates, case['learning_rate'], rtol=1e-6)


def test_no_step_at_all_is_a_mistake():
  with pytest.raises(ValueError, match='max_steps 9 .*less than a step'):
    script.CifarConfig(max_steps=9, training_steps_multiplier=0.1)


def test_flags_have_the_names_and_defaults_of_the_reference():
  for flag in _golden('flags_cifar_resnet_train_eval')['flags']:
    assert flag['name'] in FLAGS, flag['name']
    default = script.SCRIPT_DEFAULTS.get(
        flag['name'], FLAGS[flag['name']].default)
    if flag['name'] != 'master':  # Not used.
      assert default == flag['default'], flag['name']


@pytest.mark.parametrize('name', sorted(p.name for p in CONFIGS.glob('*.gin')))
def test_shipped_config_is_valid(name):
  bound = gin_configs.read(
      [str(CONFIGS / name)], [], [script.SparsityConfig, script.CifarConfig])
  assert bound
  for config_class in (script.SparsityConfig, script.CifarConfig):
    config_class(**{field: value for (c, field), value in bound.items()
                    if c is config_class})


def test_step_under_xla_gives_the_masks_of_a_session():
  """The whole RigL step of WRN-10-1, masks and all."""

  def masks_after(compiled, n_steps=4):
    config = script.SparsityConfig(
        training_method='rigl', end_sparsity=0.8, maskupdate_frequency=2,
        maskupdate_end_step=-1)
    rng = np.random.RandomState(0)
    images = tf.constant(rng.randn(4, 32, 32, 3), tf.float32)
    labels = tf.constant([1, 2, 3, 4])

    def build(images, labels):
      step, _, _, _ = script.build_model(
          'train', images, labels, 'rigl', depth=10, width=1)
      inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
      with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return factory.make_train_op(
            config, factory.make_optimizer(config, inner),
            tf.losses.get_total_loss(), step)

    tf.set_random_seed(0)
    if compiled:
      with tf.variable_scope('', use_resource=True):
        train_op = tf.xla.experimental.compile(build, [images, labels])
    else:
      train_op = build(images, labels)
    masks = sorted((v for v in tf.global_variables()
                    if v.op.name.endswith('/mask')), key=lambda v: v.op.name)
    # Grappler breaks the names inside clusters with conditions in them.
    options = tf.ConfigProto()
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    with tf.Session(config=options) as session:
      session.run(tf.global_variables_initializer())
      random_state = np.random.RandomState(0)
      for mask in masks:
        mask.load(distributions.random_mask(
            mask.shape.as_list(), 0.8, random_state), session)
      start = session.run(masks)
      for _ in range(n_steps):
        session.run(train_op)
      return start, session.run(masks)

  with tf.Graph().as_default():
    start, plain = masks_after(compiled=False)
  with tf.Graph().as_default():
    _, compiled = masks_after(compiled=True)
  assert any((a != b).any() for a, b in zip(start, plain))
  for a, b in zip(plain, compiled):
    np.testing.assert_array_equal(a, b)


def test_the_written_config_gives_the_same_training_again(data):
  FLAGS.training_steps_multiplier = 2.
  FLAGS.max_steps = 1
  folder = _run('rigl', data)
  bound = gin_configs.read(
      [os.path.join(folder, 'config.gin')], (),
      (script.SparsityConfig, script.CifarConfig))
  assert bound[script.SparsityConfig, 'maskupdate_end_step'] == 5
  assert bound[script.CifarConfig, 'max_steps'] == 1
  assert _values(folder)['global_step'] == 2


def test_a_training_that_was_over_says_so(data, capsys):
  FLAGS.max_steps = 2
  folder = _run('scratch', data)
  assert 'already' not in capsys.readouterr().out
  _run('scratch', data)
  assert capsys.readouterr().out == f'{folder} already holds 2 steps.\n'


def test_the_config_is_that_of_the_training_in_the_folder(data):
  """Not that of one that was refused, nor of one with nothing left to do."""
  FLAGS.max_steps = 2
  path = pathlib.Path(_run('scratch', data), 'config.gin')
  before = path.read_bytes()
  FLAGS.l2 = 0.
  _run('scratch', data)
  FLAGS.max_steps, FLAGS.resnet_width = 4, 2
  with pytest.raises(ValueError, match='does not fit'):
    _run('scratch', data)
  assert path.read_bytes() == before


# Beside the network, the momentum slots and the step.
EXTRA_VARIABLES = {
    'baseline': (), 'scratch': (), 'dnw': (),
    'rigl': ('last_mask_update_step',), 'set': ('last_mask_update_step',),
    'static': ('last_mask_update_step',), 'snip': ('is_snipped',),
    'momentum': ('last_mask_update_step', '<layer>/dense_gradient_ema'),
    'prune': ('model_pruning/last_mask_update_step',),
}


@pytest.mark.parametrize('golden, depth, width, chosen', [
    ('variables_wrn_16_4', 16, 4, tuple(EXTRA_VARIABLES)),
    ('variables_wrn_22_2', 22, 2, ('rigl', 'baseline'))])
def test_the_graph_of_each_method_has_the_published_names(
    golden, depth, width, chosen, tmp_path):
  reference = _golden(golden)
  assert set(EXTRA_VARIABLES) == set(methods.METHODS)
  FLAGS.resnet_depth, FLAGS.resnet_width = depth, width
  for method in chosen:
    FLAGS.training_method = method
    sparsity, config = script.configs_from_flags()
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
      script.wide_resnet_w_pruning(
          tf.zeros([2, 32, 32, 3]), tf.zeros([2], tf.int32), 'train',
          {'sparsity': sparsity, 'config': config, 'folder': str(tmp_path)})
      actual = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert actual == expected, method

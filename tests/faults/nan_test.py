"""NaN and infinity end a training of any method; nothing of it is saved."""

from __future__ import annotations

import numpy as np
import pytest

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.core import methods
from rigl.model_pruning import layers, sparse_layers
from rigl.training import factory, hooks, mask_init, saving, stop_at_nan
from rigl.training.config import SparsityConfig
from tests import combinations, sparse_net
from tests.faults import scripts

MASKED = [name for name, method in methods.METHODS.items() if method.uses_masks]
GOOD, NAN, INFINITE = 0.0, float('nan'), float('inf')


pytestmark = pytest.mark.usefixtures('graph')


def config_of(method):
  return SparsityConfig(
    training_method=method,
    end_sparsity=0.5,
    maskupdate_frequency=2,
    maskupdate_end_step=-1,
    pruning_begin_step=0,
    pruning_end_step=6,
    pruning_frequency=2,
  )


def dense(inputs, n_units, name):
  values = np.random.RandomState(n_units).uniform(-0.5, 0.5, [inputs.shape[1], n_units])
  return sparse_layers.sparse_fully_connected(
    inputs,
    n_units,
    kernel_initializer=tf.constant_initializer(values),
    name=name,
    dense_names=('weights', 'biases'),
  )


class Training:
  """A network with batch norm whose loss or gradient can be spoilt."""

  def __init__(self, method, folder=''):
    self.config = config_of(method)
    self.spoil_loss = tf.placeholder_with_default(GOOD, [])
    self.spoil_gradient = tf.placeholder_with_default(GOOD, [])
    inputs = tf.constant(np.random.RandomState(0).normal(size=[8, 6]).astype(np.float32))
    if self.config.method.uses_masks:
      hidden = layers.masked_fully_connected(inputs, 10, scope='a')
    else:
      hidden = dense(inputs, 10, 'a')
    mean = tf.get_variable('moving_mean', [10], trainable=False, initializer=tf.zeros_initializer())
    step = 0.1 * (mean - tf.reduce_mean(hidden, 0)) + self.spoil_loss
    tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(mean, step).op)
    if self.config.method.uses_masks:
      outputs = layers.masked_fully_connected(hidden, 3, scope='b')
    else:
      outputs = dense(hidden, 3, 'b')
    loss = tf.reduce_mean(tf.square(outputs - 1.0)) + self.spoil_loss

    @tf.custom_gradient
    def identity(x):
      return tf.identity(x), lambda g: g * (1.0 + self.spoil_gradient)

    loss = identity(loss)
    self.global_step = tf.train.get_or_create_global_step()
    self.optimizer = factory.make_optimizer(self.config, tf.train.MomentumOptimizer(0.05, 0.9))
    self.hook = stop_at_nan.NotFiniteHook(str(folder))
    self.train_op = factory.make_train_op(
      self.optimizer, loss, self.global_step, not_finite=self.hook
    )
    self.loss = loss

  def feed(self, loss=GOOD, gradient=GOOD):
    return {self.spoil_loss: loss, self.spoil_gradient: gradient}


@pytest.mark.parametrize('position', ['active', 'inactive'])
def test_dense_gradient_is_checked_through_that_of_the_weights(position):
  """0 * NaN is NaN, so the gradient of masked weights shows it."""
  weights = layers.masked_fully_connected(tf.ones([2, 3]), 2, scope='a')
  (mask,) = tf.get_collection('masks')
  dense = tf.gradients(tf.reduce_sum(weights), tf.get_collection('masked_weights'))[0]
  spoilt = np.zeros([3, 2], np.float32)
  spoilt[0, 0] = NAN
  gradient = mask * (dense + spoilt)
  hook = stop_at_nan.NotFiniteHook('')
  hook.observe(tf.constant(0.0), [(gradient, mask)])
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    mask.load(np.full([3, 2], float(position == 'active'), np.float32), session)
    assert not np.isfinite(session.run(hook.observed)[1])


# --- Sessions with hooks -----------------------------------------------------


def train(training, folder, losses, save_steps=2):
  """Trains with the hooks of a script."""
  saver = saving.SaverHook(str(folder), save_steps)
  with tf.train.MonitoredTrainingSession(
    checkpoint_dir=str(folder),
    save_checkpoint_steps=None,
    save_checkpoint_secs=None,
    save_summaries_steps=None,
    save_summaries_secs=None,
    hooks=[hooks.ResumableHook(str(folder), may_write=True), training.hook, saver],
  ) as session:
    for value in losses:
      session.run(training.train_op, training.feed(value))


@pytest.mark.parametrize(
  'method, kind, bad',
  [
    pytest.param(
      method,
      ('gradient', 'loss')[i % 2],
      (NAN, INFINITE)[i // 2 % 2],
      marks=[] if 2 <= i < 6 else pytest.mark.slow,
    )
    for i, method in enumerate(methods.METHODS)
  ],
)
def test_stop_names_the_step_and_keeps_the_last_checkpoint(method, kind, bad, tmp_path):
  """For all methods; the quick ones have all four combinations."""
  training = Training(method, tmp_path)
  saver = saving.SaverHook(str(tmp_path), 1)
  with pytest.raises(FloatingPointError) as error:
    with tf.train.SingularMonitoredSession(
      checkpoint_dir=str(tmp_path), hooks=[training.hook, saver]
    ) as session:
      for _ in range(5):
        session.run(training.train_op)
      step = session.raw_session().run(training.global_step)
      prefix = checkpoint_files.latest(str(tmp_path))
      contents = {path: path.read_bytes() for path in tmp_path.glob('model.ckpt*')}
      session.run(training.train_op, training.feed(**{kind: bad}))
  assert prefix == f'{tmp_path}/model.ckpt-{step}'
  assert f'{prefix}.' in str(error.value)
  assert f'step {step + 1}:' in str(error.value)
  assert 'learning rate' in str(error.value) and '\n' not in str(error.value)
  assert checkpoint_files.latest(str(tmp_path)) == prefix
  assert contents == {path: path.read_bytes() for path in tmp_path.glob('model.ckpt*')}


def test_an_error_names_no_checkpoint_if_none_is_kept():
  training = Training('set')
  with pytest.raises(FloatingPointError, match='NaN or inf') as error:
    with tf.train.SingularMonitoredSession(hooks=[training.hook]) as session:
      session.run(training.train_op, training.feed(NAN))
  assert 'checkpoint' not in str(error.value)
  assert '  ' not in str(error.value)


def test_spoilt_weights_are_never_saved(tmp_path):
  """Even if the loss and the gradients of the step were finite."""
  training = Training('set', tmp_path)
  train(training, tmp_path, [GOOD] * 2)
  prefix = checkpoint_files.latest(str(tmp_path))
  with tf.Graph().as_default():
    training = Training('set', tmp_path)
    (weights,) = [v for v in tf.global_variables() if v.op.name == 'a/weights']
    with tf.control_dependencies([training.train_op]):
      training.train_op = weights.assign(weights * INFINITE).op
    with pytest.raises(FloatingPointError, match='infinity in a/weights') as e:
      train(training, tmp_path, [GOOD] * 2, save_steps=1)
  assert prefix in str(e.value)
  assert checkpoint_files.latest(str(tmp_path)) == prefix


# --- Masks that leave nothing to choose --------------------------------------


@pytest.mark.parametrize(
  'method, extreme', combinations.thinned(MASKED, [(0.0, 0.999), (1.0, 0.0)])
)
def test_full_and_nearly_empty_masks_and_layers_of_one_weight(method, extreme):
  drop_fraction, sparsity = extreme
  config = SparsityConfig(
    training_method=method,
    end_sparsity=sparsity,
    maskupdate_frequency=1,
    maskupdate_end_step=-1,
    drop_fraction=drop_fraction,
    pruning_begin_step=0,
    pruning_end_step=3,
    pruning_frequency=1,
  )
  outputs = tf.constant([[1.0], [2.0]])
  for scope, n_units in (('one', 1), ('wide', 40), ('last', 1)):
    outputs = layers.masked_fully_connected(outputs, n_units, scope=scope)
  optimizer = factory.make_optimizer(config, tf.train.MomentumOptimizer(0.05, 0.9))
  train_op = factory.make_train_op(
    optimizer, tf.reduce_mean(tf.square(outputs - 1.0)), tf.train.get_or_create_global_step()
  )
  scaffold = mask_init.make_scaffold(config)
  masks = tf.get_collection('masks')
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    if scaffold.init_fn:
      scaffold.init_fn(session)
    for fill in (None, 0.0, 1.0):
      if fill is not None and config.method.is_dynamic:
        for mask in masks:
          mask.load(np.full(mask.shape.as_list(), fill), session)
      before = [mask.sum() for mask in session.run(masks)]
      for _ in range(6):
        session.run(train_op)
      after = session.run(masks)
      for mask in after:
        assert np.isin(mask, (0.0, 1.0)).all()
      if config.method.is_dynamic or method == 'scratch':
        assert [mask.sum() for mask in after] == before
      for variable in tf.global_variables():
        assert np.isfinite(session.run(variable)).all(), variable.name


# --- Scripts -----------------------------------------------------------------


@pytest.mark.parametrize(
  'script, spoil',
  [
    ('mnist', {'learning_rate': 1e30}),
    pytest.param('cifar', {'l2': 1e30}, marks=pytest.mark.slow),
    pytest.param('imagenet', {'base_learning_rate': 1e30}, marks=pytest.mark.slow),
  ],
)
def test_script_whose_training_diverges(script, spoil, data, servers, tmp_path):
  error = scripts.error_line(
    servers(script).run(scripts.arguments(script, data, tmp_path, 'rigl', **spoil))
  )
  for word in (
    'step ',
    'NaN or infinity',
    checkpoint_files.latest(str(scripts.run_folder(tmp_path))),
  ):
    assert word in error
  for name, value in scripts.final_values(tmp_path).items():
    assert np.isfinite(value).all(), name

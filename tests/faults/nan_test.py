"""NaN and infinity: nothing of such a step is kept, for every method."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import methods
from rigl.model_pruning import dense_layers, layers
from rigl.training import (
  checkpoints,
  factory,
  finite,
  hooks,
  mask_init,
  resuming,
  saving,
)
from rigl.training.config import ON_NAN, SparsityConfig
from tests import combinations, sparse_net
from tests.faults import scripts

COUNTERS = ('global_step', 'last_mask_update_step',
            'model_pruning/last_mask_update_step')
MASKED = [name for name, method in methods.METHODS.items()
          if method.uses_masks]
# SNIP chooses its masks on the first step, which is good in these tests.
GOOD, NAN, INFINITE = 0., float('nan'), float('inf')


pytestmark = pytest.mark.usefixtures('graph')


def config_of(method):
  return SparsityConfig(
      training_method=method, end_sparsity=0.5, maskupdate_frequency=2,
      maskupdate_end_step=-1, pruning_begin_step=0, pruning_end_step=6,
      pruning_frequency=2)


def dense(inputs, n_units, name):
  values = np.random.RandomState(n_units).uniform(
      -0.5, 0.5, [inputs.shape[1], n_units])
  with tf.variable_scope(name):
    return dense_layers.dense_fully_connected(
        inputs, n_units, tf.constant_initializer(values))


class Training:
  """A network with batch norm whose loss or gradient can be spoilt."""

  def __init__(self, method, on_nan, folder='', config=None):
    self.config = config or config_of(method)
    self.spoil_loss = tf.placeholder_with_default(GOOD, [])
    self.spoil_gradient = tf.placeholder_with_default(GOOD, [])
    inputs = tf.constant(
        np.random.RandomState(0).normal(size=[8, 6]).astype(np.float32))
    if self.config.method.uses_masks:
      hidden = layers.masked_fully_connected(inputs, 10, scope='a')
    else:
      hidden = dense(inputs, 10, 'a')
    mean = tf.get_variable('moving_mean', [10], trainable=False,
                           initializer=tf.zeros_initializer())
    # It would be spoilt by a batch that is.
    step = 0.1 * (mean - tf.reduce_mean(hidden, 0)) + self.spoil_loss
    updates = [tf.assign_sub(mean, step).op]
    if self.config.method.uses_masks:
      outputs = layers.masked_fully_connected(hidden, 3, scope='b')
    else:
      outputs = dense(hidden, 3, 'b')
    loss = tf.reduce_mean(tf.square(outputs - 1.)) + self.spoil_loss

    @tf.custom_gradient
    def identity(x):
      return tf.identity(x), lambda g: g * (1. + self.spoil_gradient)

    loss = identity(loss)
    self.global_step = tf.train.get_or_create_global_step()
    self.optimizer = factory.make_optimizer(
        self.config, tf.train.MomentumOptimizer(0.05, 0.9))
    self.hook = finite.NotFiniteHook(on_nan, str(folder))
    self.train_op = factory.make_train_op(
        self.optimizer, loss, self.global_step, not_finite=self.hook,
        update_ops=updates)
    self.loss = loss

  def feed(self, loss=GOOD, gradient=GOOD):
    return {self.spoil_loss: loss, self.spoil_gradient: gradient}


def assert_same(after, before, but=()):
  assert set(after) == set(before)
  for name, value in before.items():
    if name not in but:
      np.testing.assert_array_equal(after[name], value, err_msg=name)


@functools.lru_cache(maxsize=None)
def built(method, on_nan):
  """(Training, session) of a method; the caller initialises the variables."""
  with tf.Graph().as_default():
    training = Training(method, on_nan)
    return (training, sparse_net.quick_session(),
            tf.global_variables_initializer(), tf.global_variables())


@contextlib.contextmanager
def started(method, on_nan):
  """A Training and its session, at the start."""
  training, session, initializer, variables = built(method, on_nan)
  session.run(initializer)
  yield training, session, lambda: dict(zip(
      (v.op.name for v in variables), session.run(variables)))


@pytest.mark.parametrize('method', methods.METHODS)
def test_skipped_step_moves_nothing_but_counters(method):
  """On steps that move masks and on such that do not."""
  with started(method, 'skip') as (training, session, values):
    for n_good, bad in (
        (3, {'loss': NAN}), (1, {'loss': INFINITE}), (1, {'gradient': NAN}),
        (1, {'gradient': INFINITE})):
      for _ in range(n_good):
        session.run(training.train_op)
      before = values()
      session.run(training.train_op, training.feed(**bad))
      after = values()
      assert_same(after, before, COUNTERS)
    session.run(training.train_op)
    # It goes on.
    final = values()
    assert any((final[n] != after[n]).any() for n in final
               if n.rsplit('/', 1)[-1] in ('weights', 'mask'))


@pytest.mark.parametrize('method', methods.METHODS)
def test_counters_of_skipped_steps_are_those_of_good_ones(method):
  """So the schedule and the number of batches taken stay what they were."""
  seen = []
  for bad_steps in ((), (1, 4, 5, 6, 9), range(1, 12)):
    with started(method, 'skip') as (training, session, values):
      trajectory = []
      for step in range(12):
        session.run(training.train_op, training.feed(
            NAN if step in bad_steps else GOOD))
        now = values()
        trajectory.append([now[name] for name in COUNTERS if name in now])
      seen.append(trajectory)
  assert seen[0] == seen[1] == seen[2]


def ancestors(op):
  found, waiting = set(), [op]
  while waiting:
    op = waiting.pop()
    if op not in found:
      found.add(op)
      waiting += [tensor.op for tensor in op.inputs] + op.control_inputs
  return found


@pytest.mark.parametrize('method', methods.METHODS)
def test_variables_are_read_before_a_branch_assigns_them(method):
  """A branch does not wait for what it takes from outside, but for `if`."""
  training, _, _, _ = built(method, 'skip')
  [branch] = {op for op in ancestors(training.train_op) if op.type == 'If'}
  before = ancestors(branch.inputs[0].op)
  handles = set(branch.inputs)
  reads = {op for tensor in branch.inputs for op in ancestors(tensor.op)
           if op.type == 'ReadVariableOp' and op.inputs[0] in handles}
  assert reads
  assert not reads - before


@pytest.mark.parametrize('method', methods.METHODS)
def test_skipping_nothing_is_the_ordinary_training(method):
  finals = []
  for on_nan in ON_NAN:
    with started(method, on_nan) as (training, session, values):
      for _ in range(8):
        session.run(training.train_op)
      finals.append(values())
  assert_same(*finals)


@pytest.mark.parametrize('method', ['set', 'rigl'])
def test_drop_fraction_falls_alike_when_steps_may_be_skipped(method):
  """That of the schedule, whatever becomes of the step."""
  seen = []
  for on_nan, losses in (('stop', [GOOD] * 6), ('skip', [GOOD] * 6),
                         ('skip', [GOOD] * 3 + [NAN, GOOD, GOOD])):
    config = dataclasses.replace(
        config_of(method), drop_fraction_anneal='cosine',
        maskupdate_end_step=9)
    with tf.Graph().as_default(), sparse_net.quick_session() as session:
      step = tf.train.get_or_create_global_step()
      fraction = factory.annealed_drop_fraction(config, step.read_value())
      with tf.control_dependencies([fraction]):
        training = Training(method, on_nan, config=config)
      session.run(tf.global_variables_initializer())
      seen.append([session.run([training.train_op, fraction],
                               training.feed(loss))[1] for loss in losses])
  assert len(set(seen[0])) > 1 and min(seen[0]) > 0.
  assert seen[0] == seen[1] == seen[2]


def test_update_that_cannot_be_left_out_is_named():
  variable = tf.get_variable('moving', [], trainable=False)
  with pytest.raises(ValueError, match='AssignVariableOp'):
    finite.only_if(tf.constant(True), variable.assign(1.).op)


@pytest.mark.parametrize('position', ['active', 'inactive'])
def test_dense_gradient_is_watched_through_that_of_the_weights(position):
  """0 * NaN is NaN: masks cannot hide what connections grow by."""
  weights = layers.masked_fully_connected(
      tf.ones([2, 3]), 2, scope='a')
  (mask,) = tf.get_collection('masks')
  dense = tf.gradients(tf.reduce_sum(weights), tf.get_collection(
      'masked_weights'))[0]
  spoilt = np.zeros([3, 2], np.float32)
  spoilt[0, 0] = NAN
  gradient = mask * (dense + spoilt)
  is_finite = finite.NotFiniteHook('stop', '').watch(
      tf.constant(0.), [(gradient, mask)], tf.constant(True))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    mask.load(np.full([3, 2], float(position == 'active'), np.float32), session)
    assert not session.run(is_finite)


# --- Sessions with hooks -----------------------------------------------------


def train(training, folder, losses, save_steps=2, gradient=False):
  """Trains with the hooks of a script; returns the one of NaN."""
  saver = saving.SaverHook(str(folder), save_steps)
  with tf.train.MonitoredTrainingSession(
      checkpoint_dir=str(folder), save_checkpoint_steps=None,
      save_checkpoint_secs=None, save_summaries_steps=None,
      save_summaries_secs=None, hooks=[
          hooks.ResumableHook(str(folder), may_write=True), training.hook,
          saver
      ]) as session:
    for value in losses:
      session.run(training.train_op, training.feed(
          **{'gradient' if gradient else 'loss': value}))
  return training.hook


@pytest.mark.parametrize('method, kind, bad', [
    pytest.param(method, ('gradient', 'loss')[i % 2],
                 (NAN, INFINITE)[i // 2 % 2],
                 marks=[] if 2 <= i < 6 else pytest.mark.slow)
    for i, method in enumerate(methods.METHODS)])
def test_stop_names_the_step_and_keeps_the_last_checkpoint(
    method, kind, bad, tmp_path):
  """All methods, and both kinds of both, in the quick ones too."""
  training = Training(method, 'stop', tmp_path)
  saver = saving.SaverHook(str(tmp_path), 1)
  with pytest.raises(FloatingPointError) as error:
    with tf.train.SingularMonitoredSession(
        checkpoint_dir=str(tmp_path), hooks=[training.hook, saver]
    ) as session:
      for _ in range(5):
        session.run(training.train_op)
      step = session.raw_session().run(training.global_step)
      prefix = checkpoints.latest(str(tmp_path))
      contents = {path: path.read_bytes()
                  for path in tmp_path.glob('model.ckpt*')}
      session.run(training.train_op, training.feed(**{kind: bad}))
  assert prefix == f'{tmp_path}/model.ckpt-{step}'
  assert f'{prefix}.' in str(error.value)
  assert f'step {step + 1}:' in str(error.value)
  assert '--on_nan=skip' in str(error.value) and '\n' not in str(error.value)
  assert checkpoints.latest(str(tmp_path)) == prefix
  assert contents == {path: path.read_bytes()
                      for path in tmp_path.glob('model.ckpt*')}


def test_skipped_steps_are_counted_and_reported(tmp_path, capsys):
  hook = train(Training('set', 'skip', tmp_path), tmp_path,
               [GOOD, NAN, GOOD, INFINITE, GOOD])
  assert hook.n_skipped == 2
  assert 'Skipped 2 steps' in capsys.readouterr().out
  assert checkpoints.latest_step(str(tmp_path)) == 5


@pytest.mark.parametrize('n_skipped, n_reported', [(9, 9), (10, 10), (13, 10)])
def test_the_first_ten_skipped_steps_are_reported_one_by_one(
    n_skipped, n_reported, tmp_path, caplog):
  train(Training('set', 'skip', tmp_path), tmp_path, [NAN] * n_skipped)
  reports = [text for text in caplog.messages if text.startswith('Skipped')]
  assert len(reports) == n_reported
  for i, text in enumerate(reports, 1):
    assert f'step {i}:' in text and f'({i} skipped so far)' in text


@pytest.mark.parametrize('method', ['rigl', 'snip'])
def test_batches_taken_are_right_after_skipped_steps(method, tmp_path):
  # RigL's last one of each is no mask update, which would be made again.
  for n_steps, losses in ((5, [GOOD, NAN, GOOD, NAN, NAN]), (9, [NAN] * 4)):
    with tf.Graph().as_default():
      training = Training(method, 'skip', tmp_path)
      train(training, tmp_path, losses)
      assert resuming.iterations_done(
          str(tmp_path), training.config) == n_steps


def test_spoilt_weights_end_the_skipping(tmp_path, monkeypatch):
  monkeypatch.setattr(finite, 'MAX_SKIPPED_IN_A_ROW', 3)
  with pytest.raises(FloatingPointError, match='as at the 3 steps before'):
    train(Training('set', 'skip', tmp_path), tmp_path, [GOOD] + [NAN] * 9,
          save_steps=100)
  with tf.Graph().as_default():
    # Not in a row.
    train(Training('set', 'skip', tmp_path), tmp_path,
          [NAN, NAN, GOOD, NAN, NAN, NAN, GOOD, NAN])


def test_nothing_is_said_of_checkpoints_that_are_not_kept(
    tmp_path, monkeypatch):
  monkeypatch.setattr(finite, 'MAX_SKIPPED_IN_A_ROW', 1)
  for on_nan in ON_NAN:
    with tf.Graph().as_default():
      training = Training('set', on_nan)
      with pytest.raises(FloatingPointError, match='NaN or inf') as error:
        with tf.train.SingularMonitoredSession(
            hooks=[training.hook]) as session:
          for _ in range(2):
            session.run(training.train_op, training.feed(NAN))
    assert 'checkpoint' not in str(error.value)
    assert '  ' not in str(error.value)


def test_snip_cannot_choose_masks_by_a_bad_gradient(tmp_path):
  with pytest.raises(FloatingPointError, match='sets the masks'):
    train(Training('snip', 'skip', tmp_path), tmp_path, [NAN])


@pytest.mark.parametrize('on_nan', ON_NAN)
def test_spoilt_weights_are_never_saved(on_nan, tmp_path):
  """However they became so: here by a step, all of whose inputs are finite."""
  training = Training('set', on_nan, tmp_path)
  train(training, tmp_path, [GOOD] * 2)
  prefix = checkpoints.latest(str(tmp_path))
  with tf.Graph().as_default():
    training = Training('set', on_nan, tmp_path)
    (weights,) = [v for v in tf.global_variables()
                  if v.op.name == 'a/weights']
    with tf.control_dependencies([training.train_op]):
      training.train_op = weights.assign(weights * INFINITE).op
    with pytest.raises(FloatingPointError, match='infinity in a/weights') as e:
      train(training, tmp_path, [GOOD] * 2, save_steps=1)
  assert prefix in str(e.value)
  assert checkpoints.latest(str(tmp_path)) == prefix


# --- Masks that leave nothing to choose --------------------------------------


@pytest.mark.parametrize('method, extreme', combinations.thinned(
    MASKED, [(0., 0.999), (1., 0.)]))
def test_full_and_nearly_empty_masks_and_layers_of_one_weight(method, extreme):
  drop_fraction, sparsity = extreme
  config = SparsityConfig(
      training_method=method, end_sparsity=sparsity, maskupdate_frequency=1,
      maskupdate_end_step=-1, drop_fraction=drop_fraction,
      pruning_begin_step=0, pruning_end_step=3, pruning_frequency=1)
  outputs = tf.constant([[1.], [2.]])
  for scope, n_units in (('one', 1), ('wide', 40), ('last', 1)):
    outputs = layers.masked_fully_connected(outputs, n_units, scope=scope)
  optimizer = factory.make_optimizer(
      config, tf.train.MomentumOptimizer(0.05, 0.9))
  train_op = factory.make_train_op(
      optimizer, tf.reduce_mean(tf.square(outputs - 1.)),
      tf.train.get_or_create_global_step())
  scaffold = mask_init.make_scaffold(config)
  masks = tf.get_collection('masks')
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    if scaffold.init_fn:
      scaffold.init_fn(session)
    for fill in (None, 0., 1.):
      if fill is not None and config.method.is_dynamic:
        for mask in masks:
          mask.load(np.full(mask.shape.as_list(), fill), session)
      before = [mask.sum() for mask in session.run(masks)]
      for _ in range(6):
        session.run(train_op)
      after = session.run(masks)
      for mask in after:
        assert np.isin(mask, (0., 1.)).all()
      if config.method.is_dynamic or method == 'scratch':
        assert [mask.sum() for mask in after] == before
      for variable in tf.global_variables():
        assert np.isfinite(session.run(variable)).all(), variable.name


# --- Scripts -----------------------------------------------------------------


@pytest.mark.parametrize('script, spoil', [
    ('mnist', {'learning_rate': 1e30}),
    pytest.param('cifar', {'l2': 1e30}, marks=pytest.mark.slow),
    pytest.param('imagenet', {'base_learning_rate': 1e30},
                 marks=pytest.mark.slow)])
def test_script_whose_training_diverges(
    script, spoil, data, servers, tmp_path):
  """Saves nothing but numbers, whether it stops or goes on."""
  stop, skip = tmp_path / 'stop', tmp_path / 'skip'
  error = scripts.error_line(servers(script).run(scripts.arguments(
      script, data, stop, 'rigl', **spoil)))
  for word in ('step ', 'NaN or infinity', '--on_nan=skip',
               checkpoints.latest(str(scripts.run_folder(stop)))):
    assert word in error
  result = servers(script).run(scripts.arguments(
      script, data, skip, 'rigl', on_nan='skip', **spoil))
  assert result.code == 0, result.stderr
  assert re.search(r'^Skipped \d+ steps', result.stdout, re.MULTILINE)
  assert 'Skipped step 2:' in result.stderr
  for folder in (stop, skip):
    for name, value in scripts.final_values(folder).items():
      assert np.isfinite(value).all(), name

"""Values of new connections that come from initializers."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from rigl import subgraphs
from rigl.compat import tf, tf2
from rigl.model_pruning import initializers, layers, pruning
from tests import sparse_net

HYPER = {'begin_step': 0, 'end_step': -1, 'frequency': 1, 'drop_fraction': 0.5}
INITIAL_DIST = {**HYPER, 'grow_init': 'initial_dist'}

pytestmark = pytest.mark.usefixtures('graph')


def _layer(initializer=None):
  return layers.masked_fully_connected(
    tf.ones([2, 20]), 20, scope='layer', activation_fn=None, weights_initializer=initializer
  )


def _minimize(method, inner, hyper, outputs):
  return sparse_net.METHODS[method](inner, **hyper).minimize(
    tf.reduce_sum(outputs * tf.range(20.0)), tf.train.get_or_create_global_step()
  )


def _train(method, inner, hyper, initializer=None):
  return _minimize(method, inner, hyper, _layer(initializer))


@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
def test_a_step_without_update_evaluates_no_initializer(method):
  """All that a branch takes from outside is evaluated at each step."""
  train_op = _train(method, tf.train.AdagradOptimizer(0.1), INITIAL_DIST)
  needed = [op.name for op in subgraphs.ancestors(train_op.outputs[0])]
  assert 'layer/weights' in needed
  assert not [name for name in needed if '/Initializer/' in name]


def _new_values(train_op):
  """(values of new connections, all initial ones) after one step."""
  (mask,), (weights,) = pruning.get_masks(), pruning.get_weights()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    mask.load(np.random.RandomState(0).rand(20, 20) < 0.5, session)
    old, initial = session.run([mask, weights])
    session.run(train_op)
    new, after = session.run([mask, weights])
  fresh = (new > 0) & (old == 0)
  assert fresh.any()
  return after[fresh], initial


@pytest.mark.parametrize(
  'initializer',
  [
    None,
    tf.constant_initializer(np.arange(400.0)),
    initializers.variance_scaling(2.0),
    tf.ones_initializer(),
    lambda shape, **_: tf2.function(lambda: tf.random.stateless_normal(shape, [1, 2]))(),
  ],
  ids=['default', 'constant', 'scaled', 'ones', 'function'],
)
def test_new_values_are_initial_ones(initializer):
  train_op = _train('rigl', tf.train.MomentumOptimizer(0.1, 0.9), INITIAL_DIST, initializer)
  values, initial = _new_values(train_op)
  assert np.isin(values, initial).all()


def test_new_values_are_those_of_an_initial_checkpoint(tmp_path):
  given = np.random.RandomState(3).randn(20, 20).astype(np.float32)
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    variable = tf.get_variable('layer/weights', initializer=given)
    session.run(variable.initializer)
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model'))
  outputs = _layer()
  tf.train.init_from_checkpoint(prefix, {'layer/weights': pruning.get_weights()[0]})
  values, initial = _new_values(
    _minimize('rigl', tf.train.GradientDescentOptimizer(0.1), INITIAL_DIST, outputs)
  )
  np.testing.assert_array_equal(initial, given)
  assert np.isin(values, given).all()


@pytest.mark.parametrize(
  'initializer, op_type',
  [
    (tf.glorot_uniform_initializer(), 'RandomUniform'),
    (tf.random_normal_initializer(), 'RandomStandardNormal'),
    (tf.truncated_normal_initializer(seed=1), 'TruncatedNormal'),
  ],
)
def test_initializers_that_draw_anew_are_an_error(initializer, op_type):
  """A resumed run would grow other values, and none are initial ones."""
  inner = tf.train.MomentumOptimizer(0.1, 0.9)
  with pytest.raises(
    ValueError, match=(f'layer/weights:0.*{op_type}.*rigl.model_pruning.initializers')
  ):
    _train('rigl', inner, INITIAL_DIST, initializer)


def test_only_initial_dist_asks_for_repeatable_initializers():
  _train('rigl', tf.train.MomentumOptimizer(0.1, 0.9), HYPER, tf.glorot_uniform_initializer())


class _WithNorms(tf.train.MomentumOptimizer):
  """Keeps a scalar of each variable, too."""

  def _create_slots(self, var_list):
    super()._create_slots(var_list)
    for variable in var_list:
      self._get_or_make_slot(variable, tf.constant(3.0), 'norm', self._name)

  def get_slot_names(self):
    return [*super().get_slot_names(), 'norm']


def test_slots_of_another_shape_are_left_alone(caplog):
  inner = _WithNorms(0.1, 0.9)
  with caplog.at_level(logging.WARNING, 'tensorflow'):
    train_op = _train('rigl', inner, HYPER)
  _new_values(train_op)
  assert 'layer/weights/Momentum_1' in caplog.text
  assert 'not reset' in caplog.text


class _StartsAtRandom(tf.train.MomentumOptimizer):
  """Whose slot has a stateful initializer."""

  def _create_slots(self, var_list):
    for variable in var_list:
      self._get_or_make_slot_with_initializer(
        variable,
        tf.random_uniform_initializer(5.0, 6.0),
        variable.shape,
        tf.float32,
        'momentum',
        self._name,
      )


def test_slots_may_start_at_random():
  train_op = _train('rigl', _StartsAtRandom(0.1, 0.9), HYPER)
  values, _ = _new_values(train_op)
  assert not values.any()


def test_rigl_knows_values_that_need_no_gradient_before_there_is_one():
  layers.masked_fully_connected(tf.ones([2, 4]), 3, scope='layer')
  optimizer = sparse_net.METHODS['rigl'](tf.train.GradientDescentOptimizer(0.1), **HYPER)
  (weights,) = optimizer.get_weights()
  for method in ('zeros', 'initial_dist', 'random_normal', 'random_uniform'):
    assert optimizer.get_grow_tensor(weights, method).shape == weights.shape
  with pytest.raises(ValueError, match='No dense gradient of layer/weights:0'):
    optimizer.get_grow_tensor(weights, 'grad_scale')


@pytest.mark.parametrize(
  'anneal, end_step, warns',
  [
    ('cosine', -1, True),
    ('exponential_3', -1, True),
    ('constant', -1, False),
    ('cosine', 10, False),
  ],
)
@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
def test_annealing_without_an_end_is_warned_of(method, anneal, end_step, warns, caplog):
  with caplog.at_level(logging.WARNING, 'tensorflow'):
    sparse_net.METHODS[method](
      tf.train.GradientDescentOptimizer(0.1),
      **{**HYPER, 'end_step': end_step, 'drop_fraction_anneal': anneal},
    )
  assert (f'drop_fraction_anneal {anneal} falls' in caplog.text) == warns

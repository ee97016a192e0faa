"""Replicas hold the same masks, those that one device would have.

All replicas share each batch. Growth must rank the gradient of the whole batch,
and every draw must be the same on all replicas, or their masks part.
"""

from __future__ import annotations

import contextlib
import functools
import itertools

import numpy as np
import pytest

from rigl import replicas
from rigl.compat import tf, tf2
from rigl.core.methods import METHODS
from rigl.model_pruning import layers, mask_collections
from rigl.optimizer_wrapper import OptimizerWrapper
from rigl.training import distribution, factory, session_loop, specs
from rigl.training.config import SparsityConfig
from tests import combinations, quick_sessions, sparse_net
from tests.replica_net import BATCH, N_IN, N_OUT, ReplicaNet

N_STEPS = 8
SCHEDULE = {'begin_step': 0, 'end_step': 20, 'frequency': 3, 'drop_fraction': 0.4}


@functools.lru_cache(maxsize=None)
def _train(method, n_replicas, inner='momentum', **changes):
  """The states after each step, {variable name: its value on each replica}."""
  rng = np.random.RandomState(0)
  states = []
  with ReplicaNet(
    method, n_replicas, inner, {**sparse_net.hyper_of(method, SCHEDULE), **changes}
  ) as net:
    for _ in range(N_STEPS):
      net.step(rng.randn(BATCH, N_IN), rng.randn(BATCH, N_OUT))
      states.append(net.state())
  return states


@pytest.mark.parametrize(
  'method, inner', combinations.thinned(sparse_net.METHODS, ['momentum', 'adam'])
)
def test_two_replicas_train_as_one(method, inner):
  ones, twos = _train(method, 1, inner), _train(method, 2, inner)
  moved = 0
  for k, (one, two) in enumerate(zip(ones, twos)):
    assert {n for n in two if n.endswith('/mask')} == {n for n in one if n.endswith('/mask')}
    for name, copies in two.items():
      if len(copies) == 2:
        np.testing.assert_array_equal(*copies, err_msg=f'{name}, step {k}')
      if name.endswith('/mask'):
        np.testing.assert_array_equal(copies[0], one[name][0])
        moved += k > 0 and not np.array_equal(one[name][0], ones[k - 1][name][0])
      elif name.endswith('/weights'):
        np.testing.assert_allclose(copies[0], one[name][0], rtol=1e-9)
    np.testing.assert_array_equal(two['global_step'][0], one['global_step'][0])
  assert (moved > 0) == (method not in ('static', 'snip'))


@pytest.mark.parametrize('method', ['set', 'rigl'])
def test_new_values_are_the_same_on_all_replicas(method):
  """Each device computes the initial values anew."""
  one = _train(method, 1, grow_init='initial_dist')[-1]
  two = _train(method, 2, grow_init='initial_dist')[-1]
  zeros = _train(method, 1)[-1]
  for name in ('first/weights', 'second/weights'):
    np.testing.assert_array_equal(*two[name])
    np.testing.assert_allclose(two[name][0], one[name][0], rtol=1e-9)
    assert (one[name][0] != zeros[name][0]).any()


@pytest.mark.usefixtures('graph')
def test_a_step_without_any_gradient_is_an_error():
  strategy = tf2.distribute.MirroredStrategy(['/cpu:0', '/cpu:1'])
  with strategy.scope():
    variable = tf.get_variable('variable', [2])
    optimizer = _Plain(tf.train.GradientDescentOptimizer(0.1))
    with pytest.raises(ValueError, match='No variable has a gradient'):
      strategy.extended.call_for_each_replica(lambda: optimizer.apply_gradients([(None, variable)]))


class _Plain(OptimizerWrapper):
  """Trains like the optimizer that it wraps."""

  def __init__(self, inner):
    super().__init__(inner, use_locking=False, name='Plain')


@pytest.mark.parametrize('method', ['set', 'dnw'])
@pytest.mark.parametrize('n_replicas', [1, 2])
def test_wrappers_may_be_wrapped(method, n_replicas, monkeypatch):
  monkeypatch.setitem(
    sparse_net.INNER_OPTIMIZERS, 'plain', lambda: _Plain(tf.train.MomentumOptimizer(0.1, 0.9))
  )
  plain = _train(method, n_replicas, 'plain')[-1]
  direct = _train(method, n_replicas, 'momentum')[-1]
  assert set(plain) == set(direct)
  for name, copies in direct.items():
    for copy, other in zip(copies, plain[name]):
      np.testing.assert_array_equal(other, copy, err_msg=name)


# The loss of a training is the mean over the images of a replica.


@functools.lru_cache(maxsize=None)
def _train_by_factory(n_replicas, method):
  """The weights after three steps with the train op of the scripts."""
  rng = np.random.RandomState(0)
  images = rng.randn(8, 6).astype('f')
  config = SparsityConfig(training_method=method, maskupdate_frequency=2)

  def step(strategy):
    context = tf.distribute.get_replica_context()
    n = len(images) // n_replicas
    begin = n * (context.replica_id_in_sync_group if strategy else 0)
    outputs = layers.masked_fully_connected(
      tf.constant(images)[begin : begin + n], 4, scope='layer'
    )
    loss = tf.reduce_mean(tf.square(outputs - 1.0))
    return factory.make_train_op(
      factory.make_optimizer(config, tf.train.GradientDescentOptimizer(0.5)),
      loss,
      tf.train.get_global_step(),
    )

  with tf.Graph().as_default():
    strategy = distribution.make_strategy(n_replicas)
    with strategy.scope() if strategy else contextlib.nullcontext():
      tf.train.get_or_create_global_step()
      train_op = (
        step(None)
        if strategy is None
        else strategy.group(strategy.extended.call_for_each_replica(step, args=(strategy,)))
      )
      with tf.Session(
        config=quick_sessions.unoptimized(distribution.session_config(n_replicas))
      ) as session:
        session.run(tf.global_variables_initializer())
        for _ in range(3):
          session.run(train_op)
        (weights,) = [v for v in tf.global_variables() if v.op.name == 'layer/weights']
        return session.run(weights)


# Of each kind of gradient: applied alone, dense beside it, dense and applied.
@pytest.mark.parametrize(
  'method, n_replicas',
  combinations.quick(
    itertools.product(METHODS, [2, 4]), ('set', 2), ('rigl', 4), ('snip', 2), ('dnw', 4)
  ),
)
def test_gradients_are_those_of_the_mean_over_the_batch(method, n_replicas):
  """And not the sum of the means, which TensorFlow would take."""
  np.testing.assert_allclose(
    _train_by_factory(n_replicas, method), _train_by_factory(1, method), rtol=1e-5, atol=1e-7
  )


# --- The registry on replicas -------------------------------------------------


@pytest.mark.usefixtures('graph')
@pytest.mark.parametrize('owns_mask', [True, False])
def test_each_replica_has_its_own_products(owns_mask):
  strategy = tf2.distribute.MirroredStrategy(['/cpu:0', '/cpu:1'])
  found = []

  def build():
    with tf.variable_scope('layer'):
      weights = tf.get_variable('weights', [2, 3])
      mask = tf.get_variable('mask', [2, 3], trainable=False) if owns_mask else None
    masked = mask_collections.apply_mask(weights, mask)
    assert mask_collections.apply_mask(weights, mask) is masked
    (layer,) = mask_collections.masked_layers()
    assert layer.masked_weights is masked
    assert tf.gradients(masked, layer.dense_gradient_source) != [None]
    found.append(layer)

  with strategy.scope():
    strategy.extended.call_for_each_replica(build)
    first, second = found
    assert first.masked_weights is not second.masked_weights
    assert first.name == second.name == 'layer'
    for part in ('weights', 'mask', 'threshold'):
      assert getattr(first, part) is getattr(second, part)
    assert mask_collections.masked_layers() == [first]
    for name in ('masks', 'masked_weights', 'thresholds', 'kernel'):
      assert len(tf.get_collection(name)) == 1


# --- What the session loop computes at each step ------------------------------


@pytest.mark.filterwarnings('ignore:To make it possible to preserve tf.data')
@pytest.mark.parametrize('n_replicas, n_computed', [(1, 0), (2, 5)])
def test_replicas_compute_their_means_at_each_step(n_replicas, n_computed, tmp_path):
  """Even if they are not fetched: otherwise other replicas would wait."""
  computed = []

  def count():
    computed.append(1)
    return np.float32(0.0)

  def model_fn(features, labels, mode):
    del labels, mode
    loss = tf.reduce_mean(features)
    step = tf.train.get_or_create_global_step()
    value = tf.numpy_function(count, [], tf.float32)
    value.set_shape([])
    mean = replicas.mean(value)
    train_op = replicas.on_each_device(lambda: step.assign_add(1).op)
    return specs.TrainSpec(loss, train_op, replica_means=[mean])

  job = specs.Job(model_fn, str(tmp_path), seed=0, save_steps=None, keep_checkpoint_max=0)
  session_loop.SessionLoop(job, n_replicas).train(
    lambda: tf.data.Dataset.from_tensors((tf.ones([2, 1]), tf.zeros([2]))).repeat(), 5, [], []
  )
  assert len(computed) == n_replicas * n_computed

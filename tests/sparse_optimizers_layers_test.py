"""The layers on which the optimizers act, and their dense gradients."""

from __future__ import annotations

import numpy as np
import pytest

from rigl import subgraphs
from rigl.compat import tf
from rigl.model_pruning import layers, pruning
from tests import combinations, sparse_net
from tests.replica_net import BATCH, N_IN, N_OUT, ReplicaNet

EVERY_STEP = {'begin_step': 0, 'end_step': -1, 'frequency': 1, 'drop_fraction': 0.5}

pytestmark = pytest.mark.usefixtures('graph')


def _wrap(method, inner=None, **changes):
  return sparse_net.METHODS[method](
    inner or tf.train.MomentumOptimizer(0.1, 0.9),
    **{**sparse_net.hyper_of(method, EVERY_STEP), **changes},
  )


def _dense(inputs, scope, n_out=6, **arguments):
  return layers.masked_fully_connected(inputs, n_out, scope=scope, activation_fn=None, **arguments)


def _global_step():
  return tf.train.get_or_create_global_step()


# --- Layers that are used more than once -------------------------------------


def _shared_loss(gradients):
  """A layer on two inputs; the gradients sum over both uses."""
  first = _dense(tf.constant([[1.0, 2.0]]), 'shared', 3)
  second = _dense(tf.constant([[3.0, 0.0]]), 'shared', 3, reuse=True)
  return tf.reduce_sum(first * gradients[0]) + tf.reduce_sum(second * gradients[1])


GRADIENTS = np.asarray([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], np.float32)
SUM = np.asarray([[1.0], [2.0]]) * GRADIENTS[0] + (np.asarray([[3.0], [0.0]]) * GRADIENTS[1])


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_the_dense_gradient_is_that_of_all_uses(method):
  optimizer = _wrap(method)
  [(gradient, _)] = optimizer.compute_dense_gradients(_shared_loss(GRADIENTS))[1]
  (mask,) = optimizer.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    mask.load([[1, 0, 1], [0, 1, 0]], session)
    np.testing.assert_allclose(session.run(gradient), SUM, rtol=1e-6)


def test_dnw_trains_a_shared_layer_with_all_of_its_gradient():
  optimizer = _wrap('dnw', tf.train.GradientDescentOptimizer(0.1))
  train_op = optimizer.minimize(_shared_loss(GRADIENTS), _global_step())
  (weights,) = optimizer.get_weights()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    before = session.run(weights)
    session.run(train_op)
    np.testing.assert_allclose(session.run(weights), before - 0.1 * SUM, rtol=1e-5, atol=1e-6)


def test_rigl_grows_a_shared_layer_where_all_of_its_gradient_is_largest():
  """The first use alone would choose another one."""
  train_op = _wrap('rigl').minimize(_shared_loss(GRADIENTS), _global_step())
  (mask,) = pruning.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    mask.load([[1, 0, 0], [1, 0, 0]], session)
    session.run(train_op)
    after = session.run(mask)
  assert np.abs(SUM[:, 1:]).argmax() == 0
  assert np.abs(np.outer([1, 2], GRADIENTS[0])[:, 1:]).argmax() != 0
  assert after[0, 1] == 1.0


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_the_network_for_testing_may_be_built_first(method):
  _dense(tf.zeros([5, 4]), 'layer')
  outputs = _dense(tf.ones([2, 4]), 'layer', reuse=True)
  train_op = _wrap(method).minimize(tf.reduce_sum(outputs), _global_step())
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    session.run(train_op)


def test_embeddings_have_dense_gradients_of_rows():
  """Two look-ups of row 2 count twice, and rows never looked up not at all."""
  values = np.arange(1.0, 9.0).reshape(4, 2).astype(np.float32)
  *_, masked = sparse_net.add_layer('table', values)
  looked_up = tf.nn.embedding_lookup(masked, [1, 2, 2])
  for method in sparse_net.METHODS:
    [(gradient, _)] = _wrap(method).compute_dense_gradients(tf.reduce_sum(looked_up))[1]
    with sparse_net.quick_session() as session:
      np.testing.assert_array_equal(
        session.run(gradient), [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]
      )


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_embeddings_are_trained(method):
  values = np.random.RandomState(0).randn(8, 4).astype(np.float32)
  *_, masked = sparse_net.add_layer('table', values, np.arange(32).reshape(8, 4) % 2)
  loss = tf.reduce_sum(tf.square(tf.nn.embedding_lookup(masked, [1, 2, 2])))
  train_op = _wrap(method).minimize(loss, _global_step())
  (mask,) = pruning.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(3):
      session.run(train_op)
    n_ones = session.run(mask).sum()
  assert n_ones == (16 if method in sparse_net.DYNAMIC_METHODS else 13)


# --- Sums over the replicas of a TPU -----------------------------------------


def _n_sums(operations):
  return sum(op.type == 'CrossReplicaSum' for op in operations)


def _pairs_on_a_tpu(method):
  """The optimizer of a step on two replicas and the pairs it applies."""
  results = []

  def step(inputs):
    outputs = _dense(_dense(inputs, 'first'), 'second')
    optimizer = _wrap(
      method, tf.tpu.CrossShardOptimizer(tf.train.GradientDescentOptimizer(0.1)), use_tpu=True
    )
    loss = tf.reduce_sum(outputs)
    pairs = optimizer.compute_gradients(loss)
    results.append((optimizer, pairs))
    with tf.control_dependencies([optimizer.apply_gradients(pairs, _global_step())]):
      return tf.identity(loss)

  with tf.variable_scope('', use_resource=True):
    tf.tpu.replicate(step, [[tf.ones([2, 6])]] * 2)
  return results[0]


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_each_dense_gradient_is_summed_over_a_tpu_once(method):
  optimizer, _ = _pairs_on_a_tpu(method)
  assert len(optimizer.get_weights()) == 2
  for weights in optimizer.get_weights():
    gradient = optimizer.dense_gradient(weights)
    assert _n_sums(gradient.consumers()) == 0
    assert _n_sums(subgraphs.ancestors(gradient)) == 1


@pytest.mark.parametrize('method, n_sums', [('dnw', 4), ('snip', 6)])
def test_gradients_are_summed_over_a_tpu_when_they_are_applied(method, n_sums):
  """Of two layers with biases; those that SNIP ranks once more for that."""
  _, pairs = _pairs_on_a_tpu(method)
  assert len(pairs) == 4
  for gradient, _ in pairs:
    assert _n_sums(subgraphs.ancestors(gradient)) == 0
  graph = tf.get_default_graph()
  functions = graph.as_graph_def().library.function
  assert (
    _n_sums(graph.get_operations())
    + sum(node.op == 'CrossReplicaSum' for function in functions for node in function.node_def)
    == n_sums
  )


# --- Layers that are not trained ---------------------------------------------


@pytest.mark.parametrize(
  'method, how', combinations.thinned(sparse_net.METHODS, ['var_list', 'trainable'])
)
def test_layers_that_are_not_trained_stay_as_they_are(method, how):
  hidden = _dense(tf.ones([2, 6]), 'frozen', trainable=how != 'trainable')
  outputs = _dense(hidden, 'trained')
  loss = tf.reduce_sum(tf.square(outputs - [1.0, -2.0, 3.0, -4.0, 5.0, -6.0]))
  optimizer = _wrap(method)
  var_list = None
  if how == 'var_list':
    var_list = [v for v in tf.trainable_variables() if v.name.startswith('trained/')]
  train_op = optimizer.minimize(loss, _global_step(), var_list=var_list)
  masks, weights = optimizer.get_masks(), optimizer.get_weights()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    rng = np.random.RandomState(0)
    for mask in masks:
      mask.load(rng.rand(6, 6) < 0.5, session)
    before = session.run([masks, weights])
    for _ in range(2):
      session.run(train_op)
    after = session.run([masks, weights])
  for part_before, part_after in zip(before, after):
    np.testing.assert_array_equal(part_before[0], part_after[0])
  changed = [(b[1] != a[1]).any() for b, a in zip(before, after)]
  assert changed == [method != 'static', True]


@pytest.mark.parametrize(
  'method, n_replicas', combinations.thinned(['set', 'rigl', 'momentum', 'dnw'], [1, 2])
)
def test_nor_do_they_move_on_replicas(method, n_replicas, monkeypatch):
  build = layers.masked_fully_connected
  monkeypatch.setattr(
    layers,
    'masked_fully_connected',
    lambda *args, scope, **kwargs: build(*args, scope=scope, trainable=scope == 'second', **kwargs),
  )
  rng = np.random.RandomState(0)
  with ReplicaNet(method, n_replicas, 'momentum', sparse_net.hyper_of(method, EVERY_STEP)) as net:
    before = net.state()
    for _ in range(3):
      net.step(rng.randn(BATCH, N_IN), rng.randn(BATCH, N_OUT))
    after = net.state()
  for name, copies in before.items():
    for one, other in zip(copies, after[name]):
      if name.startswith('first/'):
        np.testing.assert_array_equal(one, other, err_msg=name)
  assert (before['second/mask'][0] != after['second/mask'][0]).any()


def test_a_loss_need_not_depend_on_layers_that_are_not_trained():
  outputs = _dense(tf.ones([2, 4]), 'used')
  _dense(tf.ones([2, 4]), 'unused')
  var_list = [v for v in tf.trainable_variables() if v.name.startswith('used')]
  for method in sparse_net.WITH_DENSE_GRADIENT:
    optimizer = _wrap(method)
    optimizer.compute_gradients(tf.reduce_sum(outputs), var_list)
    with pytest.raises(ValueError, match='unused/weights:0'):
      optimizer.dense_gradient(optimizer.get_weights()[1])


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_a_network_without_masked_layers_is_an_error(method):
  weights = tf.get_variable('weights', [3])
  with pytest.raises(ValueError, match='no masked layers.*pruning.layers'):
    _wrap(method).minimize(tf.reduce_sum(weights), _global_step())


# --- Masks that are moved apart from training --------------------------------


def _masks_before_and_after(op):
  masks = pruning.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    rng = np.random.RandomState(0)
    for mask in masks:
      mask.load(rng.rand(*mask.shape) < 0.5, session)
    before = session.run(masks)
    session.run(op)
    return before, session.run(masks)


@pytest.mark.parametrize('has_slots', [True, False])
def test_masks_of_all_layers_may_be_moved_without_a_step(has_slots):
  """Weights that an optimizer does not train have no slots to reset."""
  hidden = _dense(tf.ones([2, 6]), 'first')
  loss = tf.reduce_sum(_dense(hidden, 'second'))
  inner = tf.train.MomentumOptimizer(0.1, 0.9)
  inner.minimize(
    loss,
    var_list=[v for v in tf.trainable_variables() if has_slots or v.op.name.endswith('biases')],
  )
  optimizer = _wrap('set', inner)
  slots = [optimizer.get_slot(weights, 'momentum') for weights in optimizer.get_weights()]
  assert [slot is not None for slot in slots] == [has_slots] * 2
  before, after = _masks_before_and_after(optimizer.cond_mask_update_op(_global_step(), tf.no_op))
  assert len(before) == 2
  for old, new in zip(before, after):
    assert (old != new).any() and old.sum() == new.sum()


# --- Arguments and layers of other kinds -------------------------------------


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_gate_gradients_may_be_positional(method):
  loss = tf.reduce_sum(_dense(tf.ones([2, 4]), 'layer'))
  optimizer = _wrap(method)
  assert len(optimizer.compute_gradients(loss, None, tf.train.Optimizer.GATE_OP)) == 2


def test_snfs_of_a_layer_without_a_scope():
  *_, masked = sparse_net.add_layer('', np.ones((3, 2), np.float32))
  train_op = _wrap('momentum').minimize(tf.reduce_sum(masked), _global_step())
  assert 'dense_gradient_ema' in {v.op.name for v in tf.global_variables()}
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    session.run(train_op)

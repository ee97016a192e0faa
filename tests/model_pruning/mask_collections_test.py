"""Tests of rigl.model_pruning.mask_collections."""

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import mask_collections
from tests import sparse_net

GETTERS = {
  'masks': mask_collections.get_masks,
  'masked_weights': mask_collections.get_masked_weights,
  'thresholds': mask_collections.get_thresholds,
  'kernel': mask_collections.get_weights,
}

pytestmark = pytest.mark.usefixtures('graph')


def _layer(scope, shape=(2, 3), dtype=tf.float32, mask_dtype=None, reuse=None):
  return sparse_net.add_layer(
    scope,
    np.ones(shape, dtype.as_numpy_dtype),
    mask_dtype=mask_dtype and mask_dtype.as_numpy_dtype,
    reuse=reuse,
  )


def test_nothing_is_registered_in_a_new_graph():
  assert all(getter() == [] for getter in GETTERS.values())
  assert mask_collections.masked_layers() == []
  assert mask_collections.get_weight_sparsity() == []


def test_getters_return_what_was_registered_in_order():
  layers = [_layer(scope) for scope in ('b', 'a', 'net/c')]
  weights, masks, thresholds, masked = zip(*layers)
  assert mask_collections.get_weights() == list(weights)
  assert mask_collections.get_masks() == list(masks)
  assert mask_collections.get_thresholds() == list(thresholds)
  assert mask_collections.get_masked_weights() == list(masked)


def test_collections_have_the_names_users_know():
  _layer('a')
  for name, getter in GETTERS.items():
    assert len(getter()) == 1
    assert all(x is y for x, y in zip(tf.get_collection(name), getter()))


def test_names_of_masked_weights():
  *_, plain = _layer('a')
  with tf.name_scope('train'):
    *_, scoped = _layer('net/b')
  assert plain.op.name == 'a/weights/masked_weight'
  assert scoped.op.name == 'net/b/weights/masked_weight'


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16, tf.float64])
@pytest.mark.parametrize('mask_dtype', [tf.float32, tf.bfloat16, tf.int32])
def test_masked_weights_are_the_product_in_the_weights_type(dtype, mask_dtype):
  weights, mask, _, masked = _layer('a', dtype=dtype, mask_dtype=mask_dtype)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    mask.load([[1, 0, 1], [0, 0, 1]], session)
    weights.load([[1.0, 2.0, -3.0], [4.0, 5.0, -6.0]], session)
    got = session.run(masked)
  assert got.dtype == dtype.as_numpy_dtype
  np.testing.assert_array_equal(got.astype(float), [[1.0, 0.0, -3.0], [0.0, 0.0, -6.0]])


def test_layers_hold_what_belongs_together():
  made = [_layer(scope) for scope in ('b', 'a', 'a/b', 'weights')]
  layers = mask_collections.masked_layers()
  assert [layer.name for layer in layers] == ['b', 'a', 'a/b', 'weights']
  for layer, parts in zip(layers, made):
    assert (layer.weights, layer.mask, layer.threshold, layer.masked_weights) == parts
    assert layer.dense_gradient_source is layer.masked_weights


def test_layers_are_not_paired_by_the_collections():
  """Programs of 2020 may sort or double what they find there."""
  made = [_layer(scope) for scope in ('a', 'b', 'c')]
  tf.get_collection_ref('masks').reverse()
  tf.get_collection_ref('kernel').append(tf.get_collection_ref('kernel').pop(0))
  tf.get_collection_ref('masked_weights').clear()
  tf.add_to_collection('masks', made[1][1])
  for layer, (weights, mask, *_, masked) in zip(mask_collections.masked_layers(), made):
    assert layer.weights is weights
    assert layer.mask is mask
    assert layer.masked_weights is masked


def test_names_are_no_matter_when_layers_are_paired():
  """A custom layer may have its mask in any scope."""
  with tf.variable_scope('net'):
    weights = tf.get_variable('kernel', [2, 3])
  connections = tf.get_variable('connections', [2, 3], trainable=False)
  masked = mask_collections.apply_mask(weights, connections)
  (layer,) = mask_collections.masked_layers()
  assert layer.weights is weights and layer.mask is connections
  assert layer.name == 'net' and layer.masked_weights is masked
  assert layer.threshold.op.name == 'net/threshold'


def test_reuse_registers_nothing_twice():
  """A layer that is reused reuses its masked weights."""
  first = [_layer(scope) for scope in ('a', 'b')]
  second = [_layer(scope, reuse=True) for scope in ('a', 'b')]
  assert all(len(getter()) == 2 for getter in GETTERS.values())
  for one, two in zip(first, second):
    for part, again in zip(one, two):
      assert part is again


def test_reuse_in_a_loop_uses_what_was_made_before_it():
  *_, masked = _layer('a')
  total = tf.while_loop(
    lambda i, _: i < 3, lambda i, y: (i + 1, y + _layer('a', reuse=True)[3]), (0, tf.zeros([2, 3]))
  )[1]
  (gradient,) = tf.gradients(tf.reduce_sum(total), masked)
  assert mask_collections.get_masked_weights() == [masked]
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    np.testing.assert_array_equal(session.run(gradient), np.full([2, 3], 3.0))


def test_a_mask_that_was_not_registered_is_an_error():
  """As of a layer that fills the collections itself; no method would see it."""
  _layer('a')
  with tf.variable_scope('lonely'):
    tf.add_to_collection('masks', tf.get_variable('mask', [2]))
  with pytest.raises(ValueError, match='lonely/mask:0.*apply_mask'):
    mask_collections.masked_layers()


def test_a_layer_without_a_scope():
  """As a program has it that makes its only layer at the root."""
  weights, mask, _, masked = _layer('')
  (layer,) = mask_collections.masked_layers()
  assert layer.name == ''
  assert layer.weights is weights and layer.mask is mask
  assert layer.masked_weights is masked


def test_graphs_do_not_share_a_registry():
  _layer('a')
  with tf.Graph().as_default():
    assert mask_collections.get_masks() == []
    _layer('b')
    assert len(mask_collections.masked_layers()) == 1
  assert mask_collections.get_masks()[0].op.name == 'a/mask'


def test_weight_sparsity_by_hand():
  _, first, *_ = _layer('a', (2, 5))
  _, second, *_ = _layer('b', (3,), tf.bfloat16)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    first.load([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], session)
    sparsities = session.run(mask_collections.get_weight_sparsity())
    second.load([0, 0, 0], session)
    np.testing.assert_allclose(sparsities, [0.8, 0.0], rtol=1e-6)
    np.testing.assert_allclose(
      session.run(mask_collections.get_weight_sparsity()), [0.8, 1.0], rtol=1e-6
    )


# --- A mask for any variable -------------------------------------------------


def test_weights_alone_get_a_mask_beside_them():
  for _ in range(2):
    with tf.variable_scope('cell', reuse=tf.AUTO_REUSE):
      kernel = tf.get_variable('kernel', [2, 3], tf.float64)
    masked = mask_collections.apply_mask(kernel)
  assert [v.op.name for v in tf.global_variables()] == [
    'cell/kernel',
    'cell/mask',
    'cell/threshold',
  ]
  (layer,) = mask_collections.masked_layers()
  assert layer.weights is kernel
  assert layer.masked_weights is masked
  assert [v.op.name for v in tf.trainable_variables()] == ['cell/kernel']
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    mask = session.run(layer.mask)
    assert mask.dtype == np.float64
    assert mask.shape == (2, 3) and (mask == 1).all()
    layer.mask.load(np.eye(2, 3), session)
    np.testing.assert_array_equal(session.run(masked), np.eye(2, 3) * session.run(kernel))


def test_a_partitioned_variable_cannot_have_a_mask():
  with tf.variable_scope('parts', partitioner=tf.fixed_size_partitioner(2)):
    parts = tf.get_variable('kernel', [4, 3])
  with pytest.raises(ValueError, match='ordinary variables.*parts'):
    mask_collections.apply_mask(parts)


def test_a_second_kernel_of_a_scope_is_refused():
  with tf.variable_scope('cell'):
    mask_collections.apply_mask(tf.get_variable('kernel', [2, 3]))
    with pytest.raises(ValueError, match="cell/other.*cell/kernel.*'cell'"):
      mask_collections.apply_mask(tf.get_variable('other', [2, 3]))


@pytest.mark.parametrize('used_before', [False, True])
def test_weights_have_one_mask(used_before):
  weights, *_ = _layer('a')
  mask = _layer('b')[1] if used_before else tf.get_variable('other', [2, 3])
  with pytest.raises(ValueError, match=f'a/weights:0.*a/mask:0.*{mask.name}'):
    mask_collections.apply_mask(weights, mask)


def test_a_mask_is_that_of_one_layer():
  _, mask, *_ = _layer('a')
  with tf.variable_scope('b'):
    weights = tf.get_variable('weights', [2, 3])
  with pytest.raises(ValueError, match='b/weights:0.*a/weights:0.*a/mask:0'):
    mask_collections.apply_mask(weights, mask)
  assert len(mask_collections.masked_layers()) == 1


def test_saved_graphs_have_the_collections_of_2020(tmp_path):
  _layer('a')
  path = str(tmp_path / 'graph.meta')
  tf.train.export_meta_graph(path)
  with tf.Graph().as_default():
    tf.train.import_meta_graph(path)
    for name, leaf in (
      ('masks', 'mask:0'),
      ('kernel', 'weights:0'),
      ('thresholds', 'threshold:0'),
      ('masked_weights', 'weights/masked_weight:0'),
    ):
      (entry,) = tf.get_collection(name)
      assert entry.name == f'a/{leaf}'

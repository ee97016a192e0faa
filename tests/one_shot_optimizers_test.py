"""Tests of SparseSnipOptimizer and SparseDNWOptimizer."""

import inspect

import numpy as np
import pytest

from rigl import sparse_optimizers
from rigl.compat import tf
from rigl.model_pruning import layers
from tests import sparse_net
from tests.reference import drop_and_grow as reference

LAYERS = {
  'matrix': sparse_net.LayerSpec((6, 5)),
  'kernel': sparse_net.LayerSpec((3, 3, 2, 4)),
  'matrix_bfloat16': sparse_net.LayerSpec((6, 5), tf.bfloat16),
  'kernel_float64': sparse_net.LayerSpec((3, 3, 2, 4), tf.float64),
  'float32_mask': sparse_net.LayerSpec((4, 5), tf.bfloat16, tf.float32),
}
N_ONES = {
  'matrix': 12,
  'kernel': 29,
  'matrix_bfloat16': 12,
  'kernel_float64': 29,
  'float32_mask': 8,
}


def _bytes(state, keys):
  return {key: state[key].tobytes() for key in keys}


def _net(method, inner='momentum', hyper=sparse_net.ONE_SHOT, density=1.0):
  return sparse_net.SparseNet(LAYERS, inner, method, hyper, density)


@pytest.mark.parametrize('inner', sparse_net.INNER_OPTIMIZERS)
def test_snip(inner):
  """The first step sets the masks by |g * w|; all others only train."""
  rng = np.random.RandomState(1)
  with _net('snip', inner) as net, sparse_net.SparseNet(LAYERS, inner, density=1.0) as bare:
    assert set(net.variables) == set(bare.variables) | {'is_snipped'}
    before = net.state()
    assert not before['is_snipped']
    gradients = net.random_gradients(rng)
    net.step(gradients)
    after = net.state()
    assert after['is_snipped']
    masks = {f'{name}/mask' for name in LAYERS}
    others = set(bare.variables) - masks
    # No weight, slot or step changed.
    assert _bytes(after, others) == _bytes(before, others)
    for name, gradient in gradients.items():
      mask = after[f'{name}/mask']
      saliency = np.abs(gradient.astype('f') * before[f'{name}/weights'].astype('f'))
      assert mask.dtype == before[f'{name}/mask'].dtype
      np.testing.assert_array_equal(mask.astype(bool), reference.top_n(saliency, N_ONES[name]))
      assert (mask.astype(bool) != reference.top_n(np.abs(gradient), N_ONES[name])).any()
    for _ in range(3):
      gradients = net.random_gradients(rng)
      bare.load(after)
      bare.step(gradients)
      net.step(gradients)
      after = net.state()
      trained = bare.state()
      assert _bytes(after, trained) == _bytes(trained, trained)
    assert after['global_step'] == 3


def test_snip_by_hand():
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    layers.masked_fully_connected(
      tf.ones([1, 4]),
      1,
      scope='layer',
      weights_initializer=tf.constant_initializer([0.1, 5.0, -2.0, 1.0]),
    )
    optimizer = sparse_optimizers.SparseSnipOptimizer(
      tf.train.GradientDescentOptimizer(0.1), 0.5, 'random'
    )
    (masked,) = optimizer.get_masked_weights()
    gradient = tf.constant([[9.0], [1.0], [-2.0], [3.0]])
    train_op = optimizer.minimize(
      tf.reduce_sum(masked * gradient), tf.train.get_or_create_global_step()
    )
    session.run(tf.global_variables_initializer())
    session.run(train_op)
    # |g * w| is 0.9, 5, 4, 3, while |g| would choose the first and the last.
    (mask,) = session.run(optimizer.get_masks())
    assert mask.ravel().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert session.run(optimizer.is_snipped)


def test_snip_does_nothing_in_a_run_that_starts_later():
  with _net('snip') as net:
    net.load({'global_step': 5})
    net.step(net.random_gradients(np.random.RandomState(1)))
    after = net.state()
  assert not after['is_snipped']
  assert after['global_step'] == 6
  assert all((after[f'{name}/mask'] == 1).all() for name in LAYERS)


def test_snip_needs_a_global_step():
  with _net('snip') as net, net.graph.as_default():
    gradients = net.optimizer.compute_gradients(net.loss)
    with pytest.raises(ValueError, match='global_step'):
      net.optimizer.apply_gradients(gradients)


@pytest.mark.parametrize('inner', sparse_net.INNER_OPTIMIZERS)
def test_dnw(inner):
  """Dense updates; after each step the masks hold the largest weights."""
  rng = np.random.RandomState(1)
  with _net('dnw', inner) as net, sparse_net.SparseNet(LAYERS, inner, density=1.0) as dense:
    assert set(net.variables) == set(dense.variables)
    for step in range(1, 6):
      gradients = net.random_gradients(rng)
      net.step(gradients)
      # With masks of ones the ordinary gradient is the dense one.
      dense.step(gradients)
      after, expected = net.state(), dense.state()
      others = {key for key in expected if not key.endswith('/mask')}
      assert _bytes(after, others) == _bytes(expected, others)
      assert after['global_step'] == step
      for name in LAYERS:
        np.testing.assert_array_equal(
          after[f'{name}/mask'].astype(bool),
          reference.top_n(np.abs(expected[f'{name}/weights'].astype('f')), N_ONES[name]),
        )


def test_dnw_trains_inactive_weights_and_biases():
  """One step by hand: x = (1, 2), y = 1 * w1 + b, loss = y."""
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    outputs = layers.masked_fully_connected(
      tf.constant([[1.0, 2.0]]),
      1,
      scope='layer',
      activation_fn=None,
      weights_initializer=tf.constant_initializer([3.0, 2.9]),
    )
    optimizer = sparse_optimizers.SparseDNWOptimizer(
      tf.train.GradientDescentOptimizer(0.1), 0.5, 'random'
    )
    train_op = optimizer.minimize(-tf.reduce_sum(outputs), tf.train.get_or_create_global_step())
    session.run(tf.global_variables_initializer())
    (mask,), (weights,) = optimizer.get_masks(), optimizer.get_weights()
    mask.load([[1.0], [0.0]], session)
    session.run(train_op)
    np.testing.assert_allclose(session.run(weights), [[3.1], [3.1]], rtol=1e-6)
    biases = tf.trainable_variables()[-1]
    np.testing.assert_allclose(session.run(biases), [0.1], rtol=1e-6)


@pytest.mark.parametrize('method', ['snip', 'dnw'])
def test_sparsities_come_from_the_distribution_and_the_custom_map(method):
  hyper = {
    'default_sparsity': 0.5,
    'mask_init_method': 'erdos_renyi_kernel',
    'custom_sparsity_map': {'matrix': 0.9, 'kernel': 0.0},
  }
  with _net(method, hyper=hyper) as net:
    net.step(net.random_gradients(np.random.RandomState(1)))
    after = net.state()
  n_ones = {name: int(after[f'{name}/mask'].astype('f').sum()) for name in LAYERS}
  assert n_ones['matrix'] == 30 - 27
  assert n_ones['kernel'] == 72
  others = [name for name in LAYERS if name not in ('matrix', 'kernel')]
  size = sum(np.prod(LAYERS[name].shape) for name in others)
  assert abs(sum(n_ones[name] for name in others) - size / 2) <= len(others)
  # Not uniform: the larger layer is sparser.
  assert n_ones['kernel_float64'] / 72 < n_ones['float32_mask'] / 20


@pytest.mark.parametrize('method', ['snip', 'dnw'])
@pytest.mark.parametrize(
  'changes, message',
  [
    ({'mask_init_method': 'unknown'}, 'unknown.*erdos_renyi'),
    ({'mask_init_method': ''}, 'erdos_renyi'),
    ({'default_sparsity': 1.1}, r'1\.1'),
    ({'default_sparsity': -0.1}, r'-0\.1'),
    ({'custom_sparsity_map': {'nowhere': 0.5}}, 'nowhere'),
    ({'custom_sparsity_map': {'matrix': 1.5}}, r'1\.5'),
  ],
)
def test_bad_sparsities_are_rejected(method, changes, message):
  with pytest.raises(ValueError, match=message):
    _net(method, hyper={**sparse_net.ONE_SHOT, **changes})


def test_signatures_name_the_arguments():
  snip, dnw = [
    inspect.signature(c)
    for c in (sparse_optimizers.SparseSnipOptimizer, sparse_optimizers.SparseDNWOptimizer)
  ]
  assert snip == dnw
  assert list(snip.parameters)[:3] == ['optimizer', 'default_sparsity', 'mask_init_method']

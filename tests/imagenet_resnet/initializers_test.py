"""init_method sparse and random_zeros, alone and in networks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import blocks, initializers
from tests import networks, sparse_net

SHAPES = [(3, 3, 16, 32), (200, 30), (64,)]


def _draw(initializer, shape, scope='layer', seed=0):
  with tf.Graph().as_default():
    tf.set_random_seed(seed)
    with tf.variable_scope(scope):
      weights = initializer(list(shape), tf.float32)
    with sparse_net.quick_session() as session:
      return session.run(weights)


def _initial_kernels(network, seed=0, **arguments):
  """{layer: kernel} of a fresh network."""
  with tf.Graph().as_default():
    tf.set_random_seed(seed)
    networks.build(network, **arguments)
    kernels = {
      v.op.name.split('/')[1]: v
      for v in tf.trainable_variables()
      if v.op.name.endswith(('/weights', '/kernel'))
    }
    with networks.initialized_session() as session:
      return session.run(kernels)


@pytest.mark.parametrize('shape', SHAPES[:2])
@pytest.mark.parametrize(
  'family, stddev',
  [
    (initializers.fan_in_normal(), 1.0),
    (initializers.fan_in_normal(2.0), 2**0.5),
    (initializers.normal(0.01), None),
  ],
)
@pytest.mark.parametrize('density', [0.25, 0.9, 1.0])
def test_sparse_divides_the_variance_by_the_density(shape, family, stddev, density):
  sparse = _draw(
    initializers.kernel_initializer('sparse', family, 1.0 - density, is_masked=True), shape
  )
  baseline = _draw(
    initializers.kernel_initializer('baseline', family, 1.0 - density, is_masked=True), shape
  )
  np.testing.assert_allclose(sparse, baseline / density**0.5, rtol=1e-5)
  # What a unit gets from the inputs it still has.
  active_fan_in = density * np.prod(shape[:-1])
  expected = 0.01 / density**0.5
  if stddev is not None:
    expected = stddev / active_fan_in**0.5
  assert abs(sparse.std() / expected - 1) < 5 / (2 * sparse.size) ** 0.5


def test_sparse_leaves_unmasked_layers_alone():
  family = initializers.fan_in_normal()
  arguments = family, 0.9, False
  np.testing.assert_array_equal(
    _draw(initializers.kernel_initializer('sparse', *arguments), (20, 10)),
    _draw(initializers.kernel_initializer('baseline', *arguments), (20, 10)),
  )


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('sparsity', [0.0, 0.29, 0.9, 0.999])
def test_random_zeros_zeroes_an_exact_number(shape, sparsity):
  family = initializers.normal(1.0)
  weights = _draw(initializers.random_zeros(family(1.0), sparsity), shape)
  baseline = _draw(family(1.0), shape)
  size = int(np.prod(shape))
  assert (weights == 0.0).sum() == math.floor(sparsity * size)
  np.testing.assert_array_equal(weights[weights != 0], baseline[weights != 0])


def test_random_zeros_are_uniform_and_seeded():
  initializer = initializers.random_zeros(initializers.normal(1.0)(1.0), 0.5)
  shape = (100, 100)
  zeros = _draw(initializer, shape) == 0.0
  np.testing.assert_array_equal(zeros, _draw(initializer, shape) == 0.0)
  # Binomial(100, 1/2) has a standard deviation of 5.
  for count in (*zeros.sum(0), *zeros.sum(1)):
    assert 25 < count < 75
  for other in (_draw(initializer, shape, scope='other'), _draw(initializer, shape, seed=1)):
    agreement = (zeros == (other == 0.0)).mean()
    assert abs(agreement - 0.5) < 0.03


def test_unknown_method():
  with pytest.raises(ValueError, match="'he' is not one of baseline"):
    initializers.kernel_initializer('he', initializers.normal(1.0), 0.0, is_masked=True)


@pytest.mark.parametrize(
  'network, options, dense_layers',
  [
    ('resnet18', {'prune_first_layer': False}, {'initial_conv'}),
    ('mobilenet_v1', {}, {'initial_conv'}),
    ('vgg_a', {}, set()),
    ('vgg_a', {'prune_last_layer': False}, {'fc8'}),
  ],
)
def test_methods_in_networks(network, options, dense_layers):
  arguments = {'width': 0.125, 'pruning_method': 'threshold', 'end_sparsity': 0.75, **options}
  baseline = _initial_kernels(network, **arguments)
  sparse = _initial_kernels(network, init_method='sparse', **arguments)
  zeros = _initial_kernels(network, init_method='random_zeros', **arguments)
  assert len(baseline) > 5
  for layer, kernel in baseline.items():
    is_dense = layer in dense_layers
    np.testing.assert_allclose(sparse[layer], kernel * (1.0 if is_dense else 2.0), rtol=1e-5)
    n_zeros = 0 if is_dense else math.floor(0.75 * kernel.size)
    assert (zeros[layer] == 0.0).sum() == n_zeros


def test_random_zeros_without_masks():
  kernels = _initial_kernels(
    'vgg_a', width=0.125, pruning_method='baseline', end_sparsity=0.5, init_method='random_zeros'
  )
  for kernel in kernels.values():
    assert (kernel == 0.0).sum() == math.floor(0.5 * kernel.size)


def test_sparsity_by_layer():
  spec = blocks.LayerSpec('threshold', 'sparse', end_sparsity={'net/a': 0.75, 'net/b': 0.0})

  def draw(name):
    with tf.Graph().as_default():
      with tf.variable_scope('net'):
        initializer = spec.kernel_initializer(name, initializers.normal(1.0))
      with tf.variable_scope('layer'), sparse_net.quick_session() as session:
        return session.run(initializer([50], tf.float32))

  np.testing.assert_allclose(draw('a'), 2 * draw('b'), rtol=1e-5)
  with pytest.raises(ValueError, match="no layer 'net/c', only .'net/a', 'ne"):
    draw('c')

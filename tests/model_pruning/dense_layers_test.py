"""Shapes, biases, padding and batch normalization."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import data_formats, dense_layers
from tests import networks

IMAGES = networks.images([2, 6, 6, 3])


@pytest.mark.parametrize('kernel_size', [3, np.int64(3), np.int32(3), (3, 3), [3, np.int64(3)]])
def test_sizes_of_kernels(kernel_size):
  with tf.Graph().as_default():
    x = tf.zeros([2, 6, 5, 4])
    assert dense_layers.kernel_shape(x, 3, kernel_size, 7) == [3, 3, 4, 7]
    assert dense_layers.kernel_shape(x, 1, kernel_size, 7) == [3, 3, 6, 7]


def test_flattened():
  with tf.Graph().as_default():
    x = tf.placeholder(tf.float32, [None, 2, 3])
    assert dense_layers.flattened(x).shape.as_list() == [None, 6]
    with pytest.raises(ValueError, match='must be known'):
      dense_layers.flattened(tf.placeholder(tf.float32, [2, None, 3]))


@pytest.mark.parametrize('data_format', ['NHWC', 'NCHW'])
def test_biases_are_those_of_channels(data_format):
  with tf.Graph().as_default():
    x = tf.zeros([2, 6, 5, 4], tf.bfloat16)
    y = dense_layers.add_biases(x, data_format, 'b', tf.ones_initializer(), trainable=False)
    (biases,) = tf.global_variables()
    assert biases.shape.as_list() == [4 if data_format == 'NHWC' else 6]
    assert biases.dtype.base_dtype == tf.float32
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert not tf.trainable_variables()


@pytest.mark.parametrize(
  'kernel_size, strides, pads',
  [(3, 1, None), (1, 2, (0, 0)), (2, 2, (0, 1)), (3, 2, (1, 1)), (7, 2, (3, 3))],
)
@pytest.mark.parametrize('data_format', data_formats.DATA_FORMATS)
def test_fixed_padding(kernel_size, strides, pads, data_format):
  axes = {'channels_last': (1, 2), 'channels_first': (2, 3)}[data_format]
  x = networks.images([2, 5, 6, 7])
  with tf.Graph().as_default(), tf.Session() as session:
    padded, padding = dense_layers.fixed_padding(tf.constant(x), kernel_size, strides, data_format)
    padded = session.run(padded)
  if pads is None:
    assert padding == 'SAME'
    pads = (0, 0)
  else:
    assert padding == 'VALID'
  expected = np.pad(x, [pads if i in axes else (0, 0) for i in range(4)])
  np.testing.assert_array_equal(padded, expected)


@pytest.mark.parametrize('fused', [True, False])
def test_batch_norm_is_that_of_numpy(fused):
  x = 2.0 + 3.0 * networks.images([4, 5, 5, 2])
  mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
  with tf.Graph().as_default(), tf.variable_scope('net'):
    training = dense_layers.batch_norm(tf.constant(x), True, 'channels_last', fused=fused)
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    assert len(updates) == 2
    with networks.initialized_session() as session:
      np.testing.assert_allclose(
        session.run(training), (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5
      )
      session.run(updates)
      names = ['gamma', 'beta', 'moving_mean', 'moving_variance']
      variables = tf.global_variables()
      assert [v.op.name for v in variables] == [f'net/batch_normalization/{name}' for name in names]
      assert [v.op.name for v in tf.trainable_variables()] == [
        f'net/batch_normalization/{name}' for name in names[:2]
      ]
      gamma, beta, moving_mean, moving_variance = session.run(variables)
  n = x[..., 0].size
  estimate = variance * n / (n - 1) if fused else variance
  np.testing.assert_array_equal(gamma, 1.0)
  np.testing.assert_array_equal(beta, 0.0)
  np.testing.assert_allclose(moving_mean, 0.1 * mean, rtol=1e-4)
  np.testing.assert_allclose(moving_variance, 0.9 + 0.1 * estimate, rtol=1e-4)


@pytest.mark.parametrize('fused', [True, False])
def test_batch_norm_of_inference(fused):
  x = networks.images([2, 3, 3, 4])
  with tf.Graph().as_default(), tf.variable_scope('net'):
    outputs = dense_layers.batch_norm(tf.constant(x), False, 'channels_last', fused=fused)
    assert not tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with networks.initialized_session() as session:
      values = {
        name.rsplit('/', 1)[1]: value for name, value in networks.randomize(session).items()
      }
      actual = session.run(outputs)
  expected = (x - values['moving_mean']) / np.sqrt(values['moving_variance'] + 1e-5) * values[
    'gamma'
  ] + values['beta']
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


EPSILONS = [(True, 1.001e-5), (False, 1e-5)]


@pytest.mark.parametrize('fused, epsilon', EPSILONS)
def test_gradient_of_a_dead_channel_is_divided_by_the_root_of_epsilon(fused, epsilon):
  """All of a batch of zeros is their mean, and their variance is 0."""
  weights = networks.images([4, 5, 5, 2])
  with tf.Graph().as_default():
    x = tf.constant(np.zeros([4, 5, 5, 2], np.float32))
    outputs = dense_layers.batch_norm(x, True, 'channels_last', fused=fused)
    gradient = tf.gradients(tf.reduce_sum(weights * outputs), x)
    with networks.initialized_session() as session:
      (gradient,) = session.run(gradient)
  expected = (weights - weights.mean((0, 1, 2))) / np.sqrt(epsilon)
  # A relative 1e-3 of epsilon shows as 5e-4.
  np.testing.assert_allclose(gradient, expected, rtol=5e-5, atol=2e-3)


@pytest.mark.parametrize('fused, epsilon', EPSILONS)
def test_epsilon_of_inference(fused, epsilon):
  x = networks.images([2, 3, 3, 4])
  with tf.Graph().as_default(), tf.variable_scope('net'):
    outputs = dense_layers.batch_norm(tf.constant(x), False, 'channels_last', fused=fused)
    (variance,) = [v for v in tf.global_variables() if v.op.name.endswith('moving_variance')]
    with networks.initialized_session() as session:
      variance.load(np.zeros([4], np.float32), session)
      outputs = session.run(outputs)
  np.testing.assert_allclose(outputs, x / np.sqrt(epsilon), rtol=5e-5)


def test_batch_norm_starts_at_gamma():
  with tf.Graph().as_default():
    x = tf.constant(IMAGES)
    zero = dense_layers.batch_norm(x, True, 'channels_last', init_zero=True)
    dense_layers.batch_norm(x, True, 'channels_last')
    assert {v.op.name.split('/')[0] for v in tf.global_variables()} == {
      'batch_normalization',
      'batch_normalization_1',
    }
    with networks.initialized_session() as session:
      assert not session.run(zero).any()


@pytest.mark.parametrize('fused', [True, False])
def test_batch_norm_channels_first_shapes(fused):
  with tf.Graph().as_default():
    x = tf.zeros([2, 3, 8, 6])
    outputs = dense_layers.batch_norm(x, True, 'channels_first', fused=fused)
    assert outputs.shape == x.shape
    assert {tuple(v.shape) for v in tf.global_variables()} == {(3,)}


def test_global_average_pool():
  x = networks.images([2, 3, 4, 5])
  with tf.Graph().as_default(), tf.Session() as session:
    for data_format, axes in (('channels_last', (1, 2)), ('channels_first', (2, 3))):
      pooled = session.run(dense_layers.global_average_pool(x, data_format))
      np.testing.assert_allclose(pooled, x.mean(axes), rtol=1e-4, atol=1e-6)

"""Layers that are dense or masked."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import pruning, sparse_layers
from tests import networks
from tests.reference import networks as reference_networks

TECHNIQUES = sparse_layers.SPARSITY_TECHNIQUES
IMAGES = networks.images([2, 6, 6, 3])
VECTORS = networks.images([4, 5])


def _layer(kind, technique, **arguments):
  """Builds a layer of either kind on fixed inputs."""
  if kind == 'conv':
    return sparse_layers.sparse_conv2d(
      tf.constant(IMAGES), 4, 3, sparsity_technique=technique, **arguments
    )
  return sparse_layers.sparse_fully_connected(
    tf.constant(VECTORS), 4, sparsity_technique=technique, **arguments
  )


@pytest.mark.parametrize(
  'kind, technique, names',
  [
    ('conv', 'baseline', ['net/a/a/weights', 'net/a/a/biases']),
    ('dense', 'baseline', ['net/a/a/weights', 'net/a/a/biases']),
    ('conv', 'threshold', ['net/a/mask', 'net/a/weights', 'net/a/threshold', 'net/a/biases']),
    ('dense', 'threshold', ['net/a/weights', 'net/a/mask', 'net/a/threshold', 'net/a/biases']),
  ],
)
def test_names(kind, technique, names):
  with tf.Graph().as_default(), tf.variable_scope('net'):
    _layer(kind, technique, use_bias=True, name='a')
    assert [v.op.name for v in tf.global_variables()] == names


@pytest.mark.parametrize('kind, default_name', [('conv', 'Conv'), ('dense', 'fully_connected')])
def test_default_names_are_unique(kind, default_name):
  with tf.Graph().as_default():
    for technique in ('threshold', 'baseline', 'baseline'):
      _layer(kind, technique, use_bias=False)
    kernels = [v.op.name for v in tf.trainable_variables()]
  assert kernels == [
    f'{default_name}/weights',
    f'{default_name}_1/{default_name}_1/weights',
    f'{default_name}_2/{default_name}_2/weights',
  ]


@pytest.mark.parametrize('technique', TECHNIQUES)
def test_biases_by_default(technique):
  with tf.Graph().as_default():
    _layer('conv', technique)
    assert len(tf.trainable_variables()) == 1
    _layer('dense', technique)
    assert len(tf.trainable_variables()) == 3


@pytest.mark.parametrize('kind', ['conv', 'dense'])
def test_same_initial_weights_with_and_without_mask(kind):
  weights = {}
  for technique, seed in (('baseline', 1), ('threshold', 1), ('baseline', 2)):
    with tf.Graph().as_default():
      tf.set_random_seed(seed)
      _layer(kind, technique, name='a')
      with networks.initialized_session() as session:
        weights[technique, seed] = session.run(tf.trainable_variables()[0])
  np.testing.assert_array_equal(weights['baseline', 1], weights['threshold', 1])
  assert (weights['baseline', 1] != weights['baseline', 2]).mean() > 0.9


@pytest.mark.parametrize('technique', TECHNIQUES)
@pytest.mark.parametrize('kind', ['conv', 'dense'])
def test_outputs_are_those_of_numpy(kind, technique):
  with tf.Graph().as_default(), tf.variable_scope('net'):
    outputs = _layer(kind, technique, use_bias=True, name='a', activation=tf.nn.relu)
    with networks.initialized_session() as session:
      values = networks.randomize(session)
      actual = session.run(outputs)
  prefix = 'a/' if technique == 'threshold' else 'a/a/'
  weights = values[f'{prefix}weights'] * values.get('a/mask', 1.0)
  expected = reference_networks.conv(IMAGES, weights) if kind == 'conv' else VECTORS @ weights
  expected = np.maximum(expected + values[f'{prefix}biases'], 0.0)
  assert 0.1 < (expected == 0.0).mean() < 0.9
  np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('technique', TECHNIQUES)
def test_hand_computed_convolution(technique):
  with tf.Graph().as_default():
    image = tf.reshape(tf.range(16, dtype=tf.float32), [1, 4, 4, 1])
    outputs = sparse_layers.sparse_conv2d(
      image,
      1,
      (1, 2),
      use_bias=True,
      strides=(2, 2),
      padding='VALID',
      kernel_initializer=tf.constant_initializer([2.0, -1.0]),
      bias_initializer=tf.constant_initializer(0.5),
      sparsity_technique=technique,
    )
    with networks.initialized_session() as session:
      # 2 * a - b + 0.5 at (0, 1), (2, 3), (8, 9), (10, 11)
      np.testing.assert_allclose(session.run(outputs)[0, :, :, 0], [[-0.5, 1.5], [7.5, 9.5]])


@pytest.mark.parametrize('technique', TECHNIQUES)
@pytest.mark.parametrize('kind', ['conv', 'dense'])
def test_regularizers(kind, technique):
  with tf.Graph().as_default():
    _layer(
      kind,
      technique,
      use_bias=True,
      kernel_regularizer=lambda w: 2.0 * tf.reduce_sum(w),
      biases_regularizer=lambda b: 3.0 + tf.reduce_sum(b),
    )
    weights, _ = tf.trainable_variables()
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    with networks.initialized_session() as session:
      weights, losses = session.run([weights, losses])
  np.testing.assert_allclose(losses, [2.0 * weights.sum(), 3.0], rtol=1e-4)


@pytest.mark.parametrize('technique', TECHNIQUES)
def test_normalizer_replaces_biases(technique):
  with tf.Graph().as_default():
    outputs = _layer(
      'conv', technique, use_bias=True, activation=tf.nn.relu, normalizer_fn=lambda x: 0.0 * x - 1.0
    )
    assert len(tf.trainable_variables()) == 1
    with networks.initialized_session() as session:
      assert not session.run(outputs).any()


@pytest.mark.parametrize('kind', ['conv', 'dense'])
@pytest.mark.parametrize('technique', TECHNIQUES)
def test_reuse(kind, technique):
  with tf.Graph().as_default():
    first = _layer(kind, technique, name='a')
    n_variables = len(tf.global_variables())
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      second = _layer(kind, technique, name='a')
    assert len(tf.global_variables()) == n_variables
    assert len(pruning.get_masks()) == (technique == 'threshold')
    with networks.initialized_session() as session:
      np.testing.assert_array_equal(*session.run([first, second]))


@pytest.mark.parametrize('kind', ['conv', 'dense'])
@pytest.mark.parametrize('dtype', [tf.bfloat16, tf.float16, tf.float64])
@pytest.mark.parametrize('technique', TECHNIQUES)
def test_precision(kind, dtype, technique):
  arguments = {'units': 4, 'use_bias': True, 'sparsity_technique': technique}
  layer = sparse_layers.sparse_fully_connected
  if kind == 'conv':
    layer, arguments['kernel_size'] = sparse_layers.sparse_conv2d, 3
  inputs = IMAGES if kind == 'conv' else VECTORS
  with tf.Graph().as_default():
    outputs = layer(tf.constant(inputs, dtype), **arguments)
    assert outputs.dtype == dtype
    stored = tf.float64 if dtype == tf.float64 else tf.float32
    assert {v.dtype.base_dtype for v in tf.global_variables()} == {stored}
    with networks.initialized_session() as session:
      assert np.isfinite(session.run(tf.cast(outputs, tf.float32))).all()


@pytest.mark.parametrize('technique', TECHNIQUES)
def test_channels_first_shapes(technique):
  with tf.Graph().as_default():
    outputs = sparse_layers.sparse_conv2d(
      tf.zeros([2, 3, 8, 6]),
      4,
      3,
      use_bias=True,
      strides=2,
      data_format='channels_first',
      sparsity_technique=technique,
    )
    assert outputs.shape.as_list() == [2, 4, 4, 3]
    assert tf.trainable_variables()[0].shape.as_list() == [3, 3, 3, 4]


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'sparsity_technique': 'l0'}, "'l0' is not one of baseline, threshold"),
    ({'data_format': 'NHWC'}, "data_format 'NHWC'"),
    ({'x': tf.TensorShape([2, 6, 6, None])}, 'number of channels'),
  ],
)
def test_wrong_convolution(arguments, message):
  with tf.Graph().as_default():
    shape = arguments.get('x', [2, 6, 6, 3])
    arguments = {**arguments, 'x': tf.placeholder(tf.float32, shape)}
    with pytest.raises(ValueError, match=message):
      sparse_layers.sparse_conv2d(units=4, kernel_size=3, **arguments)


def test_wrong_fully_connected():
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match="'l0' is not one of"):
      sparse_layers.sparse_fully_connected(tf.zeros([2, 3]), 4, sparsity_technique='l0')
    with pytest.raises(ValueError, match='must be known'):
      sparse_layers.sparse_fully_connected(tf.placeholder(tf.float32, [2, None]), 4)

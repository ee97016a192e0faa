"""The building blocks of the ImageNet networks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import blocks, pruning_layers, resnet_model
from rigl.model_pruning import sparse_layers
from tests import networks
from tests.reference import networks as reference_networks


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'pruning_method': 'mask'}, "pruning_method 'mask' .* baseline, thres"),
    ({'init_method': ''}, "init_method '' .* baseline, sparse, random_ze"),
    ({'data_format': None}, 'data_format None .* channels_last'),
    ({'end_sparsity': -0.1}, 'end_sparsity of every layer must be .* got -0.1'),
    ({'end_sparsity': {'a': 0.0, 'b': 1.0}}, 'end_sparsity of b must be .*1.0'),
    ({'weight_decay': -1.0}, 'weight_decay must be >= 0, got -1.0'),
  ],
)
def test_spec_rejects(arguments, message):
  with pytest.raises(ValueError, match=message):
    blocks.LayerSpec(**arguments)


def test_spec_is_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    blocks.LayerSpec().weight_decay = 1.0


def test_spec_of_a_dense_layer():
  spec = blocks.LayerSpec('threshold', 'sparse', 'channels_first', 0.5, 1e-4)
  assert spec.unless_pruned(True) is spec
  assert spec.unless_pruned(False) == blocks.LayerSpec(
    'baseline', 'sparse', 'channels_first', 0.0, 1e-4
  )
  assert spec.is_masked and not spec.unless_pruned(False).is_masked


def test_regularizer():
  assert blocks.LayerSpec().regularizer is None
  with tf.Graph().as_default(), tf.Session() as session:
    loss = blocks.LayerSpec(weight_decay=0.1).regularizer(tf.constant([1.0, 3.0]))
    assert session.run(loss) == pytest.approx(0.1 * (1 + 9) / 2)


def test_weight_decay_is_of_kernels_with_their_inactive_weights():
  spec = blocks.LayerSpec('threshold', weight_decay=0.5)
  with tf.Graph().as_default():
    net = blocks.Layers(spec, is_training=True)
    x = net.conv(tf.ones([1, 4, 4, 2]), 3, 3, 1, 'conv')
    x = net.relu(net.norm(net.depthwise(x, 3, 1, 'depthwise')))
    net.classifier(x, 5, 'final_dense', stddev=1.0)
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    assert networks.regularized_variables() == ['conv/weights', 'final_dense/weights']
    with networks.initialized_session() as session:
      values = networks.randomize(session)
      kernels = session.run(
        [
          v
          for v in tf.trainable_variables()
          if v.op.name in ('conv/weights', 'final_dense/weights')
        ]
      )
      # `randomize` switched a third of the weights off.
      assert 0 < values['mask'].mean() < 1
      np.testing.assert_allclose(
        session.run(losses), [0.25 * (k**2).sum() for k in kernels], rtol=1e-5
      )


@pytest.mark.parametrize('size', [7, 8])
@pytest.mark.parametrize('strides', [1, 2])
def test_depthwise_conv_is_that_of_numpy(size, strides):
  net = blocks.Layers(blocks.LayerSpec(), is_training=True)
  x = networks.images([2, size, size, 4])
  with tf.Graph().as_default():
    outputs = net.depthwise(tf.constant(x), 3, strides, 'depthwise')
    (kernel,) = tf.trainable_variables()
    assert kernel.op.name == 'depthwise/depthwise_weights'
    with networks.initialized_session() as session:
      outputs, kernel = session.run([outputs, kernel])
  np.testing.assert_allclose(
    outputs, reference_networks.depthwise_conv(x, kernel, strides), rtol=1e-4, atol=1e-5
  )


def test_batch_norm_is_fused():
  with tf.Graph().as_default() as graph:
    blocks.Layers(blocks.LayerSpec(), is_training=True).norm(tf.ones([1, 4, 4, 2]))
    assert 'FusedBatchNormV3' in {op.type for op in graph.get_operations()}


@pytest.mark.parametrize(
  'width, message',
  [
    (0.01, 'width 0.01 leaves none of 64 channels'),
    (0.0, 'width must be > 0, got 0.0'),
    (float('nan'), 'width must be > 0, got nan'),
    (float('inf'), 'width must be finite, got inf'),
  ],
)
def test_width_that_leaves_no_number_of_channels(width, message):
  with pytest.raises(ValueError, match=message):
    resnet_model.resnet_v1_(18, 10, width=width)
  resnet_model.resnet_v1_(18, 10, width=1 / 64)


def test_old_path_of_the_sparse_layers():
  assert pruning_layers.sparse_conv2d is sparse_layers.sparse_conv2d
  assert pruning_layers.sparse_fully_connected is (sparse_layers.sparse_fully_connected)

"""VGG (https://arxiv.org/abs/1409.1556) with masks.

Without normalization and biases. A global average replaces the fifth pooling
and the two large fully connected layers.
"""

from __future__ import annotations

from typing import Mapping, Optional, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks
from rigl.model_pruning import data_formats, sparse_layers

# Each pooling halves the image. There is one between two groups.
_N_POOLINGS = len(network_tables.VGG_FILTERS) - 1
MIN_SIZE = 2**_N_POOLINGS
# Keeps the variance through ReLUs (arXiv 1502.01852); no normalization does.
_INIT_SCALE = 2.0


def _check_size(inputs: tf.Tensor, data_format: str) -> None:
  shape = inputs.shape.as_list()
  sizes = [shape[axis] for axis in data_formats.spatial_axes(data_format)]
  if any(size is not None and size < MIN_SIZE for size in sizes):
    raise ValueError(
      f'VGG halves an image {_N_POOLINGS} times, so that it needs at least '
      f'{MIN_SIZE}x{MIN_SIZE} pixels, not {"x".join(map(str, sizes))}.'
    )


def _classifier(
  x: tf.Tensor, num_classes: int, spec: blocks.LayerSpec, is_pruned: bool
) -> tf.Tensor:
  """1x1 convolution `fc8` of the average over the image -> [batch, classes].

  If the last layer is dense, it differs from the others: it has biases,
  Glorot-uniform weights, no weight decay and no doubled scope.
  """
  spatial = data_formats.spatial_axes(spec.data_format)
  x = tf.reduce_mean(x, spatial, keepdims=True)
  if is_pruned:
    x = blocks.conv2d(x, num_classes, 1, 1, spec, 'fc8', _INIT_SCALE)
  else:
    x = sparse_layers.sparse_conv2d(
      x,
      num_classes,
      1,
      use_bias=True,
      data_format=spec.data_format,
      name='fc8',
      dense_names=('weights', 'biases'),
    )
  return tf.squeeze(x, spatial)


def vgg(
  num_classes: int,
  vgg_type: str = 'vgg_16',
  pruning_method: str = 'baseline',
  init_method: str = 'baseline',
  width: float = 1.0,
  prune_first_layer: bool = True,
  prune_last_layer: bool = True,
  data_format: str = 'channels_first',
  end_sparsity: Union[float, Mapping[str, float]] = 0.0,
  weight_decay: float = 0.0,
  name: Optional[str] = None,
) -> blocks.ModelFn:
  """Makes the function that builds a VGG.

  `vgg_type` is 'vgg_a' (11 layers), 'vgg_16' or 'vgg_19', and the default `name`. The other
  arguments are those of `resnet_model.resnet_v1_`.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of at least 16x16
    pixels. Training and inference build the same graph.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.one_of('vgg_type', vgg_type, network_tables.VGGS)
  widths = [blocks.scaled(filters, width) for filters in network_tables.VGG_FILTERS]
  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)

  def model(inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
    del is_training
    _check_size(inputs, data_format)
    x = inputs
    with tf.variable_scope(name or vgg_type):
      groups = zip(widths, network_tables.VGGS[vgg_type])
      for group, (filters, n_convs) in enumerate(groups, start=1):
        if group > 1:
          x = blocks.max_pool(x, 2, 2, 'VALID', spec)
        with tf.variable_scope(f'conv{group}'):
          for i in range(1, n_convs + 1):
            is_first = group == i == 1
            conv_spec = spec.unless_pruned(prune_first_layer or not is_first)
            x = tf.nn.relu(
              blocks.conv2d(x, filters, 3, 1, conv_spec, f'conv{group}_{i}', _INIT_SCALE)
            )
      return _classifier(x, num_classes, spec, prune_last_layer)

  return model

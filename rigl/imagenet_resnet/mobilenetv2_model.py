"""MobileNet-v2 (https://arxiv.org/abs/1801.04381) with masks.

Uses ReLU instead of the paper's ReLU6.
"""

from __future__ import annotations

import functools
from typing import Mapping, Optional, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks
from rigl.model_pruning import data_formats


def _inverted_residual(
  x: tf.Tensor,
  is_training: bool,
  filters: int,
  strides: int,
  spec: blocks.LayerSpec,
  index: int,
  expansion_factor: float,
) -> tf.Tensor:
  """Expansion, depthwise convolution and linear contraction to `filters`.

  Works on int(expansion_factor * n_in) channels, the first block of the network on n_in.
  """
  n_in = x.shape.as_list()[data_formats.channel_axis(spec.data_format)]
  shortcut = x
  if index > 0:
    x = blocks.conv2d(x, int(expansion_factor * n_in), 1, 1, spec, f'expand_1x1_{index}')
    x = blocks.batch_norm_relu(x, is_training, spec)
  x = blocks.depthwise_conv2d(x, 3, strides, spec, f'depthwise_nxn_{index}')
  x = blocks.batch_norm_relu(x, is_training, spec)
  x = blocks.conv2d(x, filters, 1, 1, spec, f'contraction_1x1_{index}')
  x = blocks.batch_norm(x, is_training, spec)
  return x + shortcut if strides == 1 and n_in == filters else x


def mobilenet_v2(
  num_classes: int,
  pruning_method: str = 'baseline',
  width: float = 1.0,
  expansion_factor: float = 6.0,
  prune_last_layer: bool = True,
  data_format: str = 'channels_first',
  weight_decay: float = 0.0,
  name: Optional[str] = None,
  init_method: str = 'baseline',
  end_sparsity: Union[float, Mapping[str, float]] = 0.0,
  prune_first_layer: bool = False,
) -> blocks.ModelFn:
  """Makes the function that builds a MobileNet-v2.

  Depthwise convolutions have neither masks nor weight decay. The arguments are those of
  `resnet_model.resnet_v1_`, and `expansion_factor`, at least 1, that of the inverted residual
  blocks. `width` leaves at least 1280 final features.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of any size.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.positive('width', width)
  if not expansion_factor >= 1.0:
    raise ValueError(f'expansion_factor must be >= 1, got {expansion_factor}.')
  checks.finite('expansion_factor', expansion_factor)
  return blocks.mobilenet(
    network_tables.MOBILENET_V2,
    functools.partial(_inverted_residual, expansion_factor=expansion_factor),
    blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay),
    num_classes,
    width,
    prune_first_layer,
    prune_last_layer,
    name,
    n_features=network_tables.mobilenet_v2_features(width),
  )

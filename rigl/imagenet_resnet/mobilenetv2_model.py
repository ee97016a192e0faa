"""MobileNet-v2 (https://arxiv.org/abs/1801.04381) with masks.

Uses ReLU instead of the paper's ReLU6.
"""

from __future__ import annotations

from typing import Mapping, Optional, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks, initializers
from rigl.model_pruning import data_formats


def _inverted_residual(
  x: tf.Tensor,
  is_training: bool,
  filters: int,
  strides: int,
  expansion_factor: float,
  spec: blocks.LayerSpec,
  index: int,
) -> tf.Tensor:
  """Expansion, depthwise convolution and linear contraction.

  Args:
    x: [batch, height, width, n_in], or channels first.
    is_training: see `blocks.batch_norm`.
    filters: n_out.
    strides: strides of the depthwise convolution.
    expansion_factor: the block works on int(expansion_factor * n_in) channels,
      the first block of the network on n_in.
    spec: specification of the network.
    index: index of the block; part of the names of its layers.

  Returns:
    [batch, height / strides, width / strides, filters], or channels first.
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

  Depthwise convolutions have no masks.

  Args:
    num_classes: number of logits.
    pruning_method: 'baseline' (no masks) or 'threshold' (with masks).
    width: multiplies the number of channels, but the final features are never
      fewer than 1280.
    expansion_factor: expansion factor of the inverted residual blocks, at least
      1.
    prune_last_layer: whether the last layer has a mask too.
    data_format: 'channels_last' or 'channels_first' (GPU and TPU only).
    weight_decay: L2 coefficient of the kernels, depthwise ones left out.
    name: variable scope, `resnet_model` when None.
    init_method: 'baseline', 'sparse' or 'random_zeros'; see `initializers`.
    end_sparsity: what `init_method` assumes; see `blocks.LayerSpec`.
    prune_first_layer: whether the first convolution has a mask too.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of any size.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.positive('width', width)
  initial_filters, block_filters = network_tables.mobilenet_filters(
    network_tables.MOBILENET_V2, width
  )
  if not expansion_factor >= 1.0:
    raise ValueError(f'expansion_factor must be >= 1, got {expansion_factor}.')
  checks.finite('expansion_factor', expansion_factor)
  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)

  def model(inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
    with tf.variable_scope(name or 'resnet_model'):
      x = blocks.conv2d(
        inputs,
        initial_filters,
        3,
        2,
        spec.unless_pruned(prune_first_layer),
        'initial_conv',
        dense_names=blocks.KERAS_NAMES,
      )
      x = blocks.batch_norm_relu(x, is_training, spec)
      for i, (filters, strides) in enumerate(block_filters):
        x = _inverted_residual(x, is_training, filters, strides, expansion_factor, spec, i)
      x = blocks.conv2d(
        x, network_tables.mobilenet_v2_features(width), 1, 1, spec, 'final_1x1_conv'
      )
      x = blocks.batch_norm_relu(x, is_training, spec)
      return blocks.classifier(
        x,
        num_classes,
        spec.unless_pruned(prune_last_layer),
        initializers.fan_in_normal(),
        blocks.KERAS_NAMES,
      )

  return model

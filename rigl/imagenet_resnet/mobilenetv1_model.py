"""MobileNet-v1 (https://arxiv.org/abs/1704.04861) with masks."""

from __future__ import annotations

from typing import Mapping, Optional, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks, initializers


def _separable_conv(
  x: tf.Tensor, is_training: bool, filters: int, strides: int, spec: blocks.LayerSpec, index: int
) -> tf.Tensor:
  """Depthwise 3x3, then 1x1 convolution to `filters`, each normalized."""
  x = blocks.depthwise_conv2d(x, 3, strides, spec, f'depthwise_nxn_{index}')
  x = blocks.batch_norm_relu(x, is_training, spec)
  x = blocks.conv2d(x, filters, 1, 1, spec, f'contraction_1x1_{index}')
  return blocks.batch_norm_relu(x, is_training, spec)


def mobilenet_v1(
  num_classes: int,
  pruning_method: str = 'baseline',
  width: float = 1.0,
  prune_last_layer: bool = True,
  data_format: str = 'channels_first',
  weight_decay: float = 0.0,
  name: Optional[str] = None,
  init_method: str = 'baseline',
  end_sparsity: Union[float, Mapping[str, float]] = 0.0,
  prune_first_layer: bool = False,
) -> blocks.ModelFn:
  """Makes the function that builds a MobileNet-v1.

  Depthwise convolutions have no masks.

  Args:
    num_classes: number of logits.
    pruning_method: 'baseline' (no masks) or 'threshold' (with masks).
    width: multiplies the number of channels.
    prune_last_layer: whether the last layer has a mask too.
    data_format: 'channels_last' or 'channels_first' (GPU and TPU only).
    weight_decay: L2 coefficient of the kernels, depthwise ones left out.
    name: variable scope, `resnet_model` when None.
    init_method: 'baseline', 'sparse' or 'random_zeros'; see `initializers`.
    end_sparsity: what `init_method` assumes; see `blocks.LayerSpec`.
    prune_first_layer: whether the first convolution has a mask too. It has
      none in the published checkpoints.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of any size.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.positive('width', width)
  initial_filters, block_filters = network_tables.mobilenet_filters(
    network_tables.MOBILENET_V1, width
  )
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
        x = _separable_conv(x, is_training, filters, strides, spec, i)
      return blocks.classifier(
        x,
        num_classes,
        spec.unless_pruned(prune_last_layer),
        initializers.fan_in_normal(),
        blocks.KERAS_NAMES,
      )

  return model

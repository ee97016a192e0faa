"""MobileNet-v1 (https://arxiv.org/abs/1704.04861) with masks."""

from __future__ import annotations

from typing import Mapping, Optional, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks


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

  Depthwise convolutions have neither masks nor weight decay, and the first convolution has no mask
  in the published checkpoints. The arguments are those of `resnet_model.resnet_v1_`.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of any size.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.positive('width', width)
  return blocks.mobilenet(
    network_tables.MOBILENET_V1,
    _separable_conv,
    blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay),
    num_classes,
    width,
    prune_first_layer,
    prune_last_layer,
    name,
  )

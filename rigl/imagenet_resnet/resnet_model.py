"""ResNet-18 to ResNet-200 (https://arxiv.org/abs/1512.03385) with masks."""

from __future__ import annotations

import functools
from typing import Mapping, Optional, Union

from rigl import networks
from rigl.core import checks
from rigl.imagenet_resnet import blocks


def resnet_v1_(
  resnet_depth: int,
  num_classes: int,
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
  """Makes the function that builds a ResNet.

  Args:
    resnet_depth: 18, 34, 50, 101, 152 or 200.
    num_classes: number of logits.
    pruning_method: 'baseline' (no masks) or 'threshold' (with masks).
    init_method: 'baseline', 'sparse' or 'random_zeros'; see `initializers`.
    width: multiplies the number of channels.
    prune_first_layer: whether the first convolution has a mask too.
    prune_last_layer: whether the last layer has a mask too.
    data_format: 'channels_last' or 'channels_first' (GPU and TPU only).
    end_sparsity: what `init_method` assumes; see `blocks.LayerSpec`.
    weight_decay: L2 coefficient of the kernels.
    name: variable scope, `resnet_model` when None.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of any size.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.one_of('resnet_depth', resnet_depth, networks.RESNETS)
  network = functools.partial(networks.resnet, depth=resnet_depth)
  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)
  return blocks.make_model(
    network, spec, num_classes, width, prune_first_layer, prune_last_layer, name, min_filters=64
  )

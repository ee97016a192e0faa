"""MobileNet-v1 (https://arxiv.org/abs/1704.04861) with masks."""

from __future__ import annotations

from typing import Mapping, Optional, Union

from rigl import networks
from rigl.imagenet_resnet import blocks


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
  in the published checkpoints. Arguments, result and errors are those of `resnet_model.resnet_v1_`.
  """
  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)
  return blocks.make_model(
    networks.mobilenet_v1, spec, num_classes, width, prune_first_layer, prune_last_layer, name
  )

"""MobileNet-v2 (https://arxiv.org/abs/1801.04381) with masks."""

from __future__ import annotations

import functools
from typing import Mapping, Optional, Union

from rigl import networks
from rigl.core import checks
from rigl.imagenet_resnet import blocks


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

  Depthwise convolutions have neither masks nor weight decay. Arguments, result and errors are those
  of `resnet_model.resnet_v1_`, and `expansion_factor`, at least 1, that of the inverted residual
  blocks. `width` leaves at least 1280 final features.
  """
  if not expansion_factor >= 1.0:
    raise ValueError(f'expansion_factor must be >= 1, got {expansion_factor}.')
  checks.finite('expansion_factor', expansion_factor)
  network = functools.partial(networks.mobilenet_v2, expansion_factor=expansion_factor)
  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)
  return blocks.make_model(
    network, spec, num_classes, width, prune_first_layer, prune_last_layer, name
  )

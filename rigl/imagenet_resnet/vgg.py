"""VGG (https://arxiv.org/abs/1409.1556) with masks."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Union

from rigl import networks
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks
from rigl.model_pruning import data_formats

# Each pooling halves the image. There is one between two groups.
_N_POOLINGS = len(networks.VGG_FILTERS) - 1
MIN_SIZE = 2**_N_POOLINGS


def _check_size(inputs: tf.Tensor, data_format: str) -> None:
  shape = inputs.shape.as_list()
  sizes = [shape[axis] for axis in data_formats.spatial_axes(data_format)]
  if any(size is not None and size < MIN_SIZE for size in sizes):
    raise ValueError(
      f'VGG halves an image {_N_POOLINGS} times, so that it needs at least '
      f'{MIN_SIZE}x{MIN_SIZE} pixels, not {"x".join(map(str, sizes))}.'
    )


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

  `vgg_type` is 'vgg_a' (11 layers), 'vgg_16' or 'vgg_19', and the default `name`. Other arguments,
  result and errors are those of `resnet_model.resnet_v1_`, but images have at least 16x16 pixels,
  and training and inference build the same graph.
  """
  checks.one_of('vgg_type', vgg_type, networks.VGGS)

  def network(net: blocks.Layers, x: tf.Tensor, **sizes: Any) -> tf.Tensor:
    _check_size(x, data_format)
    return networks.vgg(net, x, vgg_type, **sizes)

  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)
  return blocks.make_model(
    network,
    spec,
    num_classes,
    width,
    prune_first_layer,
    prune_last_layer,
    name or vgg_type,
    min_filters=64,
  )

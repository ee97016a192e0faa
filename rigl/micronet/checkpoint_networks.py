"""Reads the masks of a TensorFlow checkpoint, to count its network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rigl.micronet import architectures
from rigl.micronet.network import Network, kernel_shapes


class Mask(NamedTuple):
  """The properties of a mask that counting needs."""

  shape: tuple[int, ...]
  n_zeros: int


def read_masks(path: str) -> dict[str, Mask]:
  """Reads every variable `<layer>/mask` of a checkpoint, given by its prefix or folder.

  Returns:
    scope of the layer -> its mask, sorted by name.

  Raises:
    ValueError: if there is no checkpoint or no mask, if the file cannot be
      read, or if a mask has values other than 0 and 1.
  """
  from rigl import checkpoint_files  # Loading TensorFlow takes seconds.

  prefix = checkpoint_files.resolve(path)
  masks = {
    layer: Mask(tensor.shape, int(np.sum(tensor == 0)))
    for layer, tensor in checkpoint_files.read_masks(prefix).items()
  }
  if not masks:
    raise ValueError(
      f'{prefix!r} holds no masks, variables named <layer>/mask. Count a dense network by '
      '--architecture, without --checkpoint.'
    )
  return masks


def network_of_run(path: str) -> tuple[str | None, dict[str, float]]:
  """Reads network and mask updates from the config.gin beside a checkpoint, as of `read_masks`.

  Returns:
    (name of the architecture, {argument of `get_network`, or delta_t: value});
    None, and fewer values, if config.gin does not have them.

  Raises:
    ValueError: if there is no checkpoint, or its config.gin cannot be read.
  """
  # Loading TensorFlow takes seconds.
  from rigl import checkpoint_files, gin_configs

  folder = os.path.dirname(checkpoint_files.resolve(path))
  config = gin_configs.values_in(folder) or {}
  found = {}
  if 'maskupdate_frequency' in config:
    found['delta_t'] = config['maskupdate_frequency']
  if 'model_architecture' in config:
    name = config['model_architecture']
    if name == 'resnet':
      name += str(config['resnet_depth'])
    found.update(input_size=config['image_size'], num_classes=config['num_label_classes'])
    if config['width'] > 0:
      found['width'] = config['width']
    return name, found
  if 'resnet_width' in config:
    found['num_classes'] = config['num_classes']
    return f'wrn_{config["resnet_depth"]}_{config["resnet_width"]}', found
  return None, found


def mismatch(network: Network, masks: Mapping[str, Mask]) -> str | None:
  """Tells why masks do not belong to a network; None if they do."""
  shapes = kernel_shapes(network.layers)
  for name, mask in masks.items():
    if name not in shapes:
      return f'it has no layer {name!r}'
    if tuple(shapes[name]) != tuple(mask.shape):
      return f'its layer {name!r} has the shape {tuple(shapes[name])}, the mask {tuple(mask.shape)}'
  return None


def get_network(name: str, masks: Mapping[str, Mask], **sizes: Any) -> Network:
  """Builds the description of a network for the masks of a checkpoint.

  Takes the sizes of `architectures.get_network`. By default the last layer has the units of its
  mask, or the usual ones if it has no mask.

  Raises:
    ValueError: as `architectures.get_network`.
  """
  network = architectures.get_network(name, **sizes)
  mask = masks.get(network.last_layer)
  if sizes.get('num_classes') is None and mask and mask.shape:
    network = architectures.get_network(name, **{**sizes, 'num_classes': mask.shape[-1]})
  return network


def find_architecture(masks: Mapping[str, Mask], **sizes: Any) -> str:
  """Finds the name of the architecture that masks belong to, at the sizes of `get_network`.

  Raises:
    ValueError: if none has all these layers in these shapes.
  """
  n_unmasked = {}
  for name in _candidates(masks):
    try:
      network = get_network(name, masks, **sizes)
    except ValueError:  # Another network may have these sizes.
      continue
    if mismatch(network, masks) is None:
      n_unmasked[name] = len(network.weighted_layers) - len(masks)
  if not n_unmasked:
    raise ValueError(
      f'No known architecture has the masked layers {list(masks)[:3]}, ... in their shapes. Give '
      '--architecture, and those of --width, --input_size and --num_classes that are not as usual.'
    )
  # The layers of ResNet-18 are also layers of ResNet-34.
  return min(n_unmasked, key=n_unmasked.__getitem__)


def _candidates(masks: Iterable[str]) -> list[str]:
  names = [name for name in architectures.ARCHITECTURES if 'wrn' not in name]
  n_blocks = sum(name.endswith('_1') and '/conv_2_' in name for name in masks)
  if n_blocks:
    names += [f'wrn_{6 * n_blocks + 4}_{factor}' for factor in range(1, 17)]
  return names

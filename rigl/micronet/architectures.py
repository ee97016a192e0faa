"""Finds the description of a network by name.

Most names refer to `rigl.micronet.model_ops`, those that end in `_keras` to
`rigl.micronet.keras_networks`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from rigl import networks
from rigl.core import checks
from rigl.micronet import keras_networks, model_ops
from rigl.micronet.network import Network, check_channels

_BUILDERS: dict[str, Callable[..., Network]] = {
  **{f'resnet{depth}': functools.partial(model_ops.resnet, depth) for depth in networks.RESNETS},
  'mobilenet_v1': model_ops.mobilenet_v1,
  'mobilenet_v2': model_ops.mobilenet_v2,
  **{name: functools.partial(model_ops.vgg, name) for name in networks.VGGS},
  'lenet_300_100': model_ops.lenet_300_100,
  'resnet50_keras': keras_networks.resnet50_keras,
  'mobilenet_v1_keras': keras_networks.mobilenet_v1_keras,
}

# As accepted by `get_network`; 'wrn_D_K' stands for any depth and width.
ARCHITECTURES = (*_BUILDERS, 'wrn_D_K')


def get_network(
  name: str,
  width: float | None = None,
  input_size: int | None = None,
  num_classes: int | None = None,
) -> Network:
  """Builds the description of a network.

  Args:
    name: one of `ARCHITECTURES`, with numbers for D and K, as in 'wrn_22_2'.
    width: factor for the number of channels. It multiplies K of a WideResNet.
    input_size: rows of the square input image.
    num_classes: units of the last layer. If None, these three have the values
      for the data set on which the network is trained.

  Raises:
    ValueError: on an unknown name or an invalid size, such as a width that
      leaves a layer without channels.
  """
  sizes = {'width': width, 'input_size': input_size, 'num_classes': num_classes}
  given: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
  for key, value in given.items():
    checks.positive(key, value)
  wide_resnet = re.fullmatch(r'wrn_(\d+)_(\d+)', name)
  if wide_resnet:
    depth, factor = map(int, wide_resnet.groups())
    factor *= given.pop('width', 1)
    network = model_ops.wide_resnet(depth, factor, **given)
  elif name in _BUILDERS:
    network = _BUILDERS[name](**given)
  else:
    raise ValueError(f'Unknown architecture {name!r}. Choose one of: {", ".join(ARCHITECTURES)}.')
  title = name if width is None else f'{name} at width {width:g}'
  check_channels(network.layers, title)
  return network

"""The names of a masked layer and of its variables.

A layer has the name of its variable scope. Its mask is `<layer>/mask`, in a
graph and in a checkpoint alike.
"""

from __future__ import annotations

import re
from typing import Container, Optional

MASK = 'mask'
# Names of kernels.
WEIGHTS = ('weights', 'depthwise_weights', 'kernel')
THRESHOLD = 'threshold'


def variable_of(layer: str, leaf: str) -> str:
  """The name of a layer's variable: 'block1/conv/weights'; the layer outside all scopes is ''."""
  return f'{layer}/{leaf}' if layer else leaf


def mask_of(layer: str) -> str:
  """The name of a layer's mask: 'block1/conv' -> 'block1/conv/mask'."""
  return variable_of(layer, MASK)


def layer_of_mask(name: str) -> Optional[str]:
  """The layer of a mask, 'block1/conv/mask' or 'block1/conv/mask:0'; None for other variables."""
  found = re.fullmatch(rf'(?:(.*)/)?{MASK}(?::\d+)?', name)
  return (found[1] or '') if found else None


def layer_of_weights(name: str, masked: Container[str]) -> Optional[str]:
  """The layer that weights belong to; None if `name` is not that of weights.

  Args:
    name: name of a variable: 'conv/weights', or 'conv/conv/weights' of a layer
      without a mask.
    masked: names of the layers with a mask.
  """
  scope, _, leaf = name.rpartition('/')
  if leaf not in WEIGHTS:
    return None
  parent, _, last = scope.rpartition('/')
  is_doubled = scope not in masked and f'/{parent}'.endswith(f'/{last}')
  return parent if is_doubled else scope

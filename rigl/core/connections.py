"""Statistics of masks: sparsity, changes, exploration, dead units.

Masks are {layer: 0/1 array [..., units]}: the last dimension counts the units
of the layer, neurons or output channels.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, Mapping, Optional

import numpy as np


def density(masks: Mapping[Any, np.ndarray]) -> float:
  """The share of active connections in all masks together; 1 without masks."""
  size = sum(mask.size for mask in masks.values())
  n_active = sum(map(np.count_nonzero, masks.values()))
  return n_active / size if size else 1.0


def sparsity(masks: Mapping[Any, np.ndarray]) -> float:
  """The share of zeros in all masks together; 0 without masks."""
  return 1.0 - density(masks)


def dead_units(masks: Mapping[Any, np.ndarray]) -> int:
  """How many units have no incoming connection, in all layers together.

  The output of such a unit is constant. Units without outgoing connections are
  not counted: in a network with branches, the masks do not tell which layers
  read a unit.
  """
  return sum(
    int(np.count_nonzero(~np.any(mask, axis=tuple(range(np.ndim(mask) - 1)))))
    for mask in masks.values()
  )


class Moves:
  """Measures which active connections are new since the last look."""

  def __init__(self) -> None:
    """Starts without a last look."""
    self._former: Optional[dict[Any, np.ndarray]] = None

  def look(self, masks: Mapping[Any, np.ndarray]) -> float:
    """The share of active connections that were inactive at the last look.

    0 at the first look, and without masks. The layers are the same each time.
    """
    active = {name: np.asarray(mask, bool) for name, mask in masks.items()}
    former = self._former or active
    self._former = active
    n_active = sum(map(np.count_nonzero, active.values()))
    n_new = sum(np.count_nonzero(mask & ~former[name]) for name, mask in active.items())
    return n_new / n_active if n_active else 0.0

  def state(self) -> dict[str, Any]:
    """The state for `restore`, which JSON can hold if layers are names."""
    return _state_of(self._former or {})

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes back to what `state` returned."""
    self._former = _masks_of(state)


class Explored:
  """The connections that have ever been active.

  Their share is the in-time over-parameterization rate (ITOP) of Liu et al.
  2021, https://arxiv.org/abs/2102.02887.

  Attributes:
    rate: the share of all connections; 1 without masks, where all are active.
  """

  def __init__(self) -> None:
    """Starts without any active connection."""
    self._ever: dict[Any, np.ndarray] = {}
    self.rate = 1.0

  def __bool__(self) -> bool:
    """Whether any masks were added."""
    return bool(self._ever)

  def add(self, masks: Mapping[Any, np.ndarray]) -> None:
    """Counts the active connections of masks, of the same layers each time."""
    for layer, mask in masks.items():
      active = np.asarray(mask, bool)
      ever = self._ever.get(layer)
      self._ever[layer] = active if ever is None else ever | active
    self.rate = density(self._ever)

  def state(self) -> dict[str, Any]:
    """The state for `restore`, which JSON can hold if layers are names."""
    return _state_of(self._ever)

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes back to what `state` returned."""
    self._ever = _masks_of(state)
    self.rate = density(self._ever)


def _state_of(masks: Mapping[Any, np.ndarray]) -> dict[str, Any]:
  """Bool masks as JSON can hold them."""
  return {layer: [list(mask.shape), _packed(mask)] for layer, mask in masks.items()}


def _masks_of(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The masks that `_state_of` was given."""
  return {layer: _unpacked(shape, text) for layer, (shape, text) in state.items()}


def _packed(mask: np.ndarray) -> str:
  bits = np.packbits(mask.reshape(-1)).tobytes()
  return base64.b64encode(zlib.compress(bits, 1)).decode('ascii')


def _unpacked(shape: list[int], text: str) -> np.ndarray:
  bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
  return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)

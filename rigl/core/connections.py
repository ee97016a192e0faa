"""How sparse the masks of a training are, and how many connections moved."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Mapping, Optional

import numpy as np


def sparsity(masks: Mapping[Any, np.ndarray]) -> float:
  """The share of zeros in all masks together; 0 without masks.

  Args:
    masks: {layer: 0/1 array}.
  """
  size = sum(mask.size for mask in masks.values())
  n_active = sum(map(np.count_nonzero, masks.values()))
  return 1. - n_active / size if size else 0.


class Moves:
  """Counts the connections that are new since the masks were last looked at."""

  def __init__(self) -> None:
    """Has not looked yet."""
    self._former: Optional[dict[Any, np.ndarray]] = None

  def look(self, masks: Mapping[Any, np.ndarray]) -> float:
    """The share of the active connections that were inactive the last time.

    Args:
      masks: {layer: 0/1 array}, of the same layers each time.

    Returns:
      0 at the first time, and without masks.
    """
    active = {name: np.asarray(mask, bool) for name, mask in masks.items()}
    former = self._former or active
    self._former = active
    n_active = sum(map(np.count_nonzero, active.values()))
    n_new = sum(np.count_nonzero(mask & ~former[name])
                for name, mask in active.items())
    return n_new / n_active if n_active else 0.

  def state(self) -> dict[str, Any]:
    """What `restore` needs; as JSON can hold it where layers are names."""
    return {name: [list(mask.shape), _packed(mask)]
            for name, mask in (self._former or {}).items()}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes back to a former state.

    Args:
      state: what `state` returned.
    """
    self._former = {name: _unpacked(shape, text)
                    for name, (shape, text) in state.items()}


def _packed(mask: np.ndarray) -> str:
  bits = np.packbits(mask.reshape(-1)).tobytes()
  return base64.b64encode(zlib.compress(bits, 1)).decode('ascii')


def _unpacked(shape: list[int], text: str) -> np.ndarray:
  bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
  return np.unpackbits(bits, count=int(np.prod(shape))).reshape(
      shape).astype(bool)

"""Programs for the kernels: arrays of steps, weights and activations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Program(NamedTuple):
  """A compiled network.

  Attributes:
    arrays: the arguments of `kernels.run` from `steps` on.
    arena: one of them, the activations.
    input: part of the arena for an example.
    output: indices of the result in the arena.
  """

  arrays: tuple[np.ndarray, ...]
  arena: np.ndarray
  input: slice
  output: np.ndarray


class Numbers:
  """An array that grows."""

  def __init__(self, dtype: Any) -> None:
    self._dtype, self.size = dtype, 0
    self._parts: list[np.ndarray] = []

  def add(self, values: Any) -> int:
    """Appends values; returns the index of the first."""
    values = np.asarray(values, self._dtype).ravel()
    self._parts.append(values)
    self.size += values.size
    return self.size - values.size

  def all(self) -> np.ndarray:
    """All values and one more, so that the array is never empty."""
    return np.concatenate([*self._parts, np.zeros(1, self._dtype)])

"""Programs for the kernels: arrays of steps, weights and activations."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Program:
  """The arguments of `kernels.run`, and the place of input and output.

  Attributes:
    steps: see `kernels.run`.
    limits: see `kernels.run`.
    cuts: see `kernels.run`.
    arena: see `kernels.run`.
    values: see `kernels.run`.
    offsets: see `kernels.run`.
    rows: see `kernels.run`.
    biases: see `kernels.run`.
    tables: see `kernels.run`.
    factors: see `kernels.run`.
    input: part of the arena for an example.
    output: indices of the result in the arena.
  """

  steps: np.ndarray
  limits: np.ndarray
  cuts: np.ndarray
  arena: np.ndarray
  values: np.ndarray
  offsets: np.ndarray
  rows: np.ndarray
  biases: np.ndarray
  tables: np.ndarray
  factors: np.ndarray
  input: slice
  output: np.ndarray

  def arrays(self) -> tuple[np.ndarray, ...]:
    """The arrays, in the order of `kernels.run`."""
    return (
      self.steps,
      self.limits,
      self.cuts,
      self.arena,
      self.values,
      self.offsets,
      self.rows,
      self.biases,
      self.tables,
      self.factors,
    )


class Numbers:
  """An array that grows."""

  def __init__(self, dtype: Any) -> None:
    """Makes an empty array."""
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

"""Tensors of several layers as one matrix, for operations on all at once.

An operation on one matrix is traced and compiled once, whatever the number of
layers. Each layer fills rows of its own, in C-order, and padding fills the rest
of its last row.
"""

from __future__ import annotations

import math
from typing import Any, Sequence

import numpy as np

from rigl.core.arrays import Array

# Wide enough that there are few rows, and narrow enough for little padding.
_WIDTH = 4096


class Rows:
  """How the tensors of several layers form a matrix [rows, width].

  Attributes:
    xp: operations of the library of the tensors.
    sizes: number of elements of each layer.
    positions: int32 [rows, width], flat index within the layer; it goes on in
      the padding.
  """

  def __init__(self, xp: Any, shapes: Sequence[Sequence[int]]):
    """Places the layers of these shapes; `xp` is from `arrays.of`."""
    self.xp = xp
    self._shapes = [tuple(int(n) for n in shape) for shape in shapes]
    self.sizes = [math.prod(shape) for shape in self._shapes]
    n_rows = [-(-size // _WIDTH) for size in self.sizes]
    self._padding = [n * _WIDTH - size for n, size in zip(n_rows, self.sizes)]
    self._layer_of_row = np.repeat(np.arange(len(n_rows), dtype='int32'), n_rows)
    starts = [_WIDTH * i for n in n_rows for i in range(n)]
    self.positions = xp.reshape(xp.asarray(starts, 'int32'), (-1, 1)) + xp.ordinals(_WIDTH)

  def join(self, tensors: Sequence[Array], dtype: str) -> Array:
    """The matrix [rows, width] of tensors, cast to a type of this name and padded by 0."""
    xp = self.xp
    return xp.reshape(
      xp.concatenate(
        [
          part
          for tensor, n in zip(tensors, self._padding)
          for part in (xp.reshape(xp.asarray(tensor, dtype), (-1,)), xp.asarray(np.zeros(n, dtype)))
        ],
        0,
      ),
      (-1, _WIDTH),
    )

  def split(self, matrix: Array) -> list[Array]:
    """The tensor of each layer; the inverse of `join`."""
    xp = self.xp
    lengths = [n for of_layer in zip(self.sizes, self._padding) for n in of_layer]
    parts = xp.split(xp.reshape(matrix, (-1,)), lengths)[::2]
    return [xp.reshape(part, shape) for part, shape in zip(parts, self._shapes)]

  def spread(self, of_layers: Array) -> Array:
    """A number for each layer, [layers], as [rows, 1]."""
    xp = self.xp
    return xp.reshape(xp.take(of_layers, xp.asarray(self._layer_of_row)), (-1, 1))

  def count(self, chosen: Array) -> Array:
    """How many of bool [rows, width] are True, int32 [layers]."""
    xp = self.xp
    of_rows = xp.count(chosen, 1)
    layers = xp.reshape(xp.ordinals(len(self.sizes)), (-1, 1))
    is_of_layer = xp.equal(layers, xp.asarray(self._layer_of_row))
    # No product of matrices: GPUs have none of integers in PyTorch, and round floats.
    return xp.asarray(xp.sum(xp.where(is_of_layer, of_rows, xp.zeros_like(of_rows)), 1), 'int32')

"""Layers whose tensors are joined to one matrix, to compute on all of them at once."""

from __future__ import annotations

import functools
from typing import Callable, Sequence

from rigl.core import arrays, scores
from rigl.core.arrays import Array
from rigl.core.method import Layer
from rigl.core.rows import Rows


class JoinedLayers:
  """Several layers as one matrix.

  Attributes:
    rows: how they form a matrix.
    active: bool [rows, width], their masks.
  """

  def __init__(self, layers: Sequence[Layer]):
    xp = arrays.of(layers[0].mask)
    self._layers = layers
    self.rows = Rows(xp, [layer.mask.shape for layer in layers])
    masks = [xp.asarray(layer.mask) for layer in layers]
    self.active = self.rows.join(
      [xp.not_equal(mask, xp.zeros_like(mask)) for mask in masks], 'bool'
    )

  def score(self, score: Callable[[Layer], Array]) -> Array:
    """The score of each layer by a method, float32 [rows, width]."""
    if scores.is_elementwise(score):
      return score(self._as_layer)
    return self._join([score(layer) for layer in self._layers])

  def _join(self, tensors: Sequence[Array]) -> Array:
    return self.rows.join(tensors, 'float32')

  @functools.cached_property
  def _as_layer(self) -> Layer:
    """One layer whose tensors are float32 [rows, width]."""
    layers = self._layers
    has_states = all(
      layer.state is not None and layer.state.shape == layer.mask.shape for layer in layers
    )
    return Layer(
      mask=self.rows.xp.asarray(self.active, 'float32'),
      weights=self._join([layer.weights for layer in layers]),
      gradient=lambda: self._join([layer.gradient() for layer in layers if layer.gradient]),
      state=self._join([layer.state for layer in layers]) if has_states else None,
    )

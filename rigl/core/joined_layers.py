"""Layers whose tensors are joined to one matrix, to compute on all of them at once."""

from __future__ import annotations

import functools
from typing import Any, Callable, Sequence

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
    self.active = self.rows.join([layer.mask for layer in layers], 'bool')
    self._as_one_layer = _AsOneLayer(self)

  def score(self, score: Callable[[Any], Array]) -> Array:
    """The score of each layer by a method, float32 [rows, width].

    Raises:
      AttributeError: it is marked elementwise, but differs between layers.
      ValueError: it, or what it is computed from, has another shape than the mask.
    """
    if scores.is_elementwise(score):
      return self.rows.xp.asarray(score(self._as_one_layer), 'float32')
    return self.join(getattr(score, '__name__', 'A score'), score)

  def join(self, name: str, tensor_of: Callable[[Layer], Any]) -> Array:
    """A tensor of each layer, float32 [rows, width]; an error calls it `name`."""
    tensors = [tensor_of(layer) for layer in self._layers]
    for layer, tensor in zip(self._layers, tensors):
      shape, expected = getattr(tensor, 'shape', None), tuple(layer.mask.shape)
      if shape is None or tuple(shape) != expected:
        found = repr(tensor) if shape is None else f'a tensor of shape {tuple(shape)}'
        raise ValueError(f'{name} is {found}, not a tensor of the shape of the mask, {expected}.')
    return self.rows.join(tensors, 'float32')


class _AsOneLayer:
  """What a score marked elementwise gets for a `Layer`; all tensors are float32 [rows, width].

  What differs between layers is missing. A tensor is joined only if it is used.
  """

  def __init__(self, joined: JoinedLayers):
    self._joined = joined
    self.mask = joined.rows.xp.asarray(joined.active, 'float32')

  @functools.cached_property
  def weights(self) -> Array:
    return self._join('weights', lambda layer: layer.weights)

  @functools.cached_property
  def state(self) -> Array:
    return self._join('state', lambda layer: layer.state)

  def gradient(self) -> Array:
    return self._join('gradient()', lambda layer: layer.gradient and layer.gradient())

  def _join(self, name: str, tensor_of: Callable[[Layer], Any]) -> Array:
    return self._joined.join(f'layer.{name}, in a score marked elementwise,', tensor_of)

  def __getattr__(self, name: str) -> Any:
    raise AttributeError(
      'A score marked elementwise gets all layers as one, which has mask, weights, gradient() and '
      f'state, but no {name}. Define the score without @scores.elementwise.'
    )

"""Scores by which connections are dropped, grown or kept.

All are float32, because a bfloat16 score ties too often to rank connections.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from rigl.core import arrays
from rigl.core.arrays import Array

_Score = TypeVar('_Score', bound=Callable)


def elementwise(score: _Score) -> _Score:
  """Marks a score of a method that depends, at each connection, on no other connection.

  It then gets all layers at once, joined to one matrix of float32, which takes
  a part of the time to compile. Of a layer it may use mask, weights, gradient
  and state alone, the latter two of the mask's shape.
  """
  marked: Any = score
  marked.is_elementwise = True
  return score


def is_elementwise(score: Callable) -> bool:
  """Whether a score of a method is marked by `elementwise`."""
  return getattr(score, 'is_elementwise', False)


def magnitude(mask: Array, weights: Array) -> Array:
  """|mask * weights| [...], the drop score of all methods here."""
  xp = arrays.of(weights)
  return xp.abs(xp.asarray(mask, 'float32') * xp.asarray(weights, 'float32'))


def gradient_magnitude(dense_gradient: Array) -> Array:
  """|dense gradient| [...], the grow score of RigL (arXiv 1911.11134).

  SNFS applies it to the moving average of the gradient (arXiv 1907.04840).
  """
  xp = arrays.of(dense_gradient)
  return xp.abs(xp.asarray(dense_gradient, 'float32'))


def connection_sensitivity(weights: Array, dense_gradient: Array) -> Array:
  """|gradient * weights| [...]: SNIP's saliency (arXiv 1810.02340).

  Not |gradient|, which the RigL authors first used by mistake (appendix M).
  """
  xp = arrays.of(weights)
  return xp.abs(xp.asarray(dense_gradient, 'float32') * xp.asarray(weights, 'float32'))


def weight_magnitude(weights: Array) -> Array:
  """|weights| for gradual pruning, float32 [...]; NaN is the smallest.

  A threshold of NaN would prune every weight.
  """
  xp = arrays.of(weights)
  magnitude = xp.abs(xp.asarray(weights, 'float32'))
  return xp.where(xp.isnan(magnitude), xp.zeros_like(magnitude), magnitude)

"""Numpy oracle of one update of each method, noise left out.

Written apart from `rigl` and never importing it. What SET draws is an argument.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Optional

import numpy as np

from tests.reference.drop_and_grow import drop_and_grow, top_n


class Layer(NamedTuple):
  """The input of an update; arrays of the same shape, except `threshold`."""

  mask: np.ndarray
  weights: np.ndarray
  gradient: np.ndarray
  average: np.ndarray
  drawn: np.ndarray
  threshold: float
  sparsity: float


class Update(NamedTuple):
  mask: np.ndarray
  restarted: Optional[np.ndarray] = None
  threshold: Optional[float] = None


def cosine_fraction(step: int, initial: float, end_step: int) -> float:
  """Share to drop; annealed from 0 to `end_step`."""
  return initial * (1.0 + math.cos(math.pi * min(step, end_step) / end_step)) / 2


def _largest(layer: Layer, score: np.ndarray) -> Update:
  n_zeros = math.floor(layer.sparsity * score.size)
  return Update(top_n(score, score.size - n_zeros))


def _moved(
  layer: Layer, score_grow: np.ndarray, fraction: float, regrown_too: bool = False
) -> Update:
  moved = drop_and_grow(layer.mask, np.abs(layer.mask * layer.weights), score_grow, fraction)
  return Update(moved.mask, (moved.grown if regrown_too else moved.new_connections))


def _pruned(layer: Layer, step: int, end_step: int, decay: float) -> Update:
  sparsity = layer.sparsity * (1.0 - (1.0 - step / end_step) ** 3)
  magnitude = np.abs(layer.weights)
  n_keep = max(round(magnitude.size * (1.0 - sparsity)), 1)
  threshold = decay * layer.threshold + (1.0 - decay) * np.sort(magnitude, axis=None)[-n_keep]
  return Update(magnitude >= np.float32(threshold), None, threshold)


def updated(
  method: str, layer: Layer, step: int, end_step: int, fraction: float, decay: float
) -> Update:
  """An update by `method`, a name of the scripts.

  Args:
    method: the name.
    layer: before the update.
    step: the step that the schedule sees.
    end_step: where cosine annealing and gradual pruning end.
    fraction: drop fraction at step 0.
    decay: threshold decay of gradual pruning.
  """
  if method in ('baseline', 'scratch'):
    return Update(layer.mask)
  if method == 'snip':
    return _largest(layer, np.abs(layer.gradient * layer.weights))
  if method == 'dnw':
    return _largest(layer, np.abs(layer.weights))
  if method == 'prune':
    return _pruned(layer, step, end_step, decay)
  return _moved(
    layer,
    {
      'set': layer.drawn,
      'static': layer.mask,
      'rigl': np.abs(layer.gradient),
      'momentum': np.abs(layer.average),
    }[method],
    cosine_fraction(step, fraction, end_step),
    regrown_too=method == 'static',
  )

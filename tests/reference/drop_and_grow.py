"""Numpy oracle of selection and of one mask update, by full sorting.

Written apart from `rigl` and never importing it, so that both can only agree
by being right. Plain loops and sorts: clear, not fast.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple, Optional

import numpy as np


class Update(NamedTuple):
  """The outcome of one drop-and-grow; boolean arrays of the mask's shape."""

  mask: np.ndarray
  kept: np.ndarray
  grown: np.ndarray
  new_connections: np.ndarray


class Layer(NamedTuple):
  """The parts of a layer that a mask update changes."""

  mask: np.ndarray
  weights: np.ndarray
  slots: dict[str, np.ndarray]


def top_n(scores: np.ndarray, n: int, eligible: Optional[np.ndarray] = None) -> np.ndarray:
  """Boolean array with the n best eligible positions; ties: lower index."""
  with np.errstate(over='ignore'):
    flat = np.asarray(scores).astype(np.float32).ravel()
  allowed = np.ones(flat.size, bool) if eligible is None else np.asarray(eligible, bool).ravel()
  ranked = sorted(
    np.flatnonzero(allowed), key=lambda i: (np.inf if np.isnan(flat[i]) else -flat[i], i)
  )
  chosen = np.zeros(flat.size, bool)
  chosen[ranked[: max(n, 0)]] = True
  return chosen.reshape(np.shape(scores))


def n_to_drop(n_ones: int, fraction: float) -> int:
  """trunc(n_ones * fraction), multiplied in float32, within [0, n_ones]."""
  product = np.float32(n_ones) * np.float32(fraction)
  return min(max(int(product), 0), n_ones)


def drop_and_grow(
  mask: np.ndarray, score_drop: np.ndarray, score_grow: np.ndarray, fraction: float
) -> Update:
  """Drops the lowest of the active, grows the highest of all not kept."""
  active = np.asarray(mask).astype(np.float64) != 0
  n_ones = int(active.sum())
  n_prune = n_to_drop(n_ones, fraction)
  kept = top_n(score_drop, n_ones - n_prune, active)
  grown = top_n(score_grow, n_prune, ~kept)
  return Update(kept | grown, kept, grown, grown & ~active)


def update_layer(
  layer: Layer,
  score_grow: np.ndarray,
  fraction: float,
  grow_values: np.ndarray,
  slot_values: Mapping[str, np.ndarray],
  reinitialise_regrown: bool = False,
) -> Layer:
  """One noise-free mask update of |mask * weights|, slots included.

  Args:
    layer: before the update.
    score_grow: the highest of it are grown.
    fraction: share of the active connections to drop.
    grow_values: what the weights of new connections become.
    slot_values: {slot name: what the slot of new connections becomes}.
    reinitialise_regrown: whether a connection that is dropped and grown back
      is new as well.

  Returns:
    The layer after the update, in the types it came in.
  """
  mask32 = layer.mask.astype(np.float32)
  score_drop = np.abs(mask32 * layer.weights.astype(np.float32))
  update = drop_and_grow(layer.mask, score_drop, score_grow, fraction)
  fresh = update.grown if reinitialise_regrown else update.new_connections
  weights = layer.weights.copy()
  weights[fresh] = np.broadcast_to(grow_values, weights.shape)[fresh]
  slots = {}
  for name, slot in layer.slots.items():
    slots[name] = slot.copy()
    slots[name][fresh] = np.broadcast_to(slot_values[name], slot.shape)[fresh]
  return Layer(update.mask.astype(layer.mask.dtype), weights, slots)

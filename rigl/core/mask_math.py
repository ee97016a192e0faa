"""Exact selection of the best scores, and drop-and-grow built on it.

Everything here is a pure function of tensors: no variable, no collection, no
seed. The functions give the same masks in every library of `core.arrays`,
whether they run at once, in a graph or compiled.

Selection does not sort. The bits of a float32, read as an integer and
corrected for the sign, have the order of the floats, so the n-th largest score
is found by bisecting the integers and counting how many keys reach the middle.
Shapes are static, and n may be traced. TensorFlow has a quicker way of its own
with the same result, see `core.tf_selection`.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from rigl.core import arrays
from rigl.core.arrays import Array

# The key of -inf, and that of no float, which marks what cannot be selected.
_KEY_OF_MINUS_INF = -0x7F800000
_NOT_ELIGIBLE = -(2**31)


class MaskUpdate(NamedTuple):
  """What one drop-and-grow did to a mask; all of the mask's shape.

  Attributes:
    mask: the new mask, 0 or 1, of the old mask's type.
    kept: bool, connections that survived the drop.
    grown: bool, connections chosen by the grow score; disjoint from `kept`.
    new_connections: bool, grown and not active before. A connection that was
      dropped and grown back at once is in `grown` but not in here.
  """

  mask: Array
  kept: Array
  grown: Array
  new_connections: Array


def _ordered_keys(scores: Array, eligible: Optional[Array]) -> Array:
  """int32 keys with the order of the float32 `scores`; NaN ranks as -inf."""
  xp = arrays.of(scores)
  magnitude = xp.bits(xp.abs(scores))
  keys = xp.where(scores < 0, -magnitude, magnitude)
  keys = xp.where(
      xp.isnan(scores), xp.asarray(_KEY_OF_MINUS_INF, 'int32'), keys)
  return keys if eligible is None else xp.where(
      eligible, keys, xp.asarray(_NOT_ELIGIBLE, 'int32'))


def _flat_top_k_mask(scores: Array, n: Array,
                     eligible: Optional[Array]) -> Array:
  """`top_k_mask` of vectors."""
  xp = arrays.of(scores)
  keys = _ordered_keys(scores, eligible)
  # Of one number, since scalars of numpy warn when they wrap around.
  one = xp.asarray([1], 'int32')

  def halve(i, low):
    # The first step, 2**31, wraps around to the same as -2**31.
    middle = low + (one << (31 - i))
    return xp.where(xp.count(keys >= middle) >= n, middle, low)

  nth_largest = xp.repeat(32, halve, xp.asarray([_NOT_ELIGIBLE], 'int32'))
  above = keys > nth_largest
  ties = xp.equal(keys, nth_largest) & (keys > _NOT_ELIGIBLE)
  n_ties = n - xp.count(above)
  return above | (ties & (xp.cumulative_count(ties) <= n_ties))


def top_k_mask(scores: Array, n: Array,
               eligible: Optional[Array] = None) -> Array:
  """Marks the `n` highest scores; ties go to the lower flat (C-order) index.

  Scores are compared as float32 whatever their type. NaN ranks with -inf, so
  it is selected last.

  Args:
    scores: real tensor [...].
    n: int32 scalar, how many to select. More than there are eligible
      positions selects all of them; 0 or less selects none.
    eligible: optional bool tensor of the same shape, the positions that may
      be selected. All, when None.

  Returns:
    bool tensor of the shape of `scores` with exactly min(n, eligible) True.
  """
  xp = arrays.of(scores)
  if xp.library == 'tensorflow':
    # Here, because it loads TensorFlow.
    from rigl.core import tf_selection
    return tf_selection.top_k_mask(scores, n, eligible)
  chosen = _flat_top_k_mask(
      xp.reshape(xp.asarray(scores, 'float32'), (-1,)), n,
      None if eligible is None else xp.reshape(eligible, (-1,)))
  return xp.reshape(chosen, scores.shape)


def n_to_drop(n_ones: Array, drop_fraction: Array) -> Array:
  """trunc(n_ones * drop_fraction) in float32, kept within [0, n_ones].

  float32 on purpose: 50 * 0.58 gives 29 there and 28 in float64, and the
  number decides how many connections move.

  Args:
    n_ones: int32 scalar, active connections.
    drop_fraction: float32 scalar.
  """
  xp = arrays.of(n_ones)
  product = xp.asarray(n_ones, 'float32') * xp.asarray(
      drop_fraction, 'float32')
  return xp.minimum(xp.maximum(xp.asarray(product, 'int32'), 0), n_ones)


def drop_and_grow(mask: Array, score_drop: Array, score_grow: Array,
                  drop_fraction: Array) -> MaskUpdate:
  """One mask update of SET, SNFS and RigL (arXiv 1911.11134, algorithm 1).

  Of the active connections the highest `score_drop` are kept; as many as were
  dropped are then activated where `score_grow` is highest among all positions
  not kept, so a connection just dropped may come back. An inactive connection
  is never kept, whatever its score.

  Args:
    mask: 0/1 tensor [...] of any real type.
    score_drop: real tensor of the same shape; the lowest are dropped.
    score_grow: real tensor of the same shape; the highest are grown.
    drop_fraction: scalar in [0, 1], the share of active connections to move.

  Returns:
    A MaskUpdate; its mask has exactly as many ones as `mask`.
  """
  xp = arrays.of(mask)
  mask = xp.asarray(mask)
  active = xp.not_equal(mask, xp.zeros_like(mask))
  n_ones = xp.count(active)
  n_prune = n_to_drop(n_ones, drop_fraction)
  kept = top_k_mask(score_drop, n_ones - n_prune, eligible=active)
  grown = top_k_mask(score_grow, n_prune, eligible=~kept)
  return MaskUpdate(
      mask=xp.cast_like(kept | grown, mask),
      kept=kept,
      grown=grown,
      new_connections=grown & ~active)

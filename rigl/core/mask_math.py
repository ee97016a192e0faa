"""Exact selection of the best scores, and drop-and-grow built on it.

Everything here is a pure function of tensors: no variable, no collection, no
seed. The functions give the same masks in every library of `core.arrays`,
whether they run at once, in a graph or compiled.

Selection does not sort. The bits of a float32, read as an integer and
corrected for the sign, have the order of the floats, so the n-th largest score
is found by bisecting the integers and counting how many keys reach the middle.
Shapes are static, and n may be traced. Graphs of TensorFlow 1 have a quicker
way of their own with the same result, see `core.tf_selection`. XLA, which
compiles what Keras trains by, runs this one as fast and compiles it in a third
of the time.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from rigl.core import arrays
from rigl.core.arrays import Array

# The key of -inf, and that of no float, which marks what cannot be selected.
_KEY_OF_MINUS_INF = -0x7F800000
_ALL_BUT_SIGN = 0x7FFFFFFF
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
  # By integers alone: devices take denormal floats for 0.
  bits = xp.bits(scores)
  magnitude = bits & _ALL_BUT_SIGN
  keys = xp.where(bits < 0, -magnitude, magnitude)
  keys = xp.where(
      magnitude > -_KEY_OF_MINUS_INF, xp.asarray(_KEY_OF_MINUS_INF, 'int32'),
      keys)
  return keys if eligible is None else xp.where(
      eligible, keys, xp.asarray(_NOT_ELIGIBLE, 'int32'))


def _threshold(keys: Array, n: Array, lowest: int, n_bits: int) -> Array:
  """A key that n of the int32 keys from `lowest` on reach, if there is one.

  Else more than n reach it, and it is the n-th largest. Or there are not as
  many, and it is `lowest`.
  """
  xp = arrays.of(keys)
  wanted = xp.reshape(n, ())

  def unfinished(state):
    return xp.not_equal(state[1], 0) & xp.not_equal(state[2], wanted)

  def halve(state):
    # Of one number each, since scalars of numpy warn when they wrap around. A
    # step of 2**31 wraps around to the same as one of -2**31.
    low, step, n_reached = state[:1], state[1:2], state[2:]
    reached = xp.reshape(xp.count(keys >= low + step), (1,))
    enough = reached >= n
    return xp.concatenate([
        xp.where(enough, low + step, low), xp.unsigned_right_shift(step, 1),
        xp.where(enough, reached, n_reached)], 0)

  first_step = 2**(n_bits - 1) if n_bits < 32 else -2**31
  return xp.repeat_while(unfinished, halve, xp.concatenate([
      xp.asarray([lowest, first_step], 'int32'),
      xp.reshape(xp.count(keys >= lowest), (1,))], 0))[:1]


def _flat_top_k_mask(scores: Array, n: Array,
                     eligible: Optional[Array]) -> Array:
  """`top_k_mask` of vectors."""
  xp = arrays.of(scores)
  n = xp.maximum(xp.asarray(n, 'int32'), xp.asarray(0, 'int32'))
  keys = _ordered_keys(scores, eligible)
  threshold = _threshold(keys, n, _NOT_ELIGIBLE + 1, 32)
  above, ties = keys > threshold, xp.equal(keys, threshold)
  # Bisected too, which takes no time where all of them are wanted.
  size = arrays.size(scores)
  places = xp.where(ties, size - xp.ordinals(size), xp.asarray(0, 'int32'))
  last = _threshold(places, n - xp.count(above), 1, size.bit_length())
  return above | (ties & (places >= last))


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
  if xp.library == 'tensorflow' and xp.is_graph():
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

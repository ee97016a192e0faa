"""Exact selection of the best scores, and drop-and-grow built on it.

Everything here is a pure function of tensors: no variable, no collection, no
seed. The functions give the same masks in every library of `core.arrays`,
whether they run at once, in a graph or compiled.

Selection does not sort. The bits of a float32, read as an integer and
corrected for the sign, have the order of the floats, so the n-th largest score
is found by bisecting the integers and counting how many keys reach the middle.
Shapes are static, and n may be traced. All layers are searched in one loop,
which a compiler sees once. Graphs of TensorFlow 1 have a quicker way of their
own with the same result, see `core.tf_selection`, and `top_k_masks` of numpy
partitions; under XLA, by which Keras trains, this one is as fast.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

import numpy as np

from rigl.core import arrays
from rigl.core.arrays import Array
from rigl.core.rows import Rows

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


def _ordered_keys(scores: Array, eligible: Array) -> Array:
  """int32 keys with the order of the float32 `scores`; NaN ranks as -inf."""
  xp = arrays.of(scores)
  # By integers alone: devices take denormal floats for 0.
  bits = xp.bits(scores)
  magnitude = bits & _ALL_BUT_SIGN
  keys = xp.where(bits < 0, -magnitude, magnitude)
  keys = xp.where(magnitude > -_KEY_OF_MINUS_INF, xp.asarray(_KEY_OF_MINUS_INF, 'int32'), keys)
  return xp.where(eligible, keys, xp.asarray(_NOT_ELIGIBLE, 'int32'))


def _select(rows: Rows, scores: Array, n: Array, eligible: Optional[Array]) -> Array:
  """`top_k_masks` of layers that form a matrix.

  The thresholds of all layers are bisected together, in one loop. A threshold
  is a key, and a place among equal keys, the first being the highest.

  Args:
    rows: how the layers form a matrix.
    scores: float32 [rows, width].
    n: int32 [layers], how many to select of each, not negative.
    eligible: bool [rows, width], or None for all but padding.

  Returns:
    bool [rows, width].
  """
  xp = rows.xp
  inside = rows.positions < rows.spread(xp.asarray(rows.sizes, 'int32'))
  keys = _ordered_keys(scores, inside if eligible is None else inside & eligible)
  largest = max(1, *rows.sizes)
  places = largest - rows.positions

  def reaching(key, place):
    key, place = rows.spread(key), rows.spread(place)
    return (keys > key) | (xp.equal(keys, key) & (places >= place))

  def unfinished(state):
    _, _, _, place_step, n_reached = state
    return xp.any(xp.not_equal(n_reached, n)) & xp.any(xp.not_equal(place_step, 0))

  def halve(state):
    key, place, key_step, place_step, n_reached = state
    at_places = xp.equal(key_step, 0)
    new_key = key + key_step
    new_place = place + xp.where(at_places, place_step, xp.zeros_like(place_step))
    reached = rows.count(reaching(new_key, new_place))
    # A layer that is done stays while others go on.
    higher = (reached >= n) & xp.not_equal(n_reached, n)
    return (
      xp.where(higher, new_key, key),
      xp.where(higher, new_place, place),
      xp.unsigned_right_shift(key_step, 1),
      xp.where(at_places, xp.unsigned_right_shift(place_step, 1), place_step),
      xp.where(higher, reached, n_reached),
    )

  # Vectors, since scalars of numpy warn when they wrap around: a step of 2**31
  # does, to the same as one of -2**31.
  zeros = xp.zeros_like(n)
  key, place, *_ = xp.repeat_while(
    unfinished,
    halve,
    (
      zeros + (_NOT_ELIGIBLE + 1),
      zeros,
      xp.asarray([-(2**31)], 'int32'),
      xp.asarray([2 ** (largest.bit_length() - 1)], 'int32'),
      zeros - 1,
    ),
  )
  return reaching(key, place)


def _select_in_numpy(scores: Array, n: int, eligible: Optional[Array]) -> Array:
  """`top_k_mask` of an array of numpy, which partitions in a fifth of the time of a bisection.

  `n` is not negative.
  """
  flat = np.ravel(scores).astype('float32')
  allowed = np.ones(flat.shape, bool) if eligible is None else np.ravel(eligible)
  keys = _ordered_keys(flat, allowed)
  n = min(int(n), int(np.count_nonzero(allowed)))
  lowest = np.partition(keys, -n)[-n] if n else _ALL_BUT_SIGN
  chosen = keys > lowest
  chosen[np.flatnonzero(keys == lowest)[: n - np.count_nonzero(chosen)]] = True
  return np.reshape(chosen, np.shape(scores))


def selects_each(tensor: Array) -> bool:
  """Whether layers are selected from one at a time, by `core.tf_selection`."""
  xp = arrays.of(tensor)
  return xp.library == 'tensorflow' and xp.is_graph()


def top_k_masks(
  scores: Sequence[Array], n: Array, eligible: Optional[Sequence[Array]] = None
) -> list[Array]:
  """Marks the highest scores of each of several layers.

  Ties go to the lower flat (C-order) index. Scores are compared as float32
  whatever their type. NaN ranks with -inf, so it is selected last.

  Args:
    scores: real tensors [...], one for each layer.
    n: int32 [layers], how many to select of each. More than there are eligible
      positions selects all of them; 0 or less selects none.
    eligible: bool tensors of the same shapes, the positions that may be
      selected. All, when None.

  Returns:
    bool tensors of the shapes of `scores` with exactly min(n, eligible) True.
  """
  xp = arrays.of(scores[0])
  n = xp.asarray(n, 'int32')
  n = xp.maximum(n, xp.zeros_like(n))
  allowed = [None] * len(scores) if eligible is None else eligible
  if selects_each(scores[0]):
    # Here, because it loads TensorFlow.
    from rigl.core import tf_selection

    return [tf_selection.top_k_mask(*layer) for layer in zip(scores, xp.unstack(n), allowed)]
  if xp.library == 'numpy':
    return [_select_in_numpy(*layer) for layer in zip(scores, n, allowed)]
  rows = Rows(xp, [score.shape for score in scores])
  return rows.split(
    _select(
      rows,
      rows.join(scores, 'float32'),
      n,
      None if eligible is None else rows.join(eligible, 'bool'),
    )
  )


def top_k_mask(scores: Array, n: Array, eligible: Optional[Array] = None) -> Array:
  """`top_k_masks` of one layer; `n` is an int32 scalar."""
  xp = arrays.of(scores)
  [chosen] = top_k_masks(
    [scores], xp.reshape(xp.asarray(n, 'int32'), (1,)), None if eligible is None else [eligible]
  )
  return chosen


def n_to_drop(n_ones: Array, drop_fraction: Array) -> Array:
  """trunc(n_ones * drop_fraction) in float32, kept within [0, n_ones].

  float32 on purpose: 50 * 0.58 gives 29 there and 28 in float64, and the
  number decides how many connections move.

  Args:
    n_ones: int32 [...], active connections.
    drop_fraction: float32 scalar.
  """
  xp = arrays.of(n_ones)
  product = xp.asarray(n_ones, 'float32') * xp.asarray(drop_fraction, 'float32')
  return xp.minimum(xp.maximum(xp.asarray(product, 'int32'), 0), n_ones)


def drop_and_grow_joined(
  rows: Rows, active: Array, score_drop: Array, score_grow: Array, drop_fraction: Array
) -> MaskUpdate:
  """`drop_and_grow` of layers that form a matrix, each on its own.

  Args:
    rows: how the layers form a matrix.
    active: bool [rows, width]; padding is not.
    score_drop: float32 [rows, width].
    score_grow: float32 [rows, width].
    drop_fraction: scalar in [0, 1].

  Returns:
    A MaskUpdate of bool [rows, width].
  """
  xp = rows.xp

  # A loop, because a compiler sees its body once.
  def select(state):
    turn, kept, _, n_dropped = state
    is_first = xp.equal(turn, 0)
    # The active connections, then those not kept.
    eligible = xp.equal(kept, is_first)
    n_eligible = rows.count(eligible)
    n_prune = n_to_drop(n_eligible, drop_fraction)
    chosen = _select(
      rows,
      xp.where(is_first, score_drop, score_grow),
      xp.where(is_first, n_eligible - n_prune, n_dropped),
      eligible,
    )
    return turn + 1, xp.where(is_first, chosen, kept), chosen, n_prune

  none_dropped = xp.asarray([0] * len(rows.sizes), 'int32')
  _, kept, grown, _ = xp.repeat_while(
    lambda state: state[0] < 2, select, (xp.asarray(0, 'int32'), active, active, none_dropped)
  )
  return MaskUpdate(kept | grown, kept, grown, new_connections=grown & ~active)


def drop_and_grow(
  mask: Array, score_drop: Array, score_grow: Array, drop_fraction: Array
) -> MaskUpdate:
  """A mask update of SET, SNFS and RigL (arXiv 1911.11134, algorithm 1).

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
    A MaskUpdate; its mask has exactly as many ones as before.
  """
  xp = arrays.of(mask)
  mask = xp.asarray(mask)
  active = xp.asarray(mask, 'bool')
  n_ones = xp.count(active)
  n_prune = n_to_drop(n_ones, drop_fraction)
  kept = top_k_mask(score_drop, n_ones - n_prune, active)
  grown = top_k_mask(score_grow, n_prune, ~kept)
  return MaskUpdate(xp.cast_like(kept | grown, mask), kept, grown, grown & ~active)

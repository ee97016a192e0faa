"""Exact selection of the best scores, and drop-and-grow built on it.

Everything here is a pure function of tensors: no variable, no collection, no
seed. The functions give the same masks eagerly, in a graph session, inside
`tf.function` and under XLA.

Selection does not sort. The bits of a float32, read as an integer and
corrected for the sign, have the order of the floats, so the n-th largest
score is found by bisecting the integers between the smallest and the largest
key and counting how many keys lie above the middle. That takes at most 32
counting passes over the data, each of static shape, and ends as soon as a
threshold separates exactly n scores, which is the rule. Only when scores tie
across the threshold does a second bisection, over positions, decide in favour
of the lower flat index. `tf.math.top_k` gives the same set, but it sorts, and
needs a scatter to turn indices into a mask: about ten times slower on the
layers of a ResNet-50 (`benchmarks/mask_update.py`).
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from rigl.compat import tf
from rigl.core.shared_graphs import shared_graph

_INT32_MIN = -(2**31)
_KEY_OF_MINUS_INF = -0x7F800000
# Counts of a row fit a byte.
_ROW_LENGTH = 240
# Keys from a float to its double.
_KEYS_PER_OCTAVE = 2**23
# The key of no float: below -inf. Marks positions that must not be selected.
_NOT_ELIGIBLE = _INT32_MIN


class MaskUpdate(NamedTuple):
  """What one drop-and-grow did to a mask; all of the mask's shape.

  Attributes:
    mask: the new mask, 0 or 1, of the old mask's type.
    kept: bool, connections that survived the drop.
    grown: bool, connections chosen by the grow score; disjoint from `kept`.
    new_connections: bool, grown and not active before. A connection that was
      dropped and grown back at once is in `grown` but not in here.
  """

  mask: tf.Tensor
  kept: tf.Tensor
  grown: tf.Tensor
  new_connections: tf.Tensor


def _flat_float32(scores: tf.Tensor) -> tf.Tensor:
  return tf.reshape(tf.cast(scores, tf.float32), [-1])


def _ordered_keys(scores: tf.Tensor) -> tf.Tensor:
  """int32 keys with the order of the float32 `scores`; NaN ranks as -inf."""
  bits = tf.bitcast(scores, tf.int32)
  # Negative floats count their magnitude up from the smallest integer. The
  # subtraction turns that around and gives -0.0 the key of 0.0.
  keys = tf.where_v2(bits < 0, _INT32_MIN - bits, bits)
  return tf.where_v2(tf.math.is_nan(scores), _KEY_OF_MINUS_INF, keys)


def _in_rows(keys: tf.Tensor) -> tf.Tensor:
  """The keys as [n_rows, _ROW_LENGTH], filled up with _NOT_ELIGIBLE."""
  missing = -tf.size(keys) % _ROW_LENGTH
  keys = tf.pad(keys, [[0, missing]], constant_values=_NOT_ELIGIBLE)
  return tf.reshape(keys, [-1, _ROW_LENGTH])


def _count_at_least(rows: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
  # First in bytes: adding up int32 reads and writes four times as much.
  counts = tf.reduce_sum(tf.cast(rows >= threshold, tf.uint8), axis=1)
  return tf.reduce_sum(tf.cast(counts, tf.int32))


def _nth_largest(keys: tf.Tensor, n: tf.Tensor):
  """Bisects for a threshold that `n` of the eligible keys reach.

  Args:
    keys: int32 [size]; positions holding _NOT_ELIGIBLE do not count.
    n: int32 scalar.

  Returns:
    (threshold, is_exact): int32 and bool scalars. If `is_exact`, n keys, or
    all eligible ones, are >= `threshold`. Else more than n are, and
    `threshold` is the n-th largest key.
  """

  def split(candidate, low, high, count):
    reached = _count_at_least(rows, candidate)
    enough = reached >= n
    return (tf.where_v2(enough, candidate, low),
            tf.where_v2(enough, high, candidate),
            tf.where_v2(enough, reached, count))

  def unfinished(low, high, count):
    return tf.logical_and(tf.not_equal(count, n), high - low > 1)

  def halve(low, high, count):
    return split(low + (high - low) // 2, low, high, count)

  rows = _in_rows(keys)
  # `low` is reached by enough keys, `high` by too few. The first split is at
  # the key of 0.0: scores are seldom negative, and with bounds of one sign
  # their difference cannot overflow. The second is at 1/16 of the largest
  # score, for most of the time that spares five passes.
  bounds = split(
      0, _NOT_ELIGIBLE + 1, tf.reduce_max(keys) + 1, tf.size(keys))
  bounds = split(bounds[1] - 4 * _KEYS_PER_OCTAVE, *bounds)
  low, _, count = tf.while_loop(
      unfinished, halve, bounds, parallel_iterations=1)
  return low, tf.equal(count, n)


def _break_ties(keys: tf.Tensor, threshold: tf.Tensor,
                n: tf.Tensor) -> tf.Tensor:
  """Selects n keys when more than n reach `threshold`: lower index first."""
  above = keys > threshold
  n_wanted = n - tf.reduce_sum(tf.cast(above, tf.int32))
  size = tf.size(keys)
  position_keys = tf.where_v2(
      tf.equal(keys, threshold), size - 1 - tf.range(size), _NOT_ELIGIBLE)
  last_position, _ = _nth_largest(position_keys, n_wanted)
  # n_wanted is 0 only for n == 0, where no position is "the 0-th".
  return tf.logical_or(
      above, tf.logical_and(position_keys >= last_position, n_wanted > 0))


@shared_graph((tf.float32, 1), (tf.int32, 0), (tf.bool, 1))
def _flat_top_n_mask(scores: tf.Tensor, n: tf.Tensor,
                     eligible: tf.Tensor) -> tf.Tensor:
  """`top_n_mask` of vectors."""
  keys = tf.where_v2(eligible, _ordered_keys(scores), _NOT_ELIGIBLE)
  threshold, is_exact = _nth_largest(keys, n)
  return tf.cond(is_exact, lambda: keys >= threshold,
                 lambda: _break_ties(keys, threshold, n))


def top_n_mask(scores: tf.Tensor,
               n: tf.Tensor,
               eligible: Optional[tf.Tensor] = None) -> tf.Tensor:
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
  if eligible is None:
    eligible = tf.fill(tf.shape(scores), True)
  chosen = _flat_top_n_mask(
      _flat_float32(scores), n, tf.reshape(eligible, [-1]))
  return tf.reshape(chosen, tf.shape(scores))


def n_to_drop(n_ones: tf.Tensor, drop_fraction: tf.Tensor) -> tf.Tensor:
  """trunc(n_ones * drop_fraction) in float32, kept within [0, n_ones].

  float32 on purpose: 50 * 0.58 gives 29 there and 28 in float64, and the
  number decides how many connections move.

  Args:
    n_ones: int32 scalar, active connections.
    drop_fraction: float32 scalar.
  """
  product = (tf.cast(n_ones, tf.float32) *
             tf.cast(drop_fraction, tf.float32))
  return tf.clip_by_value(tf.cast(product, tf.int32), 0, n_ones)


@shared_graph(
    (tf.bool, 1), (tf.float32, 1), (tf.float32, 1), (tf.float32, 0))
def _flat_drop_and_grow(
    active: tf.Tensor, score_drop: tf.Tensor, score_grow: tf.Tensor,
    drop_fraction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """(kept, grown) of `drop_and_grow`, for vectors."""
  n_ones = tf.reduce_sum(tf.cast(active, tf.int32))
  n_prune = n_to_drop(n_ones, drop_fraction)
  kept = top_n_mask(score_drop, n_ones - n_prune, eligible=active)
  grown = top_n_mask(score_grow, n_prune, eligible=tf.logical_not(kept))
  return kept, grown


def drop_and_grow(mask: tf.Tensor, score_drop: tf.Tensor,
                  score_grow: tf.Tensor,
                  drop_fraction: tf.Tensor) -> MaskUpdate:
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
  active = tf.not_equal(mask, tf.zeros([], mask.dtype))
  kept, grown = (
      tf.reshape(flat, tf.shape(mask)) for flat in _flat_drop_and_grow(
          tf.reshape(active, [-1]), _flat_float32(score_drop),
          _flat_float32(score_grow), tf.cast(drop_fraction, tf.float32)))
  return MaskUpdate(
      mask=tf.cast(tf.logical_or(kept, grown), mask.dtype),
      kept=kept,
      grown=grown,
      new_connections=tf.logical_and(grown, tf.logical_not(active)))

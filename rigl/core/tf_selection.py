"""The n highest scores of a tensor of TensorFlow, without sorting.

The same rule as `core.mask_math`, which calls it, by fewer passes over the
data: at most 33, each of static shape, and no more once a threshold separates
exactly n scores, which is the rule. Only when scores tie across the threshold
does a second bisection, over positions, decide in favour of the lower flat
index. `tf.math.top_k` gives the same set, but it sorts, and needs a scatter to
turn indices into a mask; `benchmarks/mask_update.py` compares the two.
"""

from __future__ import annotations

import functools
from typing import Callable, Optional

from rigl.compat import tf
from rigl.core.shared_graphs import shared_graph

# As many as there are positive NaN.
_KEY_OF_ZERO = 2**23 - 1
_KEY_OF_MINUS_INF = _KEY_OF_ZERO - 0x7F800000
# Keys from a float to its double.
_KEYS_PER_OCTAVE = 2**23
# The key of no float: below -inf. Marks positions that must not be selected.
_NOT_ELIGIBLE = -(2**31)
# Numbers in a part at most, and parts of a layer; see _in_parts.
_PART_SIZE = 80_000
_PARTS = (1, 2, 4)
# Counts of a row fit a byte.
_ROW_LENGTH = 240


def _n_parts(size: Optional[int]) -> Optional[int]:
  """How many parts to cut `size` numbers into; 1 if it is not known.

  None if it would take more than a few: such a layer is worth the use of
  several threads, and XLA compiles each part on its own.
  """
  enough = [n for n in _PARTS if n * _PART_SIZE >= (size or 0)]
  return enough[0] if enough else None


def _in_parts(values: tf.Tensor, n_parts: Optional[int]) -> list[tf.Tensor]:
  """Cuts a vector into `n_parts` of the same size, but for the last.

  TensorFlow hands an operation on more than about 1e5 numbers to several
  threads, and waking them takes longer than adding up 1e5 numbers. Operations
  on parts run side by side without that, and leave their results in the cache.
  """
  if n_parts is None:
    return [values]
  size = tf.size(values)
  most = [size // n_parts] * (n_parts - 1)
  return tf.split(values, [*most, size - sum(most)])


def _clip(values: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
  """tf.clip_by_value in one pass instead of two."""
  return tf.raw_ops.ClipByValue(t=values, clip_value_min=low, clip_value_max=high)


def _ordered_keys(scores: tf.Tensor, eligible: tf.Tensor) -> tf.Tensor:
  """int32 keys with the order of the float32 `scores`; NaN ranks as -inf.

  Positions that are not `eligible` get _NOT_ELIGIBLE. The keys are computed,
  by integers that wrap around, since a `where` takes four times as long.
  """
  # A magnitude and its bits have the same order; those of -0.0 become 0.
  bits = tf.bitcast(scores, tf.int32)
  keys = tf.bitcast(tf.abs(scores), tf.int32) * _clip(bits, -1, 1)
  # NaN of either sign lies beyond the infinities. A positive one wraps around.
  keys = tf.maximum(keys + _KEY_OF_ZERO, _KEY_OF_MINUS_INF)
  # The smallest integer less one is the largest, which bounds no key.
  return tf.minimum(keys, _NOT_ELIGIBLE - tf.cast(eligible, tf.int32))


def _small_counter(parts: list[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
  """fn(threshold) -> how many keys reach it, by sums of clipped keys."""
  size = tf.add_n([tf.size(part) for part in parts])

  def count_at_least(threshold):
    # Each key clipped to `threshold` or one less. Quicker than by way of bool;
    # the sum wraps around, but so does what is taken off.
    below = threshold - 1
    return tf.add_n([tf.reduce_sum(_clip(part, below, threshold)) for part in parts]) - size * below

  return count_at_least


def _large_counter(keys: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
  """The same by sums of bytes: to add up int32 moves four times as much."""
  missing = -tf.size(keys) % _ROW_LENGTH
  keys = tf.pad(keys, [[0, missing]], constant_values=_NOT_ELIGIBLE)
  rows = tf.reshape(keys, [-1, _ROW_LENGTH])

  def count_at_least(threshold):
    counts = tf.reduce_sum(tf.cast(rows >= threshold, tf.uint8), axis=1)
    return tf.reduce_sum(tf.cast(counts, tf.int32))

  return count_at_least


def _nth_largest(
  parts: list[tf.Tensor], n: tf.Tensor, is_large: bool
) -> tuple[tf.Tensor, tf.Tensor]:
  """Bisects for a threshold that `n` of the eligible keys reach.

  Args:
    parts: parts of the keys, int32 vectors; those of _NOT_ELIGIBLE do not
      count.
    n: int32 scalar.
    is_large: whether there is one part, a large one.

  Returns:
    (threshold, is_exact): int32 and bool scalars. If `is_exact`, n keys, or
    all eligible ones, are >= `threshold`. Else more than n are, and
    `threshold` is the n-th largest key.
  """
  count_at_least = _large_counter(parts[0]) if is_large else _small_counter(parts)
  size = tf.add_n([tf.size(part) for part in parts])

  def unfinished(low, step, count):
    return tf.logical_and(tf.not_equal(count, n), tf.not_equal(step, 0))

  def halve(low, step, count):
    reached = count_at_least(low + step)
    enough = reached >= n
    return (
      tf.where_v2(enough, low + step, low),
      tf.abs(step // 2),
      tf.where_v2(enough, reached, count),
    )

  # `low` is reached by enough keys, `low + 2 * step` by too few. Most of the
  # time 1/16 of the largest score is low enough, which spares seven passes.
  span = 4 * _KEYS_PER_OCTAVE
  largest = tf.reduce_max(tf.stack([tf.reduce_max(part) for part in parts]))
  near = tf.maximum(largest, span - 1) - (span - 1)
  n_near = count_at_least(near)
  is_near = n_near >= n
  # A step of 2**31, half of all integers, is the same as one of -2**31.
  low, _, count = tf.while_loop(
    unfinished,
    halve,
    (
      tf.where_v2(is_near, near, _NOT_ELIGIBLE + 1),
      tf.where_v2(is_near, span // 2, -(2**31)),
      tf.where_v2(is_near, n_near, size),
    ),
    parallel_iterations=1,
  )
  return low, tf.equal(count, n)


def _break_ties(
  keys: tf.Tensor, threshold: tf.Tensor, n: tf.Tensor, n_parts: Optional[int]
) -> tf.Tensor:
  """Selects n keys when more than n reach `threshold`: lower index first."""
  above = keys > threshold
  n_wanted = n - tf.reduce_sum(tf.cast(above, tf.int32))
  size = tf.size(keys)
  position_keys = tf.where_v2(tf.equal(keys, threshold), size - 1 - tf.range(size), _NOT_ELIGIBLE)
  last_position, _ = _nth_largest(_in_parts(position_keys, n_parts), n_wanted, n_parts is None)
  # n_wanted is 0 only for n == 0, where no position is "the 0-th".
  return tf.logical_or(above, tf.logical_and(position_keys >= last_position, n_wanted > 0))


@functools.lru_cache(maxsize=None)
def _flat_top_k_mask(n_parts: Optional[int]) -> Callable[..., tf.Tensor]:
  """`top_k_mask` of vectors, as a function (scores, n, eligible)."""

  @shared_graph((tf.float32, 1), (tf.int32, 0), (tf.bool, 1))
  def flat_top_k_mask(scores, n, eligible):
    parts = [
      _ordered_keys(*part) for part in zip(_in_parts(scores, n_parts), _in_parts(eligible, n_parts))
    ]
    threshold, is_exact = _nth_largest(parts, n, n_parts is None)
    return tf.cond(
      is_exact,
      lambda: tf.concat([part >= threshold for part in parts], 0),
      lambda: _break_ties(tf.concat(parts, 0), threshold, n, n_parts),
    )

  return flat_top_k_mask


def top_k_mask(scores: tf.Tensor, n: tf.Tensor, eligible: Optional[tf.Tensor] = None) -> tf.Tensor:
  """See mask_math.top_k_mask.

  Args:
    scores: real tensor [...].
    n: int32 scalar.
    eligible: bool [...].
  """
  if eligible is None:
    eligible = tf.fill(tf.shape(scores), True)
  select = _flat_top_k_mask(_n_parts(scores.shape.num_elements()))
  chosen = select(tf.reshape(tf.cast(scores, tf.float32), [-1]), n, tf.reshape(eligible, [-1]))
  return tf.reshape(chosen, tf.shape(scores))

"""The n highest scores of a tensor of TensorFlow, without sorting.

The same rule as `core.mask_math`, which calls it, by fewer passes over the
data: each counts the scores above a threshold, about a dozen times until exactly
n are, and all shapes are static. Only when scores tie across the threshold does a
second search, over positions, decide in favour of the lower flat index.
`tf.math.top_k` gives the same set, but it sorts, and needs a scatter to turn
indices into a mask; `benchmarks/mask_update.py` compares the two.
"""

from __future__ import annotations

import functools
from typing import Callable, Optional

from rigl.compat import tf
from rigl.core.shared_graphs import shared_graph

# The bits of 2**23 - 1 floats, all NaN, lie above those of infinity. Keys of NaN wrap around, to
# below that of -infinity.
_KEY_OF_ZERO = 2**23 - 1
_KEY_OF_MINUS_INF = _KEY_OF_ZERO - 0x7F800000
# Keys between a float and 16 times as much.
_NEAR = 4 * 2**23
# The key of no float: below -inf. Marks positions that must not be selected.
_NOT_ELIGIBLE = -(2**31)
# Numbers in a part at most, and parts of a layer; see _in_parts.
_PART_SIZE = 80_000
_PARTS = (1, 2, 4)
# The search leaves at least this share of its range on either side of a guess, and trusts the
# count at one end less and less while only the other end moves.
_MARGIN = 2.0**-10
_FADING = 0.7
# At most 255, so that a byte holds the count of a row.
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
  """Searches for a threshold that `n` of the eligible keys reach, by false position.

  `excess` keys too many reach `low`, `lack` too few reach `high`. The next guess is where a
  straight line between the two would cross 0. Because the counts really follow a curve, the number
  at the end that did not move fades (as in the Illinois method): otherwise one end would creep.

  Args:
    parts: parts of the keys, int32 vectors; those of _NOT_ELIGIBLE do not
      count.
    n: int32 scalar, not negative.
    is_large: whether there is one part, a large one.

  Returns:
    (threshold, is_exact): int32 and bool scalars. If `is_exact`, n keys, or
    all eligible ones, are >= `threshold`. Else more than n are, and
    `threshold` is the n-th largest key.
  """
  count_at_least = _large_counter(parts[0]) if is_large else _small_counter(parts)

  def surplus(threshold):
    return tf.cast(count_at_least(threshold) - n, tf.float32)

  def unfinished(low, high, excess, lack):
    del lack
    return tf.logical_and(tf.not_equal(excess, 0.0), tf.not_equal(high - low, 1))

  def narrow(low, high, excess, lack):
    share = _clip(excess / (excess + lack), _MARGIN, 1.0 - _MARGIN)
    span = high - low
    step = tf.maximum(tf.cast(share * tf.cast(span, tf.float32), tf.int32), 1)
    # A span of 2**31 or more wraps around. It contains 0.
    middle = tf.where_v2(span < 0, 0, low + step)
    found = surplus(middle)
    enough = found >= 0.0
    return (
      tf.where_v2(enough, middle, low),
      tf.where_v2(enough, high, middle),
      tf.where_v2(enough, found, _FADING * excess),
      tf.where_v2(enough, _FADING * lack, -found),
    )

  # Most of the time 1/16 of the largest score is low enough.
  largest = tf.reduce_max(tf.stack([tf.reduce_max(part) for part in parts]))
  near = tf.maximum(largest, _NEAR - 1) - (_NEAR - 1)
  found = surplus(near)
  is_near = found >= 0.0
  size = tf.add_n([tf.size(part) for part in parts])
  low, _, excess, _ = tf.while_loop(
    unfinished,
    narrow,
    (
      tf.where_v2(is_near, near, _NOT_ELIGIBLE + 1),
      tf.where_v2(is_near, largest + 1, near),
      tf.where_v2(is_near, found, tf.cast(size - n, tf.float32)),
      tf.where_v2(is_near, tf.cast(n, tf.float32), -found),
    ),
    parallel_iterations=1,
  )
  return low, tf.equal(excess, 0.0)


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
  """See mask_math.top_k_mask; `n` is not negative."""
  if eligible is None:
    eligible = tf.fill(tf.shape(scores), True)
  select = _flat_top_k_mask(_n_parts(scores.shape.num_elements()))
  chosen = select(tf.reshape(tf.cast(scores, tf.float32), [-1]), n, tf.reshape(eligible, [-1]))
  return tf.reshape(chosen, tf.shape(scores))

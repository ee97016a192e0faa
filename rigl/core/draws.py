"""Random draws that are the same on every device and under XLA.

Random *integers* of a named generator are the same bits everywhere. Random
floats of TensorFlow are not: XLA turns bits into floats in another way. So
floats are made from integers here, by operations that round nowhere or once.
"""

from __future__ import annotations

import functools
import math
from typing import Callable

from rigl.compat import tf
from rigl.core.shared_graphs import shared_graph

# The default depends on the device.
GENERATOR = 'philox'

# The bytes of an int32 that are the lower ones of its halves.
_EVEN_BYTES = 0x00FF00FF
# Of 65536 times the sum of four bytes.
_SUM_STDDEV = 2**16 * math.sqrt(4 * (2**16 - 1) / 12)


def _bits(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """int32 of `shape`, uniform over all its values."""
  return tf.random.stateless_uniform(
      shape, seed, minval=None, maxval=None, dtype=tf.int32, alg=GENERATOR)


def uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """U[0, 1) in steps of 2 ** -24, float32 of `shape`.

  Args:
    shape: int32 vector.
    seed: int32 [2].
  """
  bits = tf.bitwise.right_shift(_bits(shape, seed), 7)
  bits = tf.bitwise.bitwise_and(bits, 2**24 - 1)
  return tf.cast(bits, tf.float32) * 2.**-24


def near_normal(shape: tf.Tensor, seed: tf.Tensor,
                stddev: float) -> tf.Tensor:
  """Close to N(0, stddev), float32 of `shape`.

  Sums of four uniform variables, whose density is within 0.02 of the normal
  one and which end at 3.5 standard deviations. Logarithms and cosines, which a
  normal draw takes, differ in the last bit between devices.

  Args:
    shape: int32 vector.
    seed: int32 [2].
    stddev: standard deviation.
  """
  size = tf.reduce_prod(shape)
  sums = _sums_of_four()(size, seed)
  return tf.reshape(sums, shape) * (stddev / _SUM_STDDEV)


@functools.lru_cache(maxsize=None)
def _sums_of_four() -> Callable[..., tf.Tensor]:
  """A function (size, seed) -> float32 [size], each from four random bytes.

  They have mean 0. The draw is most of the work, so its bytes are used twice:
  with p and q the sums of two bytes each, p + q and p - q are uncorrelated.
  """

  @shared_graph((tf.int32, 0), (tf.int32, 1))
  def sums_of_four(size, seed):
    bits = _bits([(size + 1) // 2], seed)
    # q * 2 ** 16 + p, of mean 0 each.
    sums = tf.bitwise.bitwise_and(bits, _EVEN_BYTES) + tf.bitwise.bitwise_and(
        tf.bitwise.right_shift(bits, 8), _EVEN_BYTES) - _EVEN_BYTES
    # (p + q) * 2 ** 16 + p and (p - q) * 2 ** 16 - p, for 2 ** 32 is 0 here.
    # The last p weighs nothing, but makes ties rare.
    draws = tf.concat([sums * (2**16 + 1), sums * (2**16 - 1)], axis=0)
    return tf.cast(draws[:size], tf.float32)

  return sums_of_four

"""Random draws that are the same on every device and under XLA.

Random *integers* of a named generator are the same bits everywhere. Random
floats of TensorFlow are not: XLA turns bits into floats in another way. So
floats are made from integers here, by operations that round nowhere or once.
"""

from __future__ import annotations

import math

from rigl.compat import tf
from rigl.core.shared_graphs import shared_graph

# The default depends on the device.
GENERATOR = 'philox'


def _bits(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """int32 of `shape`, uniform over all its values."""
  return tf.random.stateless_uniform(
      shape, seed, minval=None, maxval=None, dtype=tf.int32, alg=GENERATOR)


def _field(bits: tf.Tensor, first: int, width: int) -> tf.Tensor:
  """`width` of the bits from the `first` lowest on, as a number >= 0."""
  if first:
    bits = tf.bitwise.right_shift(bits, first)
  return tf.bitwise.bitwise_and(bits, 2**width - 1)


def uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """U[0, 1) in steps of 2 ** -24, float32 of `shape`.

  Args:
    shape: int32 vector.
    seed: int32 [2].
  """
  bits = _field(_bits(shape, seed), 7, 24)
  return tf.cast(bits, tf.float32) * 2.**-24


def near_normal(shape: tf.Tensor, seed: tf.Tensor,
                stddev: float) -> tf.Tensor:
  """Close to N(0, stddev), float32 of `shape`.

  The sum of four uniform variables of 15 bits, whose density is within 0.02 of
  the normal one and which ends at 3.5 standard deviations. Logarithms and
  cosines, which a normal draw takes, differ in the last bit between devices.

  Args:
    shape: int32 vector.
    seed: int32 [2].
    stddev: standard deviation.
  """
  size = tf.reduce_prod(shape)
  scale = stddev / math.sqrt(4 * (2.**30 - 1) / 12)
  return tf.reshape(_sum_of_four(size, seed), shape) * scale


@shared_graph((tf.int32, 0), (tf.int32, 1))
def _sum_of_four(size: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """float32 [size], sums of four 15-bit integers less their mean."""
  first, second = tf.unstack(_bits(tf.stack([2, size]), seed), 2)
  total = (_field(first, 0, 15) + _field(first, 15, 15)) + (
      _field(second, 0, 15) + _field(second, 15, 15))
  return tf.cast(total - 2 * (2**15 - 1), tf.float32)

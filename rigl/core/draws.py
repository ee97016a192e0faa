"""Random draws that are the same on every device and under XLA.

Random *integers* of a named generator are the same bits everywhere. Random
floats of TensorFlow are not: XLA turns bits into floats in another way. So
floats are made from integers here, by operations that round nowhere or once.
"""

from __future__ import annotations

import math

from rigl.compat import tf

# The default depends on the device.
GENERATOR = 'philox'


def _bits(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Uniform int32 over all its values, as non-negative 31-bit numbers."""
  bits = tf.random.stateless_uniform(
      shape, seed, minval=None, maxval=None, dtype=tf.int32, alg=GENERATOR)
  return tf.bitwise.bitwise_and(bits, 2**31 - 1)


def uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """U[0, 1) in steps of 2 ** -24, float32 of `shape`.

  Args:
    shape: int32 vector.
    seed: int32 [2].
  """
  bits = tf.bitwise.right_shift(_bits(shape, seed), 31 - 24)
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
  half = 2**15 - 1
  bits = _bits(tf.concat([[2], shape], 0), seed)
  total = tf.reduce_sum(
      tf.bitwise.bitwise_and(bits, half) +
      tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 15), half), 0)
  scale = stddev / math.sqrt(4 * (2.**30 - 1) / 12)
  return tf.cast(total - 2 * half, tf.float32) * scale

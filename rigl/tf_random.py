"""Random numbers of TensorFlow that are the same on every device.

For data, initial weights and dropout. Random *integers* of a named generator
are the same on every device. Random floats are not: XLA turns bits into floats
in its own way. So this module makes floats from integers, by operations that
round at most once.
"""

from __future__ import annotations

from rigl.compat import tf

# TensorFlow's default generator depends on the device.
GENERATOR = 'philox'


def uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """U[0, 1) in steps of 2 ** -24, float32 of `shape`; the seed is int32 [2]."""
  # Without limits: uniform over all values of int32.
  bits = tf.random.stateless_uniform(
    shape, seed, minval=None, maxval=None, dtype=tf.int32, alg=GENERATOR
  )
  bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 7), 2**24 - 1)
  return tf.cast(bits, tf.float32) * 2.0**-24

"""Scores by which connections are dropped, grown or kept, one line each.

All are float32, because a bfloat16 score ties too often to rank connections.
"""

from __future__ import annotations

from rigl.compat import tf
from rigl.core import draws


def magnitude(mask: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
  """|mask * weights| [...]: what every method here drops by, lowest first.

  Args:
    mask: 0/1 [...].
    weights: [...].
  """
  return tf.abs(tf.cast(mask, tf.float32) * tf.cast(weights, tf.float32))


def random_uniform(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """U[0, 1) of `shape`: SET grows at random (Nature Comm. 2018, 9:2383).

  Args:
    shape: shape of the score, int32 [rank].
    seed: int32 [2].
  """
  return draws.uniform(shape, seed)


def gradient_magnitude(dense_gradient: tf.Tensor) -> tf.Tensor:
  """|dense gradient| [...]: RigL grows by it (arXiv 1911.11134); SNFS by that
  of its moving average (arXiv 1907.04840).

  Args:
    dense_gradient: gradient of the loss with respect to mask * weights, [...].
  """
  return tf.abs(tf.cast(dense_gradient, tf.float32))


def connection_sensitivity(weights: tf.Tensor,
                           dense_gradient: tf.Tensor) -> tf.Tensor:
  """|gradient * weights| [...]: SNIP's saliency (arXiv 1810.02340), and not
  |gradient|, a mistake that cost the RigL authors accuracy (appendix M).

  Args:
    weights: [...].
    dense_gradient: gradient of the loss with respect to mask * weights, [...].
  """
  return tf.abs(
      tf.cast(dense_gradient, tf.float32) * tf.cast(weights, tf.float32))

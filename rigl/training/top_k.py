"""Top-k accuracy."""

from __future__ import annotations

from rigl.compat import tf


def in_top_k(labels: tf.Tensor, logits: tf.Tensor, k: int) -> tf.Tensor:
  """1 where the label is among the k largest logits, else 0.

  Of equal logits, the one of the lower class counts as larger, so a network
  with equal logits is right by chance only. `tf.math.in_top_k` would count it
  as right on every example.

  Args:
    labels: int32 [batch]; labels outside the classes, such as -1, are never
      right.
    logits: [batch, classes].
    k: number of logits; may exceed the number of classes.

  Returns:
    float32 [batch].
  """
  best = tf.math.top_k(logits, min(k, logits.shape.as_list()[1])).indices
  return tf.cast(tf.reduce_any(tf.equal(best, labels[:, None]), axis=1), tf.float32)

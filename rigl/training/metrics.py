"""What the scripts measure of a batch."""

from __future__ import annotations

from rigl.compat import tf


def in_top_k(labels: tf.Tensor, logits: tf.Tensor, k: int) -> tf.Tensor:
  """1 where the label is among the k largest logits, else 0.

  Of equal logits that of the lower class counts as the larger one, so that a
  network whose logits are all equal is right by chance only.
  `tf.math.in_top_k` would call it right on every example.

  Args:
    labels: int32 [batch]; one that is no class, such as -1, is never right.
    logits: [batch, classes].
    k: how many; all classes if it is more than there are.

  Returns:
    float32 [batch].
  """
  best = tf.math.top_k(logits, min(k, logits.shape.as_list()[1])).indices
  return tf.cast(
      tf.reduce_any(tf.equal(best, labels[:, None]), axis=1), tf.float32)

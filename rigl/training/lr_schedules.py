"""Learning rates of the scripts, as functions of the global step."""

from __future__ import annotations

from typing import Sequence

from rigl.compat import tf


def step_decay(global_step: tf.Tensor, initial: float,
               boundaries: Sequence[int], factor: float) -> tf.Tensor:
  """`initial`, divided by `factor` after each boundary.

  Args:
    global_step: integer scalar.
    initial: learning rate up to and including the first boundary.
    boundaries: increasing steps; a boundary step itself has the rate before it.
    factor: divisor at each boundary.

  Returns:
    float32 scalar.
  """
  values = [initial / factor**i for i in range(len(boundaries) + 1)]
  return tf.train.piecewise_constant(
      tf.cast(global_step, tf.int64),
      [tf.constant(b, tf.int64) for b in boundaries], values)

"""Ends a training at a step whose loss or gradients are NaN or infinite.

`factory.make_train_op` gives a `NotFiniteHook` the loss and the gradients, and
the hook checks them after each step, before a checkpoint of it is saved: so the
latest checkpoint is the last good one.

The gradient of masked weights is mask * (dense gradient), and 0 * NaN is NaN:
if its norm is finite, so are the scores that growth goes by.
"""

from __future__ import annotations

import math
from typing import Any

from rigl import replicas
from rigl.compat import tf
from rigl.optimizer_wrapper import GradsAndVars
from rigl.training import checkpoints


class NotFiniteHook(tf.train.SessionRunHook):
  """Stops training at a step that is not finite.

  Attributes:
    observed: float32 [2], loss and norm of the gradients. All replicas compute
      it at each step, since they wait for one another there.
  """

  def __init__(self, model_dir: str):
    """Names the last checkpoint of a folder; '' if none are kept."""
    self._model_dir = model_dir

  def observe(self, loss: tf.Tensor, gradients: GradsAndVars) -> None:
    """Sets the step that the hook checks, by its loss, a scalar, and all gradients.

    Squares are summed in float32, so a norm above 1.8e19 counts as infinite.
    """
    halves = [
      tf.nn.l2_loss(tf.cast(g.values if isinstance(g, tf.IndexedSlices) else g, tf.float32))
      for g, _ in gradients
      if g is not None
    ]
    norm = tf.sqrt(2.0 * tf.add_n(halves)) if halves else tf.zeros([])
    # The mean, so that all workers stop at the same step.
    self.observed = replicas.mean(tf.stack([tf.cast(loss, tf.float32), norm]))

  def begin(self) -> None:
    self._global_step = tf.train.get_global_step()

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    return tf.train.SessionRunArgs(self.observed)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    loss, norm = run_values.results
    if math.isfinite(loss) and math.isfinite(norm):
      return
    step = run_context.session.run(self._global_step)
    latest = self._model_dir and f' {checkpoints.describe_latest(self._model_dir)}'
    raise FloatingPointError(
      f'Training stops at step {step}: NaN or infinity: the loss is {loss:g}, the norm of the '
      f'gradients {norm:g}.{latest} Lower the learning rate.'
    )

"""What happens on a step whose loss or gradients are NaN or infinite.

`factory.make_train_op` shows a `NotFiniteHook` the loss and the gradients, and
the hook looks at them after each step:

* stop: training ends before anything of the step is saved, so the latest
  checkpoint is the last good one.
* skip: the step trains nothing, is reported, and counts as a step.

The gradient of masked weights is mask * (dense gradient), and 0 * NaN is NaN:
so a norm that is finite says that the scores connections grow by are too.
"""

from __future__ import annotations

import math
from typing import Any

from absl import logging

from rigl import replicas
from rigl.compat import tf
from rigl.optimizer_wrapper import GradsAndVars
from rigl.training import checkpoints

# Steps in a row after which skipping is no help: the weights are spoilt.
MAX_SKIPPED_IN_A_ROW = 100

_N_REPORTED_ONE_BY_ONE = 10


def only_if(condition: tf.Tensor, update: tf.Operation) -> tf.Operation:
  """An op that does what `update` does if `condition` is true, else nothing.

  Args:
    condition: bool scalar.
    update: subtracts a tensor from a variable, as the updates of the moving
      averages of batch norm do.

  Raises:
    ValueError: `update` does something else.
  """
  if update.type != 'AssignSubVariableOp':
    raise ValueError(f'on_nan=skip cannot leave out {update.name}, which is a '
                     f'{update.type}.')
  variable, step = update.inputs
  step = tf.where_v2(condition, step, tf.zeros_like(step))
  return tf.raw_ops.AssignSubVariableOp(resource=variable, value=step)


class NotFiniteHook(tf.train.SessionRunHook):
  """Stops training at a step that is not finite, or counts what is skipped.

  Attributes:
    on_nan: one of config.ON_NAN.
    n_skipped: steps that were skipped.
    watched: float32 [3], what it looks at. All replicas compute it at each
      step, since they wait for one another there.
  """

  def __init__(self, on_nan: str, model_dir: str):
    """See the module.

    Args:
      on_nan: one of config.ON_NAN.
      model_dir: folder of the checkpoints, to name the last one; '' if none
        are kept.
    """
    self.on_nan = on_nan
    self._model_dir = model_dir
    self._in_a_row = 0
    self.n_skipped = 0

  def watch(self, loss: tf.Tensor, gradients: GradsAndVars,
            may_skip: tf.Tensor) -> tf.Tensor:
    """Makes a step the one to look at.

    Args:
      loss: scalar.
      gradients: (gradient, variable) of all trained variables. Squares are
        summed in float32, so a norm above 1.8e19 counts as infinite.
      may_skip: bool scalar, whether training can do without this step.

    Returns:
      bool scalar: whether loss and gradients are finite.
    """
    halves = [
        tf.nn.l2_loss(tf.cast(
            g.values if isinstance(g, tf.IndexedSlices) else g, tf.float32))
        for g, _ in gradients if g is not None
    ]
    norm = tf.sqrt(2. * tf.add_n(halves)) if halves else tf.zeros([])
    loss = tf.cast(loss, tf.float32)
    # The mean, so that all workers stop at the same step.
    self.watched = replicas.mean(
        tf.stack([loss, norm, tf.cast(may_skip, tf.float32)]))
    return tf.logical_and(tf.math.is_finite(loss), tf.math.is_finite(norm))

  def begin(self) -> None:
    self._global_step = tf.train.get_global_step()

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    return tf.train.SessionRunArgs(self.watched)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    loss, norm, may_skip = run_values.results
    if math.isfinite(loss) and math.isfinite(norm):
      self._in_a_row = 0
      return
    step = run_context.session.run(self._global_step)
    self._handle(int(step), float(loss), float(norm), bool(may_skip))

  def _handle(self, step: int, loss: float, norm: float,
              may_skip: bool) -> None:
    latest = self._model_dir and (
        f' {checkpoints.describe_latest(self._model_dir)}')
    found = (f'step {step}: NaN or infinity: the loss is {loss:g}, the norm of '
             f'the gradients {norm:g}')
    if self.on_nan == 'stop':
      raise FloatingPointError(
          f'Training stops at {found}.{latest} Lower the learning rate, or '
          'leave out such steps by --on_nan=skip.')
    if not may_skip:
      raise FloatingPointError(
          f'Training stops at {found}. This step sets the masks and cannot be '
          'skipped.')
    self.n_skipped += 1
    self._in_a_row += 1
    if self._in_a_row > MAX_SKIPPED_IN_A_ROW:
      raise FloatingPointError(
          f'Training stops at {found}, as at the {MAX_SKIPPED_IN_A_ROW} steps '
          f'before: the weights must be spoilt.{latest}')
    if self.n_skipped <= _N_REPORTED_ONE_BY_ONE:
      logging.warning('Skipped %s (%d skipped so far).', found, self.n_skipped)

  def end(self, session: Any) -> None:
    del session
    if self.n_skipped:
      print(f'Skipped {self.n_skipped} steps whose loss or gradients were NaN '
            'or infinite.', flush=True)

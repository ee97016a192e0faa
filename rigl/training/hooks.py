"""Session hooks that every training script wants."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Mapping, Optional

from absl import logging

from rigl.compat import tf
from rigl.training import checkpoints, gin_configs


class CheckpointFitsHook(tf.train.SessionRunHook):
  """Refuses to start when the folder holds another training's checkpoint."""

  def __init__(self, model_dir: str, may_write: bool = True):
    """Checks the latest checkpoint of `model_dir` once the graph stands."""
    self._arguments = {'model_dir': model_dir, 'may_write': may_write}

  def begin(self) -> None:
    checkpoints.check_resumable(
        variables=tf.global_variables(), **self._arguments)


class WriteConfigHook(tf.train.SessionRunHook):
  """Writes config.gin once the training is known to fit its folder."""

  def __init__(self, model_dir: str, *configs: Any):
    """Writes `configs`, not stretched yet: who reads them stretches them."""
    self._arguments = (model_dir, *configs)

  def begin(self) -> None:
    gin_configs.write(*self._arguments)


class StopOnSignalHook(tf.train.SessionRunHook):
  """Ends training after the running step on SIGINT (Ctrl-C) or SIGTERM.

  The session then closes as at the end of training, with a checkpoint, and the
  same command goes on from there. A second signal acts as it always did.

  Attributes:
    was_stopped: whether a signal came.
  """

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self) -> None:
    self.was_stopped = False
    self._former: dict[int, Any] = {}

  def begin(self) -> None:
    for number in self._SIGNALS:
      try:
        self._former[number] = signal.signal(number, self._on_signal)
      except ValueError:  # Not in the main thread: leave signals alone.
        return

  def _on_signal(self, number: int, frame: Any) -> None:
    del frame
    self.was_stopped = True
    self.restore()
    logging.warning('Signal %d: stopping after this step.', number)

  def restore(self) -> None:
    """Gives signals back, which a training that fails does not do."""
    for number, handler in self._former.items():
      signal.signal(number, handler)
    self._former = {}

  def after_run(self, run_context: Any, run_values: Any) -> None:
    del run_values
    if self.was_stopped:
      run_context.request_stop()

  def end(self, session: Any) -> None:
    del session
    self.restore()


class SaverHook(tf.train.CheckpointSaverHook):
  """Saves what is worth it, and also in the end if the step stands still.

  RigL and SNIP set masks instead of making a step, so the checkpoint of the
  last step may be older than the masks.
  """

  def begin(self) -> None:
    super().begin()
    self._is_finite = {
        v.op.name: tf.reduce_all(tf.math.is_finite(v))
        for v in tf.global_variables() if v.dtype.is_floating}

  def _save(self, session: Any, step: int) -> Any:
    folder = os.path.dirname(self._save_path)
    spoilt = [name for name, is_finite in session.run(self._is_finite).items()
              if not is_finite]
    if spoilt:
      raise FloatingPointError(
          f'Training stops at step {step}: NaN or infinity in '
          f'{", ".join(spoilt[:3])}{" and others" if spoilt[3:] else ""}. '
          f'{checkpoints.describe_latest(folder)}')
    try:
      return super()._save(session, step)
    except (tf.errors.OpError, OSError) as error:
      # Half a checkpoint, which takes the space of another attempt.
      temporary = f'{self._save_path}-{step}_temp'
      if tf.io.gfile.isdir(temporary):
        tf.io.gfile.rmtree(temporary)
      raise OSError(
          f'Cannot write the checkpoint {self._save_path}-{step}: '
          f'{checkpoints.reason(error)}. '
          f'{checkpoints.describe_latest(folder)}') from error

  def end(self, session: Any) -> None:
    step = session.run(self._global_step_tensor)
    if step == self._timer.last_triggered_step():
      self._save(session, step)
    super().end(session)


def format_seconds(seconds: float) -> str:
  """'45s', '3m20s' or '2h05m'.

  Args:
    seconds: a duration.
  """
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s' if minutes else f'{seconds}s'


class StepClock:
  """Measures steps per second, from one report to the next.

  The first step of a session optimizes the graph, which may take longer than
  all others together: the clock starts at its end.
  """

  def __init__(self) -> None:
    """To be made with the session."""
    self._begin = time.monotonic()
    self._n_steps = -1

  def count(self) -> None:
    """Counts a step that has just ended."""
    self._n_steps += 1
    if self._n_steps == 0:
      self._first_begin, self._begin = self._begin, time.monotonic()

  def steps_per_second(self) -> float:
    """The speed since the last call."""
    now = time.monotonic()
    # The first step alone is all there is to go by.
    n_steps, begin = (self._n_steps, self._begin) if self._n_steps else (
        1, self._first_begin)
    self._n_steps, self._begin = 0, now
    return n_steps / max(now - begin, 1e-9)


class ProgressHook(tf.train.SessionRunHook):
  """Prints the step, some scalars, the speed and the time left."""

  def __init__(self, scalars: Mapping[str, tf.Tensor], max_steps: int,
               every_n_steps: int):
    """Prints `scalars` every so many training iterations, until `max_steps`."""
    self._scalars = dict(scalars)
    self._max_steps = max_steps
    self._every_n_steps = every_n_steps

  def begin(self) -> None:
    self._global_step = tf.train.get_global_step()
    self._n_runs = 0

  def after_create_session(self, session: Any, coord: Any) -> None:
    del session, coord
    self._clock = StepClock()

  def before_run(self, run_context: Any) -> Optional[tf.train.SessionRunArgs]:
    del run_context
    self._n_runs += 1
    if self._n_runs % self._every_n_steps:
      return None
    # With the step itself: a run of their own would take another batch.
    return tf.train.SessionRunArgs(self._scalars)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    self._clock.count()
    if self._n_runs % self._every_n_steps:
      return
    step = run_context.session.run(self._global_step)
    speed = self._clock.steps_per_second()
    report = '  '.join(
        f'{name} {value:.4f}' for name, value in run_values.results.items())
    left = format_seconds((self._max_steps - step) / speed)
    print(f'step {step}/{self._max_steps}  {report}  {speed:.1f} steps/s  '
          f'{left} left', flush=True)

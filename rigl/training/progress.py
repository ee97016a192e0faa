"""Prints and records the progress of a training."""

from __future__ import annotations

import time
import types
from typing import Any, Collection, Mapping, Optional

from rigl.compat import tf
from rigl.core import connections
from rigl.training import history, iterations, mask_watch, summaries


def format_seconds(seconds: float) -> str:
  """'45s', '3m20s' or '2h05m'."""
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}h{minutes:02d}m'
  return f'{minutes}m{seconds:02d}s' if minutes else f'{seconds}s'


class StepClock:
  """Measures steps per second, from one report to the next.

  In the first step of a session TensorFlow optimizes the graph, which may take
  longer than all later steps, so the clock starts at its end.
  """

  def __init__(self) -> None:
    """Create it together with the session."""
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
    # With only the first step, measure that one.
    n_steps, begin = (self._n_steps, self._begin) if self._n_steps else (1, self._first_begin)
    self._n_steps, self._begin = 0, now
    return n_steps / max(now - begin, 1e-9)


class ProgressHook(tf.train.SessionRunHook):
  """Prints the step, some scalars, the sparsity, the speed and the time left.

  At multiples of a number of steps, after the first step of a session, after
  the last step, and at least once a minute. The reports at the multiples and at
  the last step also go to metrics.jsonl and TensorBoard.
  """

  _MAX_SECONDS = 60.0

  def __init__(
    self,
    scalars: Mapping[str, tf.Tensor],
    max_steps: int,
    every_n_steps: int,
    folder: str,
    recorded: Mapping[str, Optional[tf.Tensor]] = types.MappingProxyType({}),
    watch: Optional[mask_watch.MaskWatch] = None,
    shown: Optional[Collection[str]] = None,
  ):
    """Prints `scalars` at the multiples of `every_n_steps`.

    Args:
      scalars: {name: scalar}.
      max_steps: the global step at which training ends.
      every_n_steps: global steps.
      folder: folder of the training.
      recorded: {name: scalar, or None for 0} to record but not print.
      watch: watches the masks; None without masks.
      shown: names of the scalars for TensorBoard, for scripts that write the
        others themselves; all if None.
    """
    self._scalars = dict(scalars)
    self._max_steps = max_steps
    self._every_n_steps = every_n_steps
    self._folder = folder
    self._recorded = {name: value for name, value in recorded.items() if value is not None}
    self._zeros = dict.fromkeys(set(recorded) - set(self._recorded), 0.0)
    self._watch = watch or mask_watch.MaskWatch([])
    self._shown = [*scalars, *recorded] if shown is None else shown
    self._history = history.History(folder)

  def begin(self) -> None:
    self._global_step = tf.train.get_global_step()
    self._watch.begin()
    self._fetches = [self._scalars, self._recorded, iterations.advanced(), self._watch.updates]

  def after_create_session(self, session: Any, coord: Any) -> None:
    del coord
    self._step = int(session.run(self._global_step))
    self._watch.start(session, self._step == 0, self._history.resume(self._step))
    summaries.begin(self._folder, self._step)
    self._clock = StepClock()
    self._reported_at: Optional[float] = None

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    # Fetched with the step: a separate run would take another batch.
    return tf.train.SessionRunArgs(self._fetches)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    self._clock.count()
    scalars, recorded, advanced, updates = run_values.results
    self._watch.after_run(run_context.session, updates, all(advanced))
    if not all(advanced):
      return
    self._step += 1
    is_due = self._step == self._max_steps or self._step % self._every_n_steps == 0
    if is_due:
      sparsity = self._record(run_context.session, {**scalars, **recorded})
    elif self._reported_at is None or time.monotonic() >= self._reported_at + self._MAX_SECONDS:
      sparsity = connections.sparsity(run_context.session.run(self._watch.masks))
    else:
      return
    self._report({**scalars, **({'sparsity': sparsity} if self._watch.masks else {})})

  def _record(self, session: Any, values: Mapping[str, float]) -> float:
    """Writes a row to metrics.jsonl and TensorBoard; returns the sparsity."""
    masks, pictures = session.run([self._watch.masks, self._watch.pictures])
    values = {**values, **self._zeros}
    of_masks = self._watch.row(masks)
    self._history.add('train', step=self._step, **values, **of_masks)
    summaries.write(
      self._folder,
      self._step,
      {**{name: values[name] for name in self._shown}, **mask_watch.tags(of_masks, masks)},
      pictures,
    )
    return of_masks['sparsity']

  def save_state(self) -> None:
    """Saves the state of the next row. Call it with each checkpoint."""
    self._history.save_state(self._step, self._watch.state())

  def _report(self, values: Mapping[str, float]) -> None:
    parts = [
      f'step {self._step}/{self._max_steps}',
      *(f'{name} {value:.4f}' for name, value in values.items()),
    ]
    # Not after the first step alone, which is slower than later ones.
    if self._reported_at is not None:
      speed = self._clock.steps_per_second()
      left = format_seconds((self._max_steps - self._step) / speed)
      parts += [f'{speed:.1f} steps/s', f'{left} left']
    self._reported_at = time.monotonic()
    print('  '.join(parts), flush=True)

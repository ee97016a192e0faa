"""Ends training in order when a signal arrives."""

from __future__ import annotations

import signal
from typing import Any, Optional

from absl import logging

from rigl.compat import tf
from rigl.training import iterations


class StoppedError(Exception):
  """A signal of this number has stopped training; the message says what was saved."""

  def __init__(self, number: int, message: str):
    super().__init__(message)
    self.number = number


class StopOnSignalHook(tf.train.SessionRunHook):
  """Ends training after the running step on SIGINT (Ctrl-C) or SIGTERM.

  If the running iteration updates masks instead of making a step, one step
  follows. Then the session closes as at the end of training, with a checkpoint,
  and the same command resumes from it. A second signal has its usual effect.

  Attributes:
    stopped_by: the received signal; None before.
  """

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self) -> None:
    self.stopped_by: Optional[signal.Signals] = None
    self._former: dict[int, Any] = {}

  def begin(self) -> None:
    self._advanced = iterations.advanced()
    for number in self._SIGNALS:
      try:
        self._former[number] = signal.signal(number, self._on_signal)
      except ValueError:  # Only the main thread can handle signals.
        return

  def _on_signal(self, number: int, frame: Any) -> None:
    del frame
    self.stopped_by = signal.Signals(number)
    self.restore()
    logging.warning('%s: stopping after this step; again to stop at once.', self.stopped_by.name)

  def restore(self) -> None:
    """Restores the former signal handlers, also after a failure."""
    for number, handler in self._former.items():
      signal.signal(number, handler)
    self._former = {}

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    return tf.train.SessionRunArgs(self._advanced)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    if self.stopped_by and all(run_values.results):
      run_context.request_stop()

  def end(self, session: Any) -> None:
    del session
    self.restore()

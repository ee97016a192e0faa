"""A training script that kills itself at a given run of the session.

The environment variable SCRIPT names the module. A file `kill.json` in the
current folder holds {"run": number of the run, "delay": seconds after its
begin, or null for its end}.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import signal
import threading
import time

from rigl.training import signals

_script = importlib.import_module(os.environ['SCRIPT'])
SCHEMA = _script.SCHEMA


def _kill(delay: float) -> None:
  time.sleep(delay)
  os.kill(os.getpid(), signal.SIGKILL)


def _install(number: int, delay: float | None) -> None:
  n_begun = 0

  class Killer(signals.StopOnSignalHook):
    """Goes first, so nothing of the step is saved or written yet."""

    def before_run(self, run_context):
      nonlocal n_begun
      n_begun += 1
      if n_begun == number and delay is not None:
        threading.Thread(target=_kill, args=[delay]).start()
      return super().before_run(run_context)

    def after_run(self, run_context, run_values):
      if n_begun == number:
        _kill(0.0 if delay is None else 60.0)
      super().after_run(run_context, run_values)

  signals.StopOnSignalHook = Killer


def main(argv: list[str]) -> None:
  path = pathlib.Path('kill.json')
  if path.exists():
    when = json.loads(path.read_text())
    _install(when['run'], when['delay'])
  _script.main(argv)

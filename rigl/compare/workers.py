"""Trains runs in forked processes, a few at a time.

TensorFlow and the script are loaded once, before the fork, so runs start fast.
Each process holds a lock on its run. If it outlives its parent, the next
comparison in the same folder waits for it.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
import sys
import time
import traceback
from typing import Any, Callable, Iterator, Sequence

from absl import flags

from rigl.compare.plan import Run
from rigl.training import script, signals, tpu_estimator

_OUTPUT = 'output.txt'
_SECONDS_BETWEEN_LOOKS = 0.05


def load(runs: Sequence[Run]) -> Any:
  """The module of the script of the runs, once it has checked the flags of each.

  Raises:
    ValueError: a flag of a run is wrong; names it.
  """
  module = importlib.import_module(runs[0].script.module)
  for run in runs:
    try:
      rest = flags.FLAGS([run.script.module, *run.argv])[1:]
      if rest:
        raise ValueError(f'unexpected arguments {rest}: flags begin with --')
      module.experiment_from_flags()
    except (flags.Error, ValueError) as error:
      raise ValueError(f'{run}: {error}') from error
    finally:
      flags.FLAGS.unparse_flags()
  # Loads TPUEstimator before the fork, if TensorFlow has it.
  tpu_estimator.is_available()
  return module


def train(
  module: Any, runs: Sequence[Run], n_jobs: int, on_end: Callable[[Run, str], None]
) -> None:
  """Trains all runs by the module from `load`, `n_jobs` at a time.

  `on_end` is called with each run when it ends and, if it failed, the last line
  of its log, else ''.

  Raises:
    signals.StoppedError: SIGINT or SIGTERM was received; all runs have stopped,
      with checkpoints.
  """
  waiting = list(reversed(runs))
  running: dict[int, Run] = {}
  received: list[int] = []
  n_told = 0
  former = {
    number: signal.signal(number, lambda number, _: received.append(number))
    for number in (signal.SIGINT, signal.SIGTERM)
  }
  try:
    while running or (waiting and not received):
      while waiting and len(running) < n_jobs and not received:
        run = waiting.pop()
        running[_fork(module, run, n_jobs)] = run
      for pid, code in _ended(list(running)):
        run = running.pop(pid)
        if code == 0 or not received:
          on_end(run, '' if code == 0 else _last_line(run, code))
      # The first signal makes runs save and end, a second end at once.
      if len(received) > n_told:
        n_told = len(received)
        for pid in running:
          os.kill(pid, signal.SIGTERM)
      time.sleep(_SECONDS_BETWEEN_LOOKS)
  finally:
    for number, handler in former.items():
      signal.signal(number, handler)
  if received:
    raise signals.StoppedError(received[0], 'Stopped; the same command goes on.')


def _ended(pids: Sequence[int]) -> Iterator[tuple[int, int]]:
  """(process, exit code) of each process that has ended."""
  for pid in pids:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
      yield pid, os.waitstatus_to_exitcode(status)


def _last_line(run: Run, code: int) -> str:
  lines = (run.folder / _OUTPUT).read_text(errors='replace').splitlines()
  line = next(filter(None, map(str.strip, reversed(lines))), '')
  return line or f'ended with exit code {code}'


def _fork(module: Any, run: Run, n_jobs: int) -> int:
  """Starts a run; returns its process id."""
  run.folder.mkdir(parents=True, exist_ok=True)
  sys.stdout.flush()
  sys.stderr.flush()
  pid = os.fork()
  if not pid:
    code = 1
    try:
      code = _train_here(module, run, n_jobs)
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)
  return pid


def _train_here(module: Any, run: Run, n_jobs: int) -> int:
  """Runs the script in this process; returns its exit code."""
  # Ctrl-C goes to the parent only, which stops the runs.
  os.setsid()
  signal.signal(signal.SIGINT, signal.default_int_handler)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  output = os.open(run.folder / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  for descriptor in (1, 2):
    os.dup2(output, descriptor)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  fcntl.flock(output, fcntl.LOCK_EX)
  if run.is_finished:
    return 0
  n_threads = max(1, len(os.sched_getaffinity(0)) // n_jobs)
  for name in ('TF_NUM_INTRAOP_THREADS', 'TF_NUM_INTEROP_THREADS'):
    os.environ.setdefault(name, str(n_threads))
  sys.argv = [run.script.module, *run.argv]
  code: Any = 0
  try:
    script.run(module.main, module.SCHEMA)
  except SystemExit as stop:
    code = stop.code
  if isinstance(code, str):
    print(code, file=sys.stderr)
    return 1
  if not code:
    run.note_finished()
  return code or 0

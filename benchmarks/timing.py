"""What the benchmarks share: times taken in turns, processes of their own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any, Callable, Mapping

import numpy as np


def medians_in_turns(measures: Mapping[str, Callable[[], float]],
                     repeats: int) -> dict[str, float]:
  """Median of each measure, after one that warms up.

  They take turns, so that what disturbs the machine disturbs all of them.

  Args:
    measures: {name: what gives one value, such as seconds}.
    repeats: values of each.
  """
  for measure in measures.values():
    measure()
  values: dict[str, list[float]] = {name: [] for name in measures}
  for _ in range(repeats):
    for name, measure in measures.items():
      values[name].append(measure())
  return {name: float(np.median(found)) for name, found in values.items()}


def seconds_of(function: Callable[[], Any]) -> float:
  """How long a call takes."""
  begin = time.perf_counter()
  function()
  return time.perf_counter() - begin


def median_seconds(function: Callable[[], Any], n: int,
                   counts: Callable[[], bool] = lambda: True) -> float:
  """Median of n calls that count, after one that warms up.

  Args:
    function: what is timed.
    n: how many calls.
    counts: asked after each call, whether it is one of them.
  """
  seconds: list[float] = []
  while len(seconds) < n + 1:
    taken = seconds_of(function)
    if counts():
      seconds.append(taken)
  return float(np.median(seconds[1:]))


def median_step(session: Any, train_op: Any, global_step: Any, n: int,
                method: str, moves_masks: bool) -> float:
  """Median seconds of training steps.

  Args:
    session: session of the graph.
    train_op: one step.
    global_step: its variable.
    n: how many steps are timed.
    method: RigL takes turns: of its steps only those that leave the global
      step where it is are updates of the masks.
    moves_masks: which of both are timed.
  """
  last = session.run(global_step)

  def counts() -> bool:
    nonlocal last
    before, last = last, session.run(global_step)
    return method != 'rigl' or (last == before) == moves_masks

  return median_seconds(lambda: session.run(train_op), n, counts)


def peak_megabytes() -> float:
  """The most memory that this process has held."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_figures(**figures: float) -> None:
  """What `figures_of_process` reads, the last line of its process."""
  print(json.dumps(figures))


def figures_of_process(program: str, *arguments: str) -> dict[str, float]:
  """The figures that a program prints in a process, and memory, of its own.

  Args:
    program: its file.
    *arguments: arguments of its command line.

  Raises:
    RuntimeError: it fails; with what it says.
  """
  result = subprocess.run(
      [sys.executable, program, *arguments], capture_output=True, text=True,
      check=False)
  if result.returncode:
    raise RuntimeError(f'{program} {" ".join(arguments)} failed:\n'
                       f'{result.stderr}')
  return json.loads(result.stdout.splitlines()[-1])

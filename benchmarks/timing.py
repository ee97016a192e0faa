"""Shared by the benchmarks: alternating measurements, separate processes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any, Callable, Mapping

import numpy as np


def medians_in_turns(measures: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
  """Median of each measure, after a warm-up.

  The measures alternate, so that disturbances affect all of them.

  Args:
    measures: {name: function that returns a value, such as seconds}.
    repeats: number of values of each.
  """
  for measure in measures.values():
    measure()
  values: dict[str, list[float]] = {name: [] for name in measures}
  for _ in range(repeats):
    for name, measure in measures.items():
      values[name].append(measure())
  return {name: float(np.median(found)) for name, found in values.items()}


def seconds_of(function: Callable[[], Any]) -> float:
  """Seconds of a call."""
  begin = time.perf_counter()
  function()
  return time.perf_counter() - begin


def median_seconds(
  function: Callable[[], Any], n: int, counts: Callable[[], bool] = lambda: True
) -> float:
  """Median seconds of n calls, after a warm-up.

  Args:
    function: the function to time.
    n: number of calls.
    counts: called after each call; returns whether to include it.
  """
  seconds: list[float] = []
  while len(seconds) < n + 1:
    taken = seconds_of(function)
    if counts():
      seconds.append(taken)
  return float(np.median(seconds[1:]))


def median_step(
  session: Any, train_op: Any, global_step: Any, n: int, method: str, moves_masks: bool
) -> float:
  """Median seconds of training steps.

  Args:
    session: session of the graph.
    train_op: one step.
    global_step: its variable.
    n: number of steps to time.
    method: with RigL, the steps that do not advance the global step are mask
      updates.
    moves_masks: whether to time mask updates or ordinary steps.
  """
  last = session.run(global_step)

  def counts() -> bool:
    nonlocal last
    before, last = last, session.run(global_step)
    return method != 'rigl' or (last == before) == moves_masks

  return median_seconds(lambda: session.run(train_op), n, counts)


def peak_megabytes() -> float:
  """The peak memory of this process."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_figures(**figures: float) -> None:
  """Prints figures for `figures_of_process`, as the last line."""
  print(json.dumps(figures))


def figures_of_process(program: str, *arguments: str) -> dict[str, float]:
  """The figures that a program prints, run in a separate process.

  Args:
    program: path of the program.
    *arguments: arguments of its command line.

  Raises:
    RuntimeError: the program fails; with its output.
  """
  result = subprocess.run(
    [sys.executable, program, *arguments], capture_output=True, text=True, check=False
  )
  if result.returncode:
    raise RuntimeError(f'{program} {" ".join(arguments)} failed:\n{result.stderr}')
  return json.loads(result.stdout.splitlines()[-1])

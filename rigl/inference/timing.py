"""Comparable times on a busy machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

# Minimum seconds of a sample, so that the clock's resolution does not matter.
_MIN_SAMPLE = 2e-3
_MIN_ROUNDS = 7


def seconds_in_turn(
  functions: Mapping[Any, Callable[[], Any]], seconds: float, n_threads: int = 1
) -> dict[Any, list[float]]:
  """Seconds per call of each function, in many samples.

  The functions alternate, so that disturbances affect all of them. With a
  single thread, its CPU time is measured, which excludes time spent on other
  processes.

  Args:
    functions: {name: function to time}.
    seconds: approximate time to measure all functions together.
    n_threads: number of computing threads.

  Returns:
    {name: samples}; samples of the same index were taken together.
  """
  clock = time.perf_counter
  if n_threads == 1 and time.get_clock_info('thread_time').resolution < 1e-6:
    clock = time.thread_time
  repeats = {}
  for name, function in functions.items():
    function()
    repeats[name] = max(1, round(_MIN_SAMPLE / max(_sample(function, 3, clock), 1e-9)))
  samples: dict[Any, list[float]] = {name: [] for name in functions}
  end = time.perf_counter() + seconds
  n_rounds = 0
  while n_rounds < _MIN_ROUNDS or time.perf_counter() < end:
    for name, function in functions.items():
      # Warms the caches, which the previous function has filled.
      function()
      samples[name].append(_sample(function, repeats[name], clock))
    n_rounds += 1
  return samples


def _sample(function: Callable[[], Any], n: int, clock: Callable[[], float]) -> float:
  begin = clock()
  for _ in range(n):
    function()
  return (clock() - begin) / n

"""Times that can be compared, on a machine that does other things as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

# A sample takes at least so long, so that the clock does not matter.
_MIN_SAMPLE = 2e-3
_MIN_ROUNDS = 7


def seconds_in_turn(functions: Mapping[Any, Callable[[], Any]],
                    seconds: float, n_threads: int = 1
                    ) -> dict[Any, list[float]]:
  """Seconds of a call of each function, many times.

  They take turns, so that what disturbs the machine disturbs all of them. What
  one thread computes is timed by that thread's processor time, which goes on
  only while the machine does not do something else.

  Args:
    functions: {name: what is timed}.
    seconds: about how long to measure, all functions together.
    n_threads: how many threads compute.

  Returns:
    {name: the samples}, which belong together by their index.
  """
  clock = time.perf_counter
  if n_threads == 1 and time.get_clock_info('thread_time').resolution < 1e-6:
    clock = time.thread_time
  repeats = {}
  for name, function in functions.items():
    function()
    repeats[name] = max(
        1, round(_MIN_SAMPLE / max(_sample(function, 3, clock), 1e-9)))
  samples: dict[Any, list[float]] = {name: [] for name in functions}
  end = time.perf_counter() + seconds
  n_rounds = 0
  while n_rounds < _MIN_ROUNDS or time.perf_counter() < end:
    for name, function in functions.items():
      # What ran before has filled the caches with its own data.
      function()
      samples[name].append(_sample(function, repeats[name], clock))
    n_rounds += 1
  return samples


def _sample(function: Callable[[], Any], n: int,
            clock: Callable[[], float]) -> float:
  begin = clock()
  for _ in range(n):
    function()
  return (clock() - begin) / n

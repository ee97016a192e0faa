"""Times that can be compared, on a machine that does other things as well."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

# A sample takes at least so long, so that the clock does not matter.
_MIN_SAMPLE = 2e-3


def seconds_in_turn(functions: Mapping[Any, Callable[[], Any]],
                    seconds: float, min_rounds: int = 7
                    ) -> dict[Any, list[float]]:
  """Seconds of a call of each function, many times.

  They take turns, so that what disturbs the machine disturbs all of them.

  Args:
    functions: {name: what is timed}.
    seconds: about how long to measure, all functions together.
    min_rounds: how many samples of each there are at least.

  Returns:
    {name: the samples}, which belong together by their index.
  """
  repeats = {}
  for name, function in functions.items():
    function()
    repeats[name] = max(1, round(_MIN_SAMPLE / max(_sample(function, 3), 1e-9)))
  samples: dict[Any, list[float]] = {name: [] for name in functions}
  end = time.perf_counter() + seconds
  n_rounds = 0
  while n_rounds < min_rounds or time.perf_counter() < end:
    for name, function in functions.items():
      # What ran before has filled the caches with its own data.
      function()
      samples[name].append(_sample(function, repeats[name]))
    n_rounds += 1
  return samples


def _sample(function: Callable[[], Any], n: int) -> float:
  begin = time.perf_counter()
  for _ in range(n):
    function()
  return (time.perf_counter() - begin) / n

"""Combinations of parameters that tests try by default."""

from __future__ import annotations

import itertools
from typing import Any, Iterable

import pytest


def thinned(*axes: Iterable[Any]) -> list[Any]:
  """All combinations for `pytest.mark.parametrize`, most of them slow.

  With the shortest axis of n values, one combination in n is not slow: those
  whose indices add up to a multiple of n, as in a Latin square. They contain
  every value of two axes, and every pair of values of three axes.

  Args:
    *axes: the values of each parameter.
  """
  axes = [list(axis) for axis in axes]
  n = min(map(len, axes))
  return [
    pytest.param(
      *(axis[i] for axis, i in zip(axes, indices)),
      marks=[pytest.mark.slow] if sum(indices) % n else [],
    )
    for indices in itertools.product(*(range(len(axis)) for axis in axes))
  ]


def quick(values: Iterable[Any], *chosen: Any) -> list[Any]:
  """All values for `pytest.mark.parametrize`, slow but for the chosen ones."""
  return [
    value
    if value in chosen
    else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
    for value in values
  ]

"""Checks of single values, with the same error texts in every module."""

from __future__ import annotations

import math
import numbers
import os
from typing import Any, Iterable

from rigl.core import messages


def one_of(name: str, value: Any, options: Iterable[Any], aliases: Iterable[str] = ()) -> None:
  """Raises ValueError unless `value` is one of the options; may suggest one, or an alias."""
  options = tuple(options)
  if value not in options:
    words = [o for o in (*options, *aliases) if isinstance(o, str)]
    raise ValueError(
      f'{name} {value!r} is not one of {", ".join(map(str, options))}.'
      f'{messages.did_you_mean(messages.alike(str(value), words))}'
    )


def expanded_path(name: str, value: str) -> str:
  """Replaces ~ at the start of a path by the home folder.

  Raises:
    ValueError: the home folder is unknown; names the argument or flag.
  """
  path = os.path.expanduser(value)
  if path.startswith('~'):
    user = value.partition('/')[0]
    raise ValueError(
      f'{name}={value!r}: the home folder {user} is unknown '
      'here. Give the whole path'
      f'{", or set HOME" if user == "~" else ""}.'
    )
  return path


def integer(name: str, value: int) -> None:
  """Raises ValueError unless `value` is a whole number by its type."""
  if not isinstance(value, numbers.Integral):
    raise ValueError(f'{name} must be an integer, got {value!r}.')


def number(name: str, value: float) -> None:
  """Raises ValueError unless `value` is a real number by its type."""
  if not isinstance(value, numbers.Real):
    raise ValueError(f'{name} must be a number, got {value!r}.')


def positive(name: str, value: float) -> None:
  """Raises ValueError unless `value` is above 0 and finite."""
  number(name, value)
  # All comparisons here are written so that nan fails as well.
  if not value > 0:
    raise ValueError(f'{name} must be > 0, got {value}.')
  finite(name, value)


def not_negative(name: str, value: float) -> None:
  """Raises ValueError unless `value` is 0 or more, and finite."""
  number(name, value)
  if not value >= 0:
    raise ValueError(f'{name} must be >= 0, got {value}.')
  finite(name, value)


def finite(name: str, value: float) -> None:
  """Raises ValueError if `value` is infinite or nan."""
  number(name, value)
  if not math.isfinite(value):
    raise ValueError(f'{name} must be finite, got {value}.')


def in_unit_interval(name: str, value: float) -> None:
  """Raises ValueError unless `value` is in [0, 1]."""
  number(name, value)
  if not 0.0 <= value <= 1.0:
    raise ValueError(f'{name} must be in [0, 1], got {value}.')


def below_one(name: str, value: float) -> None:
  """Raises ValueError unless `value` is in [0, 1): a sparsity or a decay."""
  number(name, value)
  if not 0.0 <= value < 1.0:
    raise ValueError(f'{name} must be in [0, 1), got {value}.')

"""Aliases of methods and distributions."""

from __future__ import annotations

from typing import Iterable, Mapping

from rigl.core import checks, distributions, methods

# {name in papers and other programs: name here}.
METHODS = {'dense': 'baseline', 'snfs': 'momentum'}
# The ImageNet script of 2020 accepts ''.
DISTRIBUTIONS = {'uniform': 'random', '': 'random'}


def method(name: str) -> str:
  """Resolves a name or alias to a key of methods.METHODS.

  Raises:
    ValueError: there is no such method; suggests similar names.
  """
  return _resolved('training_method', name, methods.METHODS, METHODS)


def distribution(name: str) -> str:
  """Resolves a name or alias to one of distributions.DISTRIBUTIONS.

  Raises:
    ValueError: there is no such distribution; suggests similar names.
  """
  return _resolved('mask_init_method', name, distributions.DISTRIBUTIONS, DISTRIBUTIONS)


def _resolved(setting: str, value: str, options: Iterable[str], aliases: Mapping[str, str]) -> str:
  value = aliases.get(value, value)
  checks.one_of(setting, value, options, filter(None, aliases))
  return value

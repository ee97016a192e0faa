"""Other names of methods and distributions."""

from __future__ import annotations

from typing import Iterable, Mapping

from rigl.core import checks, distributions, methods

# {what papers and other programs call it: what it is called here}.
METHODS = {'dense': 'baseline', 'snfs': 'momentum'}
# The ImageNet script of 2020 has '' for it.
DISTRIBUTIONS = {'uniform': 'random', '': 'random'}


def method(name: str) -> str:
  """The key of methods.METHODS that a name stands for.

  Args:
    name: a key, or one of METHODS here.

  Raises:
    ValueError: there is no such method; names those that are spelled alike.
  """
  return _resolved('training_method', name, methods.METHODS, METHODS)


def distribution(name: str) -> str:
  """The one of distributions.DISTRIBUTIONS that a name stands for.

  Args:
    name: one of them, or of DISTRIBUTIONS here.

  Raises:
    ValueError: there is none such; names those that are spelled alike.
  """
  return _resolved('mask_init_method', name, distributions.DISTRIBUTIONS,
                   DISTRIBUTIONS)


def _resolved(setting: str, value: str, options: Iterable[str],
              aliases: Mapping[str, str]) -> str:
  value = aliases.get(value, value)
  checks.one_of(setting, value, options, filter(None, aliases))
  return value

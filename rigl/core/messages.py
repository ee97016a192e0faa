"""What errors say to a user."""

from __future__ import annotations

from typing import Sequence


def first_few(names: Sequence[str], n: int, separator: str = ', ') -> str:
  """The first `n` names, and how many more there are.

  Args:
    names: what to list.
    n: at most so many.
    separator: between names.
  """
  more = f' and {len(names) - n} more' if len(names) > n else ''
  return separator.join(names[:n]) + more


def reason(error: Exception) -> str:
  """The message of an error in one line, without TensorFlow's traceback.

  Args:
    error: error of TensorFlow or of Python.
  """
  text = getattr(error, 'message', None) or str(error)
  # TensorFlow says it between where an operation was made and a stack trace.
  before, mark, _ = text.partition('[[{{node')
  lines = before.strip().splitlines()
  said = lines[-1] if mark and lines else text
  return ' '.join(said.split()) or type(error).__name__

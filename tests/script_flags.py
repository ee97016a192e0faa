"""The flags of a script with a command line."""

from __future__ import annotations

import contextlib
from typing import Iterator, Sequence

from absl import flags
from absl.testing import flagsaver


@contextlib.contextmanager
def parsed(argv: Sequence[str]) -> Iterator[None]:
  """In this context FLAGS have the values of a command line.

  Args:
    argv: the command line, without the name of the program.
  """
  with flagsaver.flagsaver():
    flags.FLAGS.unparse_flags()
    flags.FLAGS(['script.py', *argv])
    yield

"""The flags of a script with a command line."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Mapping, Sequence

from absl import flags
from absl.testing import flagsaver

from rigl.training import sparse_flags


@contextlib.contextmanager
def parsed(defaults: Mapping[str, Any], argv: Sequence[str]) -> Iterator[None]:
  """In this context FLAGS have the values of a command line.

  Args:
    defaults: the script's own; another one in the process may have set its.
    argv: the command line, without the name of the program.
  """
  with flagsaver.flagsaver():
    flags.FLAGS.unparse_flags()
    sparse_flags.set_script_defaults(defaults)
    flags.FLAGS(['script.py', *argv])
    yield

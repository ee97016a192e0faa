"""Files that are replaced as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from typing import Callable, Iterator


def _remove(path: str) -> None:
  pathlib.Path(path).unlink(missing_ok=True)


@contextlib.contextmanager
def errors_name(path: str) -> Iterator[None]:
  """A context whose OSErrors name the file: that of a full disk does not.

  Raises:
    OSError: that of the block, with `path` if it names none.
  """
  try:
    yield
  except OSError as error:
    if error.filename is None:
      raise OSError(error.errno, error.strerror, path) from error
    raise


@contextlib.contextmanager
def replaced(path: str,
             move: Callable[[str, str], None] = os.replace,
             remove: Callable[[str], None] = _remove) -> Iterator[str]:
  """A context that writes a file beside its place and then moves it there.

  Whatever interrupts it, the former file stays, and of the new one nothing.

  Args:
    path: path of the file.
    move: moves a file to the place of another.
    remove: removes a file, which may not exist.

  Yields:
    The path to write to.

  Raises:
    OSError: it cannot be written; names a path.
  """
  temporary = f'{path}.{os.getpid()}.tmp'
  try:
    with errors_name(path):
      yield temporary
      move(temporary, path)
  finally:
    remove(temporary)

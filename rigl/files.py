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
  """A context that adds `path` to an OSError without a file name, as on a full disk."""
  try:
    yield
  except OSError as error:
    if error.filename is None:
      raise OSError(error.errno, error.strerror, path) from error
    raise


@contextlib.contextmanager
def replaced(
  path: str, move: Callable[[str, str], None] = os.replace, remove: Callable[[str], None] = _remove
) -> Iterator[str]:
  """A context of the path of a temporary file, which is then renamed to `path`.

  If it is interrupted, the old file stays and the temporary one is removed.
  `move` replaces the old file, and what `remove` removes may not exist.

  Raises:
    OSError: the file cannot be written; names a path.
  """
  temporary = f'{path}.{os.getpid()}.tmp'
  try:
    with errors_name(path):
      yield temporary
      move(temporary, path)
  finally:
    remove(temporary)

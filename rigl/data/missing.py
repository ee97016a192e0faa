"""The error for data that are not there, worded alike for all data sets."""

from __future__ import annotations

from typing import Collection, Optional

from rigl.core import messages

_ARCHIVES = ('.7z', '.gz', '.rar', '.tar', '.tgz', '.zip')
_MOST_LISTED = 8


def listing(names: Collection[str]) -> str:
  """The first names of what a folder holds, for a message."""
  return messages.first_few(sorted(names), _MOST_LISTED)


def not_found(name: str, folder: str, names: Optional[Collection[str]],
              ways: str) -> FileNotFoundError:
  """The error for data that are not where they should be.

  Args:
    name: name of the data set.
    folder: where the user wants it to be; empty if --data_directory was not
      given.
    names: what the folder holds; None if there is no such folder.
    ways: sentences about how the data can be given.
  """
  if not folder:
    return FileNotFoundError(f'No --data_directory is given. {ways}')
  state = 'is not a folder.'
  if names is not None:
    state = f'holds only {listing(names)}.' if names else 'is empty.'
    archives = [file for file in names if file.lower().endswith(_ARCHIVES)]
    if archives:
      state += f' Archives are not unpacked here: {listing(archives)}.'
  return FileNotFoundError(
      f'{name} is expected in {folder}, but {folder} {state} {ways}')

"""The error for missing data, the same for all data sets."""

from __future__ import annotations

from typing import Collection, Optional

from rigl.core import messages

_ARCHIVES = ('.7z', '.gz', '.rar', '.tar', '.tgz', '.zip')
_MOST_LISTED = 8


def listing(names: Collection[str]) -> str:
  """The first few names in a folder, for a message."""
  return messages.first_few(sorted(names), _MOST_LISTED)


def not_found(
  name: str, folder: str, names: Optional[Collection[str]], ways: str
) -> FileNotFoundError:
  """The error for data that were not found.

  Args:
    name: name of the data set.
    folder: the given folder; empty without --data_directory.
    names: names in the folder; None if it does not exist.
    ways: sentences that tell how to provide the data.
  """
  if not folder:
    return FileNotFoundError(f'No --data_directory is given. {ways}')
  state = 'is not a folder.'
  if names is not None:
    state = f'holds only {listing(names)}.' if names else 'is empty.'
    archives = [file for file in names if file.lower().endswith(_ARCHIVES)]
    if archives:
      state += f' Archives are not unpacked here: {listing(archives)}.'
  return FileNotFoundError(f'{name} is expected in {folder}, but {folder} {state} {ways}')

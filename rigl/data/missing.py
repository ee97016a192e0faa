"""The error for data that are not there, worded alike for all data sets."""

from __future__ import annotations


def not_found(name: str, folder: str, is_folder: bool,
              ways: str) -> FileNotFoundError:
  """The error for data that are not where they should be.

  Args:
    name: name of the data set.
    folder: where the user wants it to be; empty if --data_directory was not
      given.
    is_folder: whether there is such a folder.
    ways: sentences about how the data can be given.
  """
  problem = 'No --data_directory is given.'
  if folder:
    state = 'holds none of it' if is_folder else 'is not a folder'
    problem = f'{name} is expected in {folder}, but {folder} {state}.'
  return FileNotFoundError(f'{problem} {ways}')

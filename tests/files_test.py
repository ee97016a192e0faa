"""Files that are replaced as a whole, or not at all."""

from __future__ import annotations

import os
import pathlib

import pytest

from rigl import files


@pytest.fixture
def path(tmp_path):
  """Path of a file that holds 'former'."""
  path = tmp_path / 'file'
  path.write_text('former')
  return path


def test_takes_its_place_in_the_end(path):
  with files.replaced(str(path)) as temporary:
    pathlib.Path(temporary).write_text('new')
    assert path.read_text() == 'former'
  assert path.read_text() == 'new'
  assert list(path.parent.iterdir()) == [path]


def test_the_former_file_stays_when_writing_fails(path):
  with pytest.raises(KeyboardInterrupt):
    with files.replaced(str(path)) as temporary:
      pathlib.Path(temporary).write_text('ne')
      raise KeyboardInterrupt
  assert path.read_text() == 'former'
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_full_disk_is_named(path):
  with pytest.raises(OSError, match='No space left') as error:
    with files.replaced(str(path)):
      with open('/dev/full', 'w') as full:
        full.write('new')
  assert str(path) in str(error.value)
  assert path.read_text() == 'former'


def test_an_error_that_names_a_file_stays_as_it_is(path):
  with pytest.raises(FileNotFoundError, match='/no/such/file') as error:
    with files.errors_name(str(path)):
      open('/no/such/file')
  assert str(path) not in str(error.value)

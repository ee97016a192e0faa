"""Text files, which may be remote, read and replaced as a whole."""

from __future__ import annotations

import os

from rigl import files
from rigl.compat import tf


def write(path: str, text: str) -> None:
  """Writes a file, leaving the former one if it is interrupted.

  Args:
    path: path of the file; its folder is made if it does not exist.
    text: the new content.
  """
  tf.io.gfile.makedirs(os.path.dirname(path))
  with files.replaced(path, _move, _remove) as temporary:
    with tf.io.gfile.GFile(temporary, 'w') as stream:
      stream.write(text)


def read(path: str) -> str:
  """The content of a file; '' if there is none."""
  if not tf.io.gfile.exists(path):
    return ''
  with tf.io.gfile.GFile(path) as stream:
    return stream.read()


def _move(source: str, target: str) -> None:
  tf.io.gfile.rename(source, target, overwrite=True)


def _remove(path: str) -> None:
  if tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)

"""Text files, which may be remote, read and replaced as a whole."""

from __future__ import annotations

import functools
import os

from rigl import files
from rigl.compat import tf


def write(path: str, text: str) -> None:
  """Writes a file, and makes its folder; if it is interrupted, the former file stays."""
  tf.io.gfile.makedirs(os.path.dirname(path))
  move = functools.partial(tf.io.gfile.rename, overwrite=True)
  with (
    files.replaced(path, move, _remove) as temporary,
    tf.io.gfile.GFile(temporary, 'w') as stream,
  ):
    stream.write(text)


def read(path: str) -> str:
  """The content of a file; '' if there is none."""
  if not tf.io.gfile.exists(path):
    return ''
  with tf.io.gfile.GFile(path) as stream:
    return stream.read()


def _remove(path: str) -> None:
  if tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)

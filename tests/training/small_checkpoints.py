"""Checkpoints of a few variables, and ways to damage them."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from rigl.compat import tf

# Suffix of the data file.
DATA = '.data-00000-of-00001'

VALUES = {
  'a/weights': np.arange(12, dtype=np.float32).reshape(3, 4),
  'a/mask': np.eye(3, 4, dtype=np.float32),
  'b/weights': np.full([5], 7.0, np.float32),
  'global_step': np.array(30, np.int64),
}


def make_variables(values):
  """Variables of the default graph with the shapes of `values`."""
  return [tf.get_variable(name, value.shape, value.dtype.type) for name, value in values.items()]


def save(folder, values=None, step=30):
  """Writes a checkpoint; returns its prefix."""
  values = VALUES if values is None else values
  tf.io.gfile.makedirs(str(folder))
  with tf.Graph().as_default(), tf.Session() as session:
    variables = make_variables(values)
    for variable, value in zip(variables, values.values()):
      variable.load(value, session)
    return tf.train.Saver(variables, save_relative_paths=True).save(
      session, os.path.join(folder, 'model.ckpt'), global_step=step
    )


def damage(prefix, suffix, how):
  """Damages a file of a checkpoint; returns its path."""
  path = pathlib.Path(prefix + suffix)
  content = path.read_bytes()
  if how == 'truncated':
    path.write_bytes(content[: len(content) // 2])
  elif how == 'empty':
    path.write_bytes(b'')
  elif how == 'garbage':
    path.write_bytes(bytes(255 - byte for byte in content))
  else:
    path.unlink()
  return path

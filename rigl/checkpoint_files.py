"""Finding checkpoints and reading what they hold."""

from __future__ import annotations

import os
import re
from typing import Iterable, Optional

import numpy as np

from rigl.compat import tf
from rigl.core import messages

# Names the latest checkpoint of a folder.
STATE_FILE = 'checkpoint'
_INDEX = re.compile(r'model\.ckpt-(\d+)\.index')


def all_complete(model_dir: str) -> list[str]:
  """The prefixes of all checkpoints in a folder, by their steps.

  Args:
    model_dir: folder of a training; it need not be there.
  """
  if not tf.io.gfile.isdir(model_dir):
    return []
  # The index of a checkpoint is written last.
  matches = filter(None, map(_INDEX.fullmatch, tf.io.gfile.listdir(model_dir)))
  steps = sorted(int(match[1]) for match in matches)
  return [os.path.join(model_dir, f'model.ckpt-{step}') for step in steps]


def latest(model_dir: str) -> Optional[str]:
  """The prefix of the checkpoint that training goes on from, or None.

  tf.train.latest_checkpoint takes a damaged folder for an empty one, and a
  training would begin anew there.

  Args:
    model_dir: folder of a training.

  Raises:
    ValueError: the folder has checkpoints, but the file that says which is the
      latest is damaged, or that one is gone; names the file.
  """
  state_file = os.path.join(model_dir, STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    # As a kill at the first checkpoint leaves it.
    return next(reversed(all_complete(model_dir)), None)
  problem = None
  try:
    # TensorFlow logs what is wrong and returns None.
    state = tf.train.get_checkpoint_state(model_dir)
  except (tf.errors.OpError, ValueError):
    state = None
  prefix = state.model_checkpoint_path if state else ''
  if not prefix:
    problem = f'{state_file} is damaged and names no checkpoint.'
  elif not tf.io.gfile.exists(f'{prefix}.index'):
    problem = f'{state_file} names {prefix}, but {prefix}.index is missing.'
  if problem:
    newest = next(reversed(all_complete(model_dir)), None)
    raise ValueError(f'{problem} ' + (
        f'Delete {state_file} to go on from {newest}.' if newest else
        f'No checkpoint besides it is in {model_dir}.'))
  return prefix


def resolve(path: str, flag: str = '') -> str:
  """The prefix of a checkpoint given by its prefix or its folder.

  Args:
    path: prefix or folder.
    flag: that gave the path, for the error.

  Raises:
    ValueError: there is none; names the path.
  """
  # Folders may be remote.
  is_folder = tf.io.gfile.isdir(path)
  if not is_folder and tf.io.gfile.exists(f'{path}.index'):
    return path
  prefix = latest(path) if is_folder else None
  if prefix is None:
    named = f'--{flag}: ' if flag else ''
    raise ValueError(
        f'{named}No checkpoint at {path!r}: neither the prefix of one (such as '
        '.../model.ckpt-1000) nor a folder with one.')
  return prefix


def open_checkpoint(prefix: str):
  """A tf.train.CheckpointReader.

  Args:
    prefix: prefix of the checkpoint.

  Raises:
    ValueError: the checkpoint cannot be read; names it.
  """
  try:
    return tf.train.load_checkpoint(prefix)
  except (tf.errors.OpError, ValueError, RuntimeError) as error:
    raise ValueError(f'Cannot read the checkpoint {prefix}: {error}') from error


def read_tensors(prefix: str, names: Iterable[str]) -> dict[str, np.ndarray]:
  """{name: value} from a checkpoint.

  Args:
    prefix: prefix of the checkpoint.
    names: names of variables in it.

  Raises:
    ValueError: a name is not there, or the data cannot be read; names it.
  """
  reader = open_checkpoint(prefix)
  try:
    return {name: reader.get_tensor(name) for name in names}
  # TensorFlow reports a file that is too short as an IndexError.
  except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
    raise ValueError(f'Cannot read the checkpoint {prefix}: '
                     f'{messages.reason(error)}') from error

"""Finding checkpoints and reading what they hold."""

from __future__ import annotations

import os
import re
from typing import Iterable, Optional

import numpy as np

from rigl.compat import tf
from rigl.core import layer_names, messages

# Names the latest checkpoint of a folder.
STATE_FILE = 'checkpoint'
_INDEX = re.compile(r'model\.ckpt-(\d+)\.index')


def _all_begun(model_dir: str) -> dict[int, str]:
  """{step: prefix} of the checkpoints of which an index is there, by steps."""
  if not tf.io.gfile.isdir(model_dir):
    return {}
  matches = filter(None, map(_INDEX.fullmatch, tf.io.gfile.listdir(model_dir)))
  return {step: os.path.join(model_dir, f'model.ckpt-{step}')
          for step in sorted(int(match[1]) for match in matches)}


def _is_complete(prefix: str) -> bool:
  """Whether the index, which is written last, was written to its end."""
  try:
    open_checkpoint(prefix)
  except ValueError:
    return False
  return True


def all_complete(model_dir: str) -> list[str]:
  """The prefixes of all checkpoints in a folder, by their steps.

  Args:
    model_dir: folder of a training; it need not be there.
  """
  return list(filter(_is_complete, _all_begun(model_dir).values()))


def _newest_complete(begun: dict[int, str]) -> Optional[str]:
  """The last of `_all_begun` that is complete, or None."""
  return next(filter(_is_complete, reversed(list(begun.values()))), None)


def _latest_without_state(model_dir: str) -> Optional[str]:
  """The newest checkpoint of a folder that does not say which is the latest.

  As a kill at the first checkpoint, that of step 0, leaves it: if that one is
  not complete either, nothing is lost with it.
  """
  begun = _all_begun(model_dir)
  newest = _newest_complete(begun)
  if newest is None and any(begun):
    raise ValueError(f'No checkpoint in {model_dir} can be read, not even '
                     f'{begun[max(begun)]}.')
  return newest


def latest(model_dir: str) -> Optional[str]:
  """The prefix of the checkpoint that training goes on from, or None.

  tf.train.latest_checkpoint takes a damaged folder for an empty one, and a
  training would begin anew there.

  Args:
    model_dir: folder of a training.

  Raises:
    ValueError: the folder has checkpoints, but the file that says which is the
      latest is damaged, or that one is gone, or none can be read; names what it
      is.
  """
  state_file = os.path.join(model_dir, STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    return _latest_without_state(model_dir)
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
    newest = _newest_complete(_all_begun(model_dir))
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


def read_masks(prefix: str) -> dict[str, np.ndarray]:
  """{layer: mask} of all variables `<layer>/mask` of a checkpoint, by name.

  Args:
    prefix: prefix of the checkpoint.

  Raises:
    ValueError: the checkpoint cannot be read; names it.
  """
  names = sorted(open_checkpoint(prefix).get_variable_to_shape_map())
  layers = {layer: name for name in names
            if (layer := layer_names.layer_of_mask(name)) is not None}
  masks = read_tensors(prefix, layers.values())
  return {layer: masks[name] for layer, name in layers.items()}

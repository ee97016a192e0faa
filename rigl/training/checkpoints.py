"""Reading checkpoints: where they are, what they hold, whether they fit."""

from __future__ import annotations

import os
import re
from typing import Iterable, Mapping, Optional, Sequence

import numpy as np
from absl import logging

from rigl.compat import tf
from rigl.core import messages

_STATE_FILE = 'checkpoint'
_INDEX = re.compile(r'model\.ckpt-(\d+)\.index')


def _all_complete(model_dir: str) -> list[str]:
  """The prefixes of all checkpoints in a folder, by their steps."""
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
  state_file = os.path.join(model_dir, _STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    # As a kill at the first checkpoint leaves it.
    return next(reversed(_all_complete(model_dir)), None)
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
    newest = next(reversed(_all_complete(model_dir)), None)
    raise ValueError(f'{problem} ' + (
        f'Delete {state_file} to go on from {newest}.' if newest else
        f'No checkpoint besides it is in {model_dir}.'))
  return prefix


def describe_latest(model_dir: str) -> str:
  """A sentence about the checkpoint that training would go on from.

  Args:
    model_dir: folder of a training.
  """
  try:
    prefix = latest(model_dir)
  except ValueError as error:
    return str(error)
  return f'The last good checkpoint is {prefix}.' if prefix else (
      f'There is no checkpoint in {model_dir} yet.')


def _restore_state_file(model_dir: str, prefix: str) -> None:
  """Makes TensorFlow find `prefix` too, if the state file is gone."""
  state_file = os.path.join(model_dir, _STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    logging.warning('%s is missing: going on from %s.', state_file, prefix)
    tf.train.update_checkpoint_state(
        model_dir, prefix, _all_complete(model_dir))


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
  if tf.train.checkpoint_exists(path) and not is_folder:
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
    prefix: of the checkpoint.

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
    prefix: of the checkpoint.
    names: of variables in it.

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


def names_and_shapes(variables: Iterable[tf.Variable]
                    ) -> dict[str, tuple[int, ...]]:
  """{variable name: shape}, as `check_fits` expects it.

  Args:
    variables: of a graph.
  """
  return {v.op.name: tuple(v.shape.as_list()) for v in variables}


def check_fits(prefix: str, expected: Mapping[str, Sequence[int]]) -> None:
  """Raises ValueError unless the checkpoint has all variables as expected.

  Args:
    prefix: of the checkpoint.
    expected: {variable name: shape}; the checkpoint may hold more.

  Raises:
    ValueError: names the variables that are missing or of another shape.
  """
  shapes = open_checkpoint(prefix).get_variable_to_shape_map()
  missing = [name for name in expected if name not in shapes]
  different = [
      f'{name} is {list(shapes[name])} there and {list(shape)} here'
      for name, shape in expected.items()
      if name in shapes and tuple(shapes[name]) != tuple(shape)
  ]
  problems = different + [f'{name} is missing there' for name in missing]
  if problems:
    more = f', and {len(problems) - 5} more' if len(problems) > 5 else ''
    raise ValueError(
        f'The checkpoint {prefix} does not fit this network and training '
        f'method: {"; ".join(problems[:5])}{more}.')


def read_values(prefix: str, variables: Sequence[tf.Variable]
               ) -> dict[str, np.ndarray]:
  """{variable name: value} of the variables, from a checkpoint that fits.

  Args:
    prefix: of the checkpoint.
    variables: of a graph.

  Raises:
    ValueError: see check_fits; or the data cannot be read.
  """
  check_fits(prefix, names_and_shapes(variables))
  return read_tensors(prefix, [v.op.name for v in variables])


def check_resumable(model_dir: str, variables: Iterable[tf.Variable],
                    may_write: bool) -> None:
  """Checks the checkpoint that training in `model_dir` would go on from.

  Args:
    model_dir: folder of a training.
    variables: of its graph.
    may_write: whether to restore a state file that is gone.

  Raises:
    ValueError: there is one and it does not fit; names what differs.
  """
  prefix = latest(model_dir)
  if prefix:
    read_values(prefix, list(variables))
    if may_write:
      _restore_state_file(model_dir, prefix)


def latest_step(model_dir: str) -> int:
  """The global step of the latest checkpoint; 0 without one.

  Args:
    model_dir: folder of a training.
  """
  prefix = latest(model_dir)
  if not prefix:
    return 0
  return int(read_tensors(prefix, ['global_step'])['global_step'])


def mask_sparsities(prefix: str) -> dict[str, float]:
  """{layer: share of zeros} of all masks in a checkpoint.

  Args:
    prefix: of the checkpoint.
  """
  names = [name for name in sorted(
      open_checkpoint(prefix).get_variable_to_shape_map())
           if name.rsplit('/', 1)[-1] == 'mask']
  return {name[:-len('/mask')]: float(np.mean(mask == 0))
          for name, mask in read_tensors(prefix, names).items()}


PARAMETER_SUFFIXES = (
    'weights', 'biases', 'depthwise_weights', 'kernel', 'bias', 'gamma', 'beta',
    'moving_mean', 'moving_variance')


def initialize_parameters_from_ckpt(
    ckpt_path: str,
    model_dir: str,
    param_suffixes: Sequence[str] = PARAMETER_SUFFIXES) -> None:
  """Lets the parameters of the graph start from those of a checkpoint.

  Masks, slots and the global step keep their own start. Nothing happens when
  `model_dir` has a checkpoint, from which training goes on instead.

  Args:
    ckpt_path: prefix or folder.
    model_dir: folder of this training.
    param_suffixes: last components of the names of parameters.

  Raises:
    ValueError: no checkpoint, or one that lacks a parameter or has it in
      another shape; names it.
  """
  if latest(model_dir):
    return
  prefix = resolve(ckpt_path)
  parameters = {
      v.op.name: v for v in tf.global_variables()
      if v.op.name.rsplit('/', 1)[-1] in param_suffixes
  }
  check_fits(prefix, names_and_shapes(parameters.values()))
  tf.train.init_from_checkpoint(prefix, parameters)

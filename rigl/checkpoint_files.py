"""Finding checkpoints and reading what they hold."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from typing import Iterable, Iterator, Mapping, Optional

import numpy as np

from rigl.compat import tf
from rigl.core import layer_names, messages

# Names the latest checkpoint of a folder.
STATE_FILE = 'checkpoint'
# Last parts of the names of all parameters but masks.
PARAMETER_SUFFIXES = (
  *layer_names.WEIGHTS,
  'biases',
  'bias',
  'gamma',
  'beta',
  'moving_mean',
  'moving_variance',
)
# Names of masked weights, in the scope of their mask.
_MASKED = ('weights', 'depthwise_weights')
_INDEX = re.compile(r'model\.ckpt-(\d+)\.index')


def _all_begun(model_dir: str) -> dict[int, str]:
  """{step: prefix} of the checkpoints that have an index, ordered by step."""
  if not tf.io.gfile.isdir(model_dir):
    return {}
  matches = filter(None, map(_INDEX.fullmatch, tf.io.gfile.listdir(model_dir)))
  return {
    step: os.path.join(model_dir, f'model.ckpt-{step}')
    for step in sorted(int(match[1]) for match in matches)
  }


def _is_complete(prefix: str) -> bool:
  """Whether the index, which is written last, is complete."""
  try:
    tf.train.load_checkpoint(prefix)
  except (tf.errors.OpError, RuntimeError, ValueError):
    return False
  return True


def all_complete(model_dir: str) -> list[str]:
  """The prefixes of the complete checkpoints in a folder, which need not exist, by step."""
  return list(filter(_is_complete, _all_begun(model_dir).values()))


def _newest_complete(begun: dict[int, str]) -> Optional[str]:
  """The last of `_all_begun` that is complete, or None."""
  return next(filter(_is_complete, reversed(list(begun.values()))), None)


def _latest_without_state(model_dir: str) -> Optional[str]:
  """The newest complete checkpoint of a folder without a state file.

  A kill while the first checkpoint, of step 0, is written leaves such a folder.
  If that checkpoint is not complete either, nothing is lost.
  """
  begun = _all_begun(model_dir)
  newest = _newest_complete(begun)
  if newest is None and any(begun):
    raise ValueError(f'No checkpoint in {model_dir} can be read, not even {begun[max(begun)]}.')
  return newest


def latest(model_dir: str) -> Optional[str]:
  """The prefix of the checkpoint that training resumes from, or None.

  tf.train.latest_checkpoint returns None for a damaged folder as well, and
  training would then start again from step 0.

  Raises:
    ValueError: the folder has checkpoints, but its state file is damaged, the
      latest checkpoint is gone, or none can be read; names the cause.
  """
  state_file = os.path.join(model_dir, STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    return _latest_without_state(model_dir)
  try:
    # TensorFlow logs what is wrong and returns None.
    state = tf.train.get_checkpoint_state(model_dir)
  except (tf.errors.OpError, ValueError):
    state = None
  prefix = state.model_checkpoint_path if state else ''
  if not prefix:
    problem = 'is damaged and names no checkpoint'
  elif not tf.io.gfile.exists(f'{prefix}.index'):
    problem = f'names {prefix}, but {prefix}.index is missing'
  else:
    return prefix
  newest = _newest_complete(_all_begun(model_dir))
  remedy = (
    f'Delete {state_file} to go on from {newest}.'
    if newest
    else f'No checkpoint besides it is in {model_dir}.'
  )
  raise ValueError(f'{state_file} {problem}. {remedy}')


def holds_checkpoints(folder: str) -> bool:
  """Whether a folder, which need not exist, has a checkpoint of any kind."""
  return tf.io.gfile.isdir(folder) and any(
    name == STATE_FILE or name.endswith('.index') for name in tf.io.gfile.listdir(folder)
  )


def runs_below(folder: str) -> str:
  """A sentence about runs below a folder, for an error that finds none in it.

  The folder need not exist; only its first few hundred folders are searched.
  """
  found = [
    path
    for path, _, files in itertools.islice(tf.io.gfile.walk(folder), 300)
    if STATE_FILE in files
  ]
  return f' Runs are in {messages.first_few(found, 3)}.' if found else ''


def resolve(path: str, flag: str = '', among: str = '') -> str:
  """The prefix of a checkpoint given by its prefix, its index file or its folder.

  Args:
    path: prefix, index file (as shells complete prefixes) or folder.
    flag: the flag that gave the path, for the error.
    among: folder of several runs, whose names the error gives; `path` if empty.

  Raises:
    ValueError: there is no checkpoint; names the path.
  """
  # The folder may be remote.
  is_folder = tf.io.gfile.isdir(path)
  prefix = path.removesuffix('.index')
  if not is_folder and tf.io.gfile.exists(f'{prefix}.index'):
    return prefix
  newest = latest(path) if is_folder else None
  if newest is None:
    named = f'--{flag}: ' if flag else ''
    raise ValueError(
      f'{named}No checkpoint at {path!r}: neither the prefix of one (such as .../model.ckpt-1000) '
      f'nor a folder with one.{runs_below(among or path)}'
    )
  return newest


@contextlib.contextmanager
def _explained_damage(prefix: str) -> Iterator[None]:
  """A context in which errors name the checkpoint, and how to use another one of its folder."""
  try:
    yield
  # TensorFlow reports a file that is too short as an IndexError.
  except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
    folder, name = os.path.split(prefix)
    others = [other for other in all_complete(folder) if os.path.basename(other) != name]
    remedy = (
      f' Delete {prefix}.* and {os.path.join(folder, STATE_FILE)} to use {others[-1]}.'
      if others
      else ''
    )
    raise ValueError(
      f'Cannot read the checkpoint {prefix}: {messages.reason(error)}{remedy}'
    ) from error


def open_checkpoint(prefix: str):
  """A tf.train.CheckpointReader.

  Raises:
    ValueError: the checkpoint cannot be read; names it.
  """
  with _explained_damage(prefix):
    return tf.train.load_checkpoint(prefix)


def read_tensors(prefix: str, names: Iterable[str]) -> dict[str, np.ndarray]:
  """{name: value} from a checkpoint.

  Raises:
    ValueError: a variable is missing or unreadable; names it.
  """
  reader = open_checkpoint(prefix)
  with _explained_damage(prefix):
    return {name: reader.get_tensor(name) for name in names}


def masked_layers(prefix: str) -> list[str]:
  """The layers with a variable `<layer>/mask` in a checkpoint, by name.

  Raises:
    ValueError: the checkpoint cannot be read; names it.
  """
  names = sorted(open_checkpoint(prefix).get_variable_to_shape_map())
  layers = map(layer_names.layer_of_mask, names)
  return [layer for layer in layers if layer is not None]


def read_masks(prefix: str) -> dict[str, np.ndarray]:
  """{layer: mask} of all variables `<layer>/mask` of a checkpoint, by name.

  Raises:
    ValueError: the checkpoint cannot be read, or a mask has values other than
      0 and 1; names it.
  """
  layers = masked_layers(prefix)
  masks = read_tensors(prefix, map(layer_names.mask_of, layers))
  for name, mask in masks.items():
    if not np.isin(mask, (0, 1)).all():
      raise ValueError(
        f'{name!r} in {prefix!r} holds values other than 0 and 1, so it is not a mask.'
      )
  return dict(zip(layers, masks.values()))


def fold_masks(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """{variable name: value} without masks and thresholds, with masks * weights.

  `<scope>/mask` belongs to `<scope>/weights` or `<scope>/depthwise_weights`.

  Raises:
    ValueError: a mask has no weights or another shape than them; names it.
  """
  folded, masks = {}, {}
  for name, value in values.items():
    if (layer := layer_names.layer_of_mask(name)) is not None:
      masks[layer] = value
    elif name.rpartition('/')[2] != layer_names.THRESHOLD:
      folded[name] = value
  for layer, mask in masks.items():
    mask_name = layer_names.mask_of(layer)
    owners = [layer_names.variable_of(layer, leaf) for leaf in _MASKED]
    names = [name for name in owners if name in folded]
    if len(names) != 1:
      raise ValueError(
        f'The mask {mask_name} belongs to one variable, '
        f'{" or ".join(owners)}; there are {len(names)}.'
      )
    weights = folded[names[0]]
    if np.shape(mask) != np.shape(weights):
      raise ValueError(
        f'The mask {mask_name} is {list(np.shape(mask))}, but {names[0]} is '
        f'{list(np.shape(weights))}.'
      )
    # Adding 0 turns -0 into 0, so that all bytes are zero.
    folded[names[0]] = weights * np.asarray(mask).astype(weights.dtype) + weights.dtype.type(0)
  return folded


def read_network(prefix: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """({layer: 0/1 mask, uint8}, {name: parameter, zero where a mask is}) of a checkpoint.

  Raises:
    ValueError: the checkpoint cannot be read, or a mask does not fit; names it.
  """
  masks = {layer: mask.astype(np.uint8) for layer, mask in read_masks(prefix).items()}
  names = sorted(open_checkpoint(prefix).get_variable_to_shape_map())
  values = read_tensors(
    prefix, [name for name in names if name.rpartition('/')[2] in PARAMETER_SUFFIXES]
  )
  values |= {layer_names.mask_of(layer): mask for layer, mask in masks.items()}
  return masks, fold_masks(values)


def files_of(prefix: str) -> list[str]:
  """The paths of the files of a checkpoint that hold its values."""
  folder, name = os.path.split(prefix)
  return [
    os.path.join(folder, file)
    for file in sorted(tf.io.gfile.listdir(folder or '.'))
    if file == f'{name}.index' or file.startswith(f'{name}.data-')
  ]

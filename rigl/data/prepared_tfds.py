"""Reads data that TensorFlow Datasets has prepared. Downloads nothing.

Imports TensorFlow Datasets only if there is something to read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import Any, Iterator, Optional

import numpy as np
from absl import logging

from rigl.compat import tf
from rigl.core import messages
from rigl.data import missing

_INFO = 'dataset_info.json'
_FEATURES = 'features.json'
_VERSION = re.compile(r'(\d+)\.(\d+)\.(\d+)/?')


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides the reports of TensorFlow Datasets, except with --verbosity=1."""
  verbosity = logging.get_verbosity()
  if verbosity < logging.DEBUG:
    logging.set_verbosity(min(verbosity, logging.WARNING))
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def default_dir() -> str:
  """Where TensorFlow Datasets keeps its data sets on this machine."""
  return os.path.expanduser(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def find(data_dir: str, name: str) -> Optional[Any]:
  """The tfds.core.DatasetBuilder of a prepared data set, or None.

  Args:
    data_dir: folder of data sets of TensorFlow Datasets, or folder of this data
      set (the newest version is used), or of one version.
    name: name of the data set.

  Raises:
    ValueError: the folder holds another data set, or an incomplete or damaged
      one.
  """
  for folder in (data_dir, os.path.join(data_dir, name)):
    names = tf.gfile.ListDirectory(folder) if tf.gfile.IsDirectory(folder) else []
    if _INFO in names:
      return _open(folder, name)
    versions = [
      match
      for match in map(_VERSION.fullmatch, names)
      if match and tf.gfile.Exists(os.path.join(folder, match[0], _INFO))
    ]
    if versions:
      newest = max(versions, key=lambda match: [*map(int, match.groups())])
      return _open(os.path.join(folder, newest[0]), name)
    parts = [file for file in names if re.match(rf'\d+\.\d+\.\d+|{name}-.*\.tfrecord', file)]
    if parts:
      raise ValueError(
        f'{folder} holds a part of {name} only: {missing.listing(parts)}. TensorFlow Datasets adds '
        f'{_INFO} and {_FEATURES} when it has prepared all.'
      )
  return None


@_quiet()
def read_pictures(
  builder: Any, split: str, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
  """All pictures of a split, in the order of its files.

  Args:
    builder: from `find`; its examples have the features image and label.
    split: such as 'train'.
    shape: height, width and number of channels of each picture.

  Returns:
    uint8 [n, *shape] of pictures and int64 [n] of labels.

  Raises:
    ValueError: the split is missing or empty, or a file is missing or damaged.
  """
  import tensorflow_datasets as tfds

  info = builder.info.splits.get(split)
  if not info or not info.num_examples:
    raise ValueError(f'{builder.data_dir}, split {split}: expected pictures, found none.')
  images, labels = [], []
  # One file at a time, as TensorFlow does not name the damaged one.
  for i, (path, n) in enumerate(zip(info.filepaths, info.shard_lengths)):
    try:
      # A graph of its own, so that the caller's does not hold the data set.
      with tf.Graph().as_default():
        part = tfds.as_numpy(
          builder.as_dataset(
            split=f'{split}[{i}shard]',
            batch_size=-1,
            read_config=tfds.ReadConfig(try_autocache=False),
          )
        )
      found = builder.info.features['image'].shape
      if found != shape:
        raise ValueError(f'its pictures are of shape {found}.')
    # UnicodeDecodeError, a ValueError, if TensorFlow cannot decode its own message.
    except (tf.errors.OpError, LookupError, ValueError) as error:
      raise ValueError(
        f'{path}: expected {n} records, each with a picture of shape {shape} '
        f'and a label, but cannot read it: {messages.reason(error)}'
      ) from error
    images.append(part['image'])
    labels.append(part['label'])
  return np.concatenate(images), np.concatenate(labels)


def parse_undecoded(builder: Any, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """The picture, still encoded, and the label of an example, string and int64 scalars."""
  import tensorflow_datasets as tfds

  example = builder.info.features.deserialize_example(
    serialized, decoders={'image': tfds.decode.SkipDecoding()}
  )
  return example['image'], example['label']


@_quiet()
def _open(folder: str, name: str) -> Any:
  """The builder for the folder of a version."""
  import tensorflow_datasets as tfds

  try:
    _check_classes(os.path.join(folder, _FEATURES))
    builder = tfds.builder_from_directory(folder)
    # Read the names of the files now, so that errors occur here.
    _ = [split.filepaths for split in builder.info.splits.values()]
  # The type of the error depends on the damage.
  except Exception as error:
    raise ValueError(
      f'{folder}: cannot use what TensorFlow Datasets has prepared: '
      f'{type(error).__name__}: {messages.reason(error)}'
    ) from error
  file_format = builder.info.as_proto.file_format or 'tfrecord'
  if (builder.name, file_format) != (name, 'tfrecord'):
    raise ValueError(f'{folder} holds {builder.name} as {file_format}, not {name} as tfrecord.')
  return builder


def _check_classes(path: str) -> None:
  """Raises ValueError for third-party features, which would be imported."""

  def check(pairs: list[tuple[str, Any]]) -> None:
    for key, value in pairs:
      if key == 'content' and isinstance(value, str):
        json.loads(value, object_pairs_hook=check)
      elif key in ('pythonClassName', 'python_class_name', 'type') and (
        isinstance(value, str) and not value.startswith('tensorflow_datasets.')
      ):
        raise ValueError(
          f'{path} names {value}, which is not of TensorFlow Datasets and was not imported.'
        )

  with tf.gfile.GFile(path) as stream:
    json.loads(stream.read(), object_pairs_hook=check)

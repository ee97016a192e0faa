"""Finds ImageNet as TensorFlow Datasets has prepared it.

Its files are TFRecords of the encoded pictures, which can be read without
TensorFlow Datasets; so it is not imported.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import Any, Optional

from rigl.compat import tf

NAME = 'imagenet2012'
_INFO = 'dataset_info.json'
_DEFAULT_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'


@dataclasses.dataclass(frozen=True)
class Split:
  """A part of a prepared data set."""

  files: tuple[str, ...]
  num_images: int


def find_prepared(data_dir: str) -> Optional[str]:
  """The folder of the newest ImageNet in a data_dir, or None.

  Args:
    data_dir: where TensorFlow Datasets keeps its data sets, or the folder of a
      version of ImageNet itself.
  """
  if (os.path.basename(os.path.dirname(data_dir.rstrip('/'))) == NAME and
      tf.gfile.Exists(os.path.join(data_dir, _INFO))):
    return data_dir
  parent = os.path.join(data_dir, NAME)
  versions = {}
  for name in tf.gfile.ListDirectory(parent) if tf.gfile.IsDirectory(
      parent) else ():
    # Folders of unfinished downloads have a suffix after the version.
    version = re.fullmatch(r'(\d+)\.(\d+)\.(\d+)', name.rstrip('/'))
    folder = os.path.join(parent, name)
    if version and tf.gfile.Exists(os.path.join(folder, _INFO)):
      versions[tuple(map(int, version.groups()))] = folder
  return versions[max(versions)] if versions else None


def read_split(folder: str, name: str) -> Split:
  """What the description in a prepared data set says about a split.

  Args:
    folder: that of the files.
    name: 'train' or 'validation'.

  Returns:
    The paths of its files, in order, and the number of its images; none of
    either if the split is not there.

  Raises:
    ValueError: the description cannot be understood.
  """
  path = os.path.join(folder, _INFO)
  try:
    with tf.gfile.GFile(path) as stream:
      info = json.load(stream)
    file_format = info.get('fileFormat', 'tfrecord')
    if file_format != 'tfrecord':
      raise ValueError(f'its files are of the format {file_format!r}; prepare '
                       "it with file_format='tfrecord'")
    for split in info['splits']:
      if split['name'] == name:
        lengths = [int(length) for length in split['shardLengths']]
        return Split(_paths(folder, split, len(lengths)), sum(lengths))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
        f'{path}: cannot use what TensorFlow Datasets has prepared: '
        f'{type(error).__name__}: {error}.') from error
  return Split((), 0)


def _paths(folder: str, split: dict[str, Any], n: int) -> tuple[str, ...]:
  """The files of a split, which a template names."""
  template = os.path.basename(split.get('filepathTemplate', _DEFAULT_TEMPLATE))
  return tuple(
      os.path.join(folder, template.format(
          DATASET=NAME, SPLIT=split['name'], FILEFORMAT='tfrecord',
          SHARD_X_OF_Y=f'{i:05d}-of-{n:05d}', SHARD_INDEX=f'{i:05d}',
          NUM_SHARDS=f'{n:05d}'))
      for i in range(n))

"""Reads CIFAR-10 as TensorFlow Datasets has prepared it, without the network.
"""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, Optional

import numpy as np


def find_prepared(data_dir: pathlib.Path) -> Optional[pathlib.Path]:
  """The folder of the newest CIFAR-10 in a data_dir, or None.

  Args:
    data_dir: of TensorFlow Datasets.
  """
  versions = {}
  for info in data_dir.glob('cifar10/*/dataset_info.json'):
    # Folders of unfinished downloads have a suffix after the version.
    if re.fullmatch(r'\d+\.\d+\.\d+', info.parent.name):
      versions[tuple(map(int, info.parent.name.split('.')))] = info.parent
  return versions[max(versions)] if versions else None


def read_split(folder: pathlib.Path,
               split: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads a split of a prepared data set with columns image and label.

  Args:
    folder: that of the files, named after the version of the data set.
    split: 'train' or 'test'.

  Returns:
    uint8 images [n, 32, 32, 3] and int64 labels [n].

  Raises:
    ValueError: a file is missing, truncated or damaged.
    RuntimeError: TensorFlow Datasets cannot be imported.
  """
  # Both take seconds to import, and only data prepared by the one need them.
  import tensorflow_datasets as tfds

  from rigl.compat import tf

  # It logs errors of its own import and goes on as an empty module.
  if not hasattr(tfds, 'builder_from_directory'):
    raise RuntimeError(
        f'CIFAR-10 is prepared in {folder}, but the installed TensorFlow '
        'Datasets is broken and cannot read it; `import tensorflow_datasets` '
        'says why.')
  try:
    _check_features(folder / 'features.json')
    # A builder made from its name may ask the network for newer versions. The
    # graph of its own keeps the data set out of the caller's graph.
    with tf.Graph().as_default():
      builder = tfds.builder_from_directory(folder)
      try:
        # One file after the other, so that the order is that of the files.
        columns = tfds.as_numpy(builder.as_dataset(
            split=split, batch_size=-1, shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1)))
      except tf.errors.OpError as error:
        _check_shards(builder.info.splits[split])
        raise ValueError(error.message) from error
    return columns['image'], columns['label']
  # It has no common type for what is wrong with its files.
  except Exception as error:
    raise ValueError(
        f'{folder}: expected a complete split {split} of cifar10 as TensorFlow '
        f'Datasets prepares it, but cannot read it: {error}') from error


def _check_features(path: pathlib.Path) -> None:
  """Raises ValueError if a file of features names a class of a stranger's.

  TensorFlow Datasets imports the modules of the classes that it finds there.
  """
  def check(node: dict[str, Any]) -> None:
    for key in ('type', 'pythonClassName', 'python_class_name'):
      name = node.get(key, 'tensorflow_datasets.')
      if not str(name).startswith('tensorflow_datasets.'):
        raise ValueError(f'{path} names {name}, which is not of TensorFlow '
                         'Datasets; the file may be malicious.')

  json.loads(path.read_text(), object_hook=check)


def _check_shards(split: Any) -> None:
  """Raises ValueError that names the first TFRecord file that is incomplete."""
  from rigl.compat import tf

  for path, expected in zip(split.filepaths, split.shard_lengths):
    found, problem = 0, ''
    try:
      for _ in tf.io.tf_record_iterator(str(path)):
        found += 1
    except tf.errors.OpError as error:
      problem = f' before: {error.message}'
    if problem or found != expected:
      raise ValueError(
          f'{path}: expected {expected} records, found {found}{problem}.')

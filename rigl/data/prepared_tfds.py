"""Finds and reads what TensorFlow Datasets has prepared, without importing it.

Its files are TFRecords of encoded pictures and their labels, beside a
description. TensorFlow Datasets imports the modules that a description names;
here no more is taken from it than the names and lengths of the files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import Any, Optional

import numpy as np

from rigl.compat import tf
from rigl.core import messages

_INFO = 'dataset_info.json'
_DEFAULT_TEMPLATE = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Split:
  """A part of a prepared data set.

  Attributes:
    source: folder and name, for messages.
    files: paths of its TFRecord files, in order; none if it is not there.
    lengths: how many records each of them should have.
  """

  source: str
  files: tuple[str, ...] = ()
  lengths: tuple[int, ...] = ()


def default_dir() -> str:
  """Where TensorFlow Datasets keeps its data sets on this machine."""
  return os.path.expanduser(
      os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def find_prepared(data_dir: str, name: str) -> Optional[str]:
  """The folder of the newest version of a data set, or None.

  Args:
    data_dir: where TensorFlow Datasets keeps its data sets, or the folder of a
      version itself.
    name: name of the data set.
  """
  if (os.path.basename(os.path.dirname(data_dir.rstrip('/'))) == name and
      tf.gfile.Exists(os.path.join(data_dir, _INFO))):
    return data_dir
  parent = os.path.join(data_dir, name)
  versions = {}
  for entry in tf.gfile.ListDirectory(parent) if tf.gfile.IsDirectory(
      parent) else ():
    # Folders of unfinished downloads have a suffix after the version.
    version = re.fullmatch(r'(\d+)\.(\d+)\.(\d+)', entry.rstrip('/'))
    folder = os.path.join(parent, entry)
    if version and tf.gfile.Exists(os.path.join(folder, _INFO)):
      versions[tuple(map(int, version.groups()))] = folder
  return versions[max(versions)] if versions else None


def read_split(folder: str, name: str, split: str) -> Split:
  """What the description of a prepared data set says about a split.

  Args:
    folder: from `find_prepared`.
    name: name of the data set.
    split: such as 'train'.

  Returns:
    The split, without files if the data set does not have it.

  Raises:
    ValueError: the description cannot be used.
  """
  path = os.path.join(folder, _INFO)
  source = f'{folder}, split {split}'
  try:
    with tf.gfile.GFile(path) as stream:
      info = json.load(stream)
    file_format = info.get('fileFormat', 'tfrecord')
    if file_format != 'tfrecord':
      raise ValueError(f'its files are of the format {file_format!r}; prepare '
                       "it with file_format='tfrecord'")
    for entry in info['splits']:
      if entry['name'] == split:
        lengths = tuple(map(int, entry['shardLengths']))
        return Split(
            source, _paths(folder, name, entry, len(lengths)), lengths)
  except (AttributeError, LookupError, TypeError, ValueError,
          tf.errors.OpError) as error:
    raise ValueError(
        f'{path}: cannot use what TensorFlow Datasets has prepared: '
        f'{type(error).__name__}: {messages.reason(error)}.') from error
  return Split(source)


def read_pictures(split: Split,
                  shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
  """Reads all pictures of a split, in the order of its files.

  Args:
    split: from `read_split`; its records have the features image and label.
    shape: height, width and number of channels of each picture.

  Returns:
    uint8 [n, *shape] of pictures and int64 [n] of labels.

  Raises:
    ValueError: there is no such split or no record in it, or a file is missing,
      truncated, damaged or something else.
  """
  if not sum(split.lengths):
    raise ValueError(f'{split.source}: expected pictures, found none.')

  def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = tf.io.parse_single_example(record, {
        'image': tf.io.FixedLenFeature([], tf.string),
        'label': tf.io.FixedLenFeature([], tf.int64)})
    picture = tf.io.decode_png(features['image'], channels=shape[-1])
    return tf.ensure_shape(picture, shape), features['label']

  batches = []
  # The data set is no part of the caller's graph, and decoding needs no GPU.
  with tf.Graph().as_default(), tf.Session(
      config=tf.ConfigProto(device_count={'GPU': 0})) as session:
    path = tf.placeholder(tf.string, [])
    dataset = tf.data.TFRecordDataset(path).map(
        parse, tf.data.experimental.AUTOTUNE, deterministic=True).batch(_BATCH)
    iterator = tf.data.make_initializable_iterator(dataset)
    batch = iterator.get_next()
    for file, expected in zip(split.files, split.lengths):
      found = 0
      try:
        session.run(iterator.initializer, {path: file})
        while True:
          batches.append(session.run(batch))
          found += len(batches[-1][1])
      except tf.errors.OutOfRangeError:
        pass
      # TensorFlow cannot even say what it was unable to parse.
      except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise ValueError(
            f'{file}: expected {expected} records, each with a picture of '
            f'shape {shape} and a label, but cannot read it: '
            f'{messages.reason(error)}') from error
      if found != expected:
        raise ValueError(
            f'{file}: expected {expected} records, found {found}.')
  images, labels = zip(*batches)
  return np.concatenate(images), np.concatenate(labels)


def _paths(folder: str, name: str, split: dict[str, Any],
           n: int) -> tuple[str, ...]:
  """The files of a split, which a template names."""
  template = os.path.basename(split.get('filepathTemplate', _DEFAULT_TEMPLATE))
  return tuple(
      os.path.join(folder, template.format(
          DATASET=name, SPLIT=split['name'], FILEFORMAT='tfrecord',
          SHARD_X_OF_Y=f'{i:05d}-of-{n:05d}', SHARD_INDEX=f'{i:05d}',
          NUM_SHARDS=f'{n:05d}'))
      for i in range(n))

"""Finds ImageNet and makes quick checks of its files.

`imagenet_input` reads the data during training. Downloads nothing.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
import re
import struct
from typing import Any, BinaryIO, Optional

from absl import logging

from rigl.compat import tf
from rigl.core import checks, messages
from rigl.data import missing, prepared_tfds
from rigl.imagenet_resnet import preprocessing

_TFDS_NAME = 'imagenet2012'
# Records of local files below this size are counted at once.
_SMALL_BYTES = 10**9
# Length of the record and checksum of the length; checksum of the record.
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
RECORD_OVERHEAD = _HEADER_BYTES + _FOOTER_BYTES

# Part -> prefixes of its file names, or names of its folder.
_STEMS = {'train': ('train',), 'validation': ('validation', 'val')}
# Stem, number and number of files.
_SHARD = re.compile(r'(\w+)-(\d{5,})-of-(\d{5,})(\.tfrecords?)?')
_CLASS_FOLDER = re.compile(r'n\d{8}/?')
_THREE_WAYS = (
  'ImageNet can be given in three ways:\n'
  '  1. --data_directory=FOLDER with TFRecord files train-00000-of-01024 ... and '
  'validation-00000-of-00128 ... (any number of files; also in the sub-folders train and '
  'validation, also with val in place of validation);\n'
  '  2. --data_directory=DATA_DIR in which TensorFlow Datasets has prepared imagenet2012 (without '
  'the flag: $TFDS_DATA_DIR or ~/tensorflow_datasets);\n'
  '  3. --use_synthetic_data for a synthetic problem of the same shape, to try things out.\n'
  '`python -m rigl.imagenet_resnet.sample_data --output_dir=FOLDER` writes a small data set for '
  'the first way, and `python -m rigl.imagenet_resnet.convert_images --input=FOLDER '
  '--output=RECORDS` makes one of your own pictures.'
)


@dataclasses.dataclass(frozen=True)
class RecordFormat:
  """The format of records, which are tf.train.Examples.

  Attributes:
    image_key: feature of the picture.
    label_key: feature of the label.
    first_label: the label of the first class.
    builder: the builder of TensorFlow Datasets; None for plain TFRecords.
  """

  image_key: str
  label_key: str
  first_label: int
  builder: Any = None

  def parse(self, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Encoded picture and label (from 0) of a record, a string scalar.

    If one is missing, the picture is '' or the label -1, or parsing fails.
    """
    if self.builder is not None:
      return prepared_tfds.parse_undecoded(self.builder, serialized)
    features = tf.io.parse_single_example(
      serialized,
      {
        self.image_key: tf.io.FixedLenFeature([], tf.string, ''),
        self.label_key: tf.io.FixedLenFeature([], tf.int64, self.first_label - 1),
      },
    )
    return features[self.image_key], features[self.label_key] - self.first_label


TFRECORD_FORMAT = RecordFormat('image/encoded', 'image/class/label', 1)


@dataclasses.dataclass(frozen=True)
class Part:
  """The training or the validation images.

  Attributes:
    name: 'train' or 'validation'.
    num_images: number of images, as given by the user.
    files: the TFRecord files; none for synthetic images or a missing part.
    sizes: sizes of the files, in bytes.
  """

  name: str
  num_images: int
  files: tuple[str, ...] = ()
  sizes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class ImageNetData:
  """The location of the images, or synthetic data.

  Attributes:
    train: the training images.
    validation: the validation images.
    num_classes: labels are 0 ... num_classes - 1.
    source: a phrase for logs.
    record_format: record format of the files.
    is_synthetic: whether images are generated.
  """

  train: Part
  validation: Part
  num_classes: int
  source: str
  record_format: RecordFormat = TFRECORD_FORMAT
  is_synthetic: bool = False


# ({name: part}, source, format of the files).
_Found = tuple[dict[str, Part], str, RecordFormat]


def find_data(
  data_directory: Optional[str],
  *,
  use_synthetic_data: bool = False,
  num_train_images: int,
  num_eval_images: int,
  num_classes: int,
) -> ImageNetData:
  """Finds ImageNet or makes synthetic data.

  One of the two parts may be missing. The numbers of images are checked here if
  the files are small and local, or prepared by TensorFlow Datasets; otherwise
  at the end of an epoch.

  Args:
    data_directory: folder of TFRecord files, or a data_dir of TensorFlow
      Datasets. Empty or None for the default data_dir of the latter.
    use_synthetic_data: whether to generate data instead.
    num_train_images: number of training images.
    num_eval_images: number of validation images.
    num_classes: number of classes.

  Raises:
    FileNotFoundError: there are no data.
    ValueError: a file is missing or damaged, or a number of images or classes
      is wrong.
  """
  checks.positive('num_train_images', num_train_images)
  checks.positive('num_eval_images', num_eval_images)
  checks.positive('num_classes', num_classes)
  if use_synthetic_data:
    if data_directory:
      logging.warning('--use_synthetic_data is given: %s is not read.', data_directory)
    return ImageNetData(
      Part('train', num_train_images),
      Part('validation', num_eval_images),
      num_classes,
      'synthetic: images made up, not ImageNet; accuracies are not comparable',
      is_synthetic=True,
    )
  directory = data_directory or ''
  data_dir = directory or prepared_tfds.default_dir()
  numbers = {'train': num_train_images, 'validation': num_eval_images}
  try:
    found = _find_tfrecords(directory, numbers) if directory else None
    found = found or _find_tfds(data_dir, numbers)
  except tf.errors.OpError as error:
    raise ValueError(f'{data_dir} cannot be read: {messages.reason(error)}') from error
  if found is None:
    raise _not_found(directory)
  parts, source, record_format = found
  empty = [name for name, part in parts.items() if not part.files]
  if empty:
    source += f' (without {empty[0]} images)'
  data = ImageNetData(parts['train'], parts['validation'], num_classes, source, record_format)
  for part in parts.values():
    _check_first_record(part, data)
  return data


def wrong_number(part: Part, found: object) -> str:
  """The message for a wrong number of images; `found` is the right one."""
  flag = 'num_train_images' if part.name == 'train' else 'num_eval_images'
  return (
    f'{flag} is {part.num_images}, but the {part.name} files in {os.path.dirname(part.files[0])} '
    f'hold {found} images: give --{flag}={found}.'
  )


def count_records(path: str) -> int:
  """Counts the records of a local TFRecord file by their headers.

  Raises:
    ValueError: the file is damaged or not a TFRecord file.
  """
  size = os.path.getsize(path)
  n, position = 0, 0
  with open(path, 'rb') as stream:
    while position < size:
      length = _record_length(stream, size - position)
      if length is None:
        raise ValueError(
          f'{path}: record {n} (counted from 0), at byte {position}, does not fit into the {size} '
          'bytes; the file is truncated, damaged or no TFRecord file.'
        )
      n, position = n + 1, position + length + RECORD_OVERHEAD
      stream.seek(position)
  return n


def _record_length(stream: BinaryIO, n_left: int) -> Optional[int]:
  """The length of the next record; None if it exceeds the n_left bytes."""
  header = stream.read(_HEADER_BYTES)
  if len(header) < _HEADER_BYTES:
    return None
  length = struct.unpack('<Q', header[:8])[0]
  return length if length + RECORD_OVERHEAD <= n_left else None


def _names(folder: str) -> Optional[list[str]]:
  """The names in a folder; None if it does not exist."""
  return tf.gfile.ListDirectory(folder) if tf.gfile.IsDirectory(folder) else None


def _not_found(directory: str) -> FileNotFoundError:
  """The error for a folder without data; it may hold unpacked pictures."""
  ways = _THREE_WAYS
  for folder in (directory, os.path.join(directory, 'train')):
    if directory and any(map(_CLASS_FOLDER.fullmatch, _names(folder) or ())):
      ways = f'{folder} has a folder of pictures for each class; such folders are not read. {ways}'
  return missing.not_found('ImageNet', directory, _names(directory), ways)


def _find_tfrecords(directory: str, numbers: dict[str, int]) -> Optional[_Found]:
  """The data in a folder of plain TFRecord files, or None."""
  files = {name: _find_shards(directory, name) for name in numbers}
  if not any(files.values()):
    return None
  parts = {name: Part(name, numbers[name], files[name], _sizes(files[name])) for name in numbers}
  n_bytes = sum(sum(part.sizes) for part in parts.values())
  if not _is_remote(directory) and n_bytes < _SMALL_BYTES:
    for part in parts.values():
      found = sum(map(count_records, part.files))
      if part.files and found != part.num_images:
        raise ValueError(wrong_number(part, found))
  return parts, f'TFRecords in {directory}', TFRECORD_FORMAT


def _find_shards(directory: str, name: str) -> tuple[str, ...]:
  """The files of a part, in order; () if there are none."""
  stems = _STEMS[name]
  for folder in (directory, *(os.path.join(directory, s) for s in stems)):
    # {(stem, number of files, ending): {number: path}}
    found: dict[tuple[str, str, str], dict[int, str]] = collections.defaultdict(dict)
    for file in _names(folder) or ():
      match = _SHARD.fullmatch(file)
      if match and match[1] in stems:
        kind = match[1], match[3], match[4] or ''
        found[kind][int(match[2])] = os.path.join(folder, file)
    if len(found) > 1:
      kinds = sorted(f'{stem}-*-of-{n}{end}' for stem, n, end in found)
      raise ValueError(
        f'{folder} holds {name} files of more than one data set: {" and ".join(kinds)}.'
      )
    for (stem, n, end), paths in found.items():
      lacking = [f'{stem}-{i:05d}-of-{n}{end}' for i in range(int(n)) if i not in paths]
      if lacking:
        raise ValueError(
          f'{folder} lacks {messages.first_few(lacking, 3)} of the {int(n)} {name} files.'
        )
      return tuple(path for _, path in sorted(paths.items()))
  return ()


def _find_tfds(data_dir: str, numbers: dict[str, int]) -> Optional[_Found]:
  """The data that TensorFlow Datasets has prepared, or None."""
  builder = prepared_tfds.find(data_dir, _TFDS_NAME)
  if builder is None:
    return None
  parts = {}
  for name, number in numbers.items():
    split = builder.info.splits.get(name)
    files = tuple(map(os.fspath, split.filepaths)) if split else ()
    parts[name] = Part(name, number, files, _sizes(files))
    if files and split.num_examples != number:
      raise ValueError(wrong_number(parts[name], split.num_examples))
  if not any(part.files for part in parts.values()):
    raise ValueError(f'{builder.data_dir} has neither a train nor a validation split.')
  source = f'TensorFlow Datasets {_TFDS_NAME} in {builder.data_dir}'
  return parts, source, RecordFormat('image', 'label', 0, builder)


def _sizes(paths: tuple[str, ...]) -> tuple[int, ...]:
  """The sizes of files in bytes, read in parallel for remote files."""

  def size(path: str) -> int:
    if not tf.gfile.Exists(path):
      raise ValueError(f'{path} is missing.')
    if not _is_remote(path) and not os.access(path, os.R_OK):
      raise ValueError(f'{path} may not be read: permission denied.')
    return tf.gfile.Stat(path).length

  with concurrent.futures.ThreadPoolExecutor(32) as executor:
    return tuple(executor.map(size, paths))


def _is_remote(path: str) -> bool:
  return '://' in path


def _check_first_record(part: Part, data: ImageNetData) -> None:
  """Raises ValueError if the first record of a part cannot be used."""
  not_empty = [(path, size) for path, size in zip(part.files, part.sizes) if size]
  if not not_empty:
    return
  path, size = not_empty[0]
  with tf.gfile.GFile(path, 'rb') as stream:
    length = _record_length(stream, size)
    problem = (
      'does not fit into the file; this is no TFRecord file'
      if length is None
      else _find_problem(stream.read(length), data)
    )
  if problem:
    raise ValueError(f'{path}: record 0 {problem}.')


def _find_problem(record: bytes, data: ImageNetData) -> Optional[str]:
  """The problem of a record, such as 'has no ...', or None."""
  layout = data.record_format
  on_cpu = tf.ConfigProto(device_count={'GPU': 0})
  with tf.Graph().as_default(), tf.Session(config=on_cpu) as session:
    try:
      encoded, label = session.run(layout.parse(tf.constant(record)))
    # TensorFlow fails to decode its own message about a record that is not text.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
      return f'is no tf.train.Example with one picture and one label ({messages.reason(error)})'
    if not encoded:
      return f'has no picture under {layout.image_key!r}'
    if not 0 <= label < data.num_classes:
      last = layout.first_label + data.num_classes - 1
      return (
        f'has no label from {layout.first_label} to {last} under '
        f'{layout.label_key!r}, but {label + layout.first_label}'
      )
    try:
      session.run(preprocessing.decode_all(tf.constant(encoded)).op)
    except tf.errors.OpError as error:
      return f'has a picture that is no JPEG or PNG, or damaged ({messages.reason(error)})'
  return None

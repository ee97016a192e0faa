"""Finds and reads CIFAR-10: its own files, TensorFlow Datasets, or synthetic.

Images are unscaled uint8 arrays. Downloads nothing.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import os
import pathlib
import tarfile
import zlib
from typing import Any, Callable, Collection, Iterator, Optional

import numpy as np
from absl import logging

from rigl.cifar_resnet import cifar_pickle, synthetic_cifar
from rigl.data import missing

N_CLASSES = 10
IMAGE_SHAPE = (32, 32, 3)

_TRAIN_FILES = tuple(f'data_batch_{i}' for i in range(1, 6))
_TEST_FILE = 'test_batch'
_FULL_SIZE = {'train': 50000, 'test': 10000}
# Size of the red, green and blue planes of an image, which follow its label.
_PLANES_BYTES = math.prod(IMAGE_SHAPE)
_RECORD_BYTES = 1 + _PLANES_BYTES
_MAX_FILE_BYTES = 10**9

_THREE_WAYS = (
  'CIFAR-10 can be given in three ways:\n'
  '  1. --data_directory=FOLDER with the files data_batch_1 ... data_batch_5 and test_batch of '
  'its python version, the same with .bin of its binary version, or cifar-10-python.tar.gz or '
  'cifar-10-binary.tar.gz, all from https://www.cs.toronto.edu/~kriz/cifar.html;\n'
  '  2. --data_directory=DATA_DIR in which TensorFlow Datasets has prepared cifar10 (without the '
  'flag: $TFDS_DATA_DIR or ~/tensorflow_datasets);\n'
  '  3. --use_synthetic_data for a synthetic problem of the same shape, whose accuracies are not '
  'comparable with those on CIFAR-10.'
)


@dataclasses.dataclass(frozen=True, eq=False)
class CifarData:
  """The two parts of CIFAR-10 or of synthetic data of the same shape.

  Attributes:
    train_images: uint8 [n_train, 32, 32, 3], in RGB.
    train_labels: uint8 [n_train], the classes 0 to 9.
    test_images: uint8 [n_test, 32, 32, 3].
    test_labels: uint8 [n_test].
    source: where the images come from, for log messages.
  """

  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray
  source: str


# (images, labels) of a file or of a part.
_Part = tuple[np.ndarray, np.ndarray]


def load_cifar(
  directory: str | os.PathLike[str] = '', use_synthetic_data: bool = False
) -> CifarData:
  """Loads CIFAR-10 or synthetic data.

  Args:
    directory: folder with the files of CIFAR-10 (python or binary version) or
      their archive; the archive; or a data_dir of TensorFlow Datasets. Empty
      for the default data_dir of TensorFlow Datasets.
    use_synthetic_data: whether to generate data instead.

  Raises:
    FileNotFoundError: no files were found, or some are missing.
    ValueError: a file is damaged or not one of CIFAR-10.
  """
  if use_synthetic_data:
    if directory:
      logging.warning('--use_synthetic_data is given: %s is not read.', directory)
    return make_synthetic()
  path = os.fspath(directory)
  data = _load_files(pathlib.Path(path)) if path else None
  data = data or _load_prepared_tfds(path)
  if data is None:
    raise missing.not_found(
      'CIFAR-10', path, os.listdir(path) if os.path.isdir(path) else None, _THREE_WAYS
    )
  for part, labels in (('train', data.train_labels), ('test', data.test_labels)):
    if len(labels) != _FULL_SIZE[part]:
      logging.warning(
        '%s: the %s part has %d images, that of CIFAR-10 has %d.',
        data.source,
        part,
        len(labels),
        _FULL_SIZE[part],
      )
  return data


def make_synthetic(n_train: int = 5000, n_test: int = 1000) -> CifarData:
  """The data that `synthetic_cifar` describes, the same in every run, for any seed."""
  train, test = (
    synthetic_cifar.make_part(part, n, N_CLASSES, IMAGE_SHAPE[0])
    for part, n in (('train', n_train), ('test', n_test))
  )
  return CifarData(
    *train, *test, source='SYNTHETIC images, not CIFAR-10: accuracies are not comparable'
  )


def parse_python_batch(content: bytes, source: str) -> _Part:
  """Reads a file of the python version.

  Args:
    content: the file: a pickled dict with the planes of the images as a uint8
      array `data` [n, 3072], and a list or an array `labels` [n].
    source: name of the file, for error messages.

  Returns:
    uint8 images [n, 32, 32, 3] and uint8 labels [n].

  Raises:
    ValueError: the file is damaged or not of this format.
  """
  batch = cifar_pickle.read_dict(content, source)
  if not {'data', 'labels'} <= batch.keys():
    raise ValueError(
      f'{source}: expected the keys data and labels, found {", ".join(sorted(batch)) or "none"}.'
    )
  planes = batch['data']
  if not (
    isinstance(planes, np.ndarray)
    and planes.dtype == np.uint8
    and planes.shape[1:] == (_PLANES_BYTES,)
  ):
    raise ValueError(
      f'{source}: expected data as an array of shape [n, {_PLANES_BYTES}] '
      f'and type uint8, found {_describe(planes)}.'
    )
  try:
    labels = np.asarray(batch['labels'])
  except ValueError:  # Lists of different lengths.
    labels = None
  if labels is None or labels.ndim != 1 or labels.dtype.kind not in 'iu':
    raise ValueError(
      f'{source}: expected labels as {len(planes)} whole numbers, found '
      f'{_describe(batch["labels"])}.'
    )
  return _checked(_from_planes(planes), labels, source)


def _describe(value: Any) -> str:
  """Describes a value for an error message."""
  if isinstance(value, np.ndarray):
    return f'{value.dtype} of shape {value.shape}'
  return type(value).__name__


def parse_binary_batch(content: bytes, source: str) -> _Part:
  """Reads a file of the binary version: for each image its label, then its three planes.

  Result and errors are those of `parse_python_batch`.
  """
  if len(content) % _RECORD_BYTES:
    raise ValueError(
      f'{source}: expected a multiple of {_RECORD_BYTES} bytes, found '
      f'{len(content)}; the file is truncated or not of CIFAR-10.'
    )
  records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
  return _checked(_from_planes(records[:, 1:]), records[:, 0], source)


@dataclasses.dataclass(frozen=True)
class _Version:
  """One of the two versions in which CIFAR-10 is published.

  Attributes:
    suffix: suffix of the file names.
    folder: the folder of the files in the archive.
    archive: name of the archive, without .tar.gz.
    parse: reads a file.
  """

  suffix: str
  folder: str
  archive: str
  parse: Callable[[bytes, str], _Part]

  @property
  def files(self) -> tuple[str, ...]:
    return tuple(f'{name}{self.suffix}' for name in (*_TRAIN_FILES, _TEST_FILE))

  def folders(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders to search; Keras 3 unpacks the files into two nested ones."""
    yield from (path, path / self.folder)
    yield from sorted(path.glob(f'*/{self.folder}'))

  def archives(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Paths of the archive to try; Keras names it after the folder."""
    for name in (
      f'{self.archive}.tar.gz',
      self.archive,
      f'{self.folder}.tar.gz',
      f'{self.folder}_archive',
      f'{self.folder}-target_archive',
    ):
      yield path / name


_VERSIONS = (
  _Version('', 'cifar-10-batches-py', 'cifar-10-python', parse_python_batch),
  _Version('.bin', 'cifar-10-batches-bin', 'cifar-10-binary', parse_binary_batch),
)


def _from_planes(planes: np.ndarray) -> np.ndarray:
  """Colour planes [n, 3072] as images [n, 32, 32, 3]."""
  images = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  return np.ascontiguousarray(images)


def _checked(images: np.ndarray, labels: np.ndarray, source: str) -> _Part:
  """Images and labels as uint8, after checking the labels."""
  if not len(images):
    raise ValueError(f'{source}: expected images, found none.')
  if len(images) != len(labels):
    raise ValueError(
      f'{source}: expected a label for each image, found {len(images)} '
      f'images and {len(labels)} labels.'
    )
  for label in (labels.min(), labels.max()):
    if not 0 <= label < N_CLASSES:
      raise ValueError(
        f'{source}: expected labels from 0 to {N_CLASSES - 1}, found {label}; this is not CIFAR-10.'
      )
  return images, labels.astype(np.uint8)


def _load_files(path: pathlib.Path) -> Optional[CifarData]:
  """Loads the published files of CIFAR-10, if they are in `path`."""
  if path.is_file():
    return _load_archive(path)
  for version in _VERSIONS:
    for folder in version.folders(path):
      found = [name for name in version.files if (folder / name).is_file()]
      if found:
        _check_complete(found, version, folder)
        parts = {}
        for name in found:
          _check_size((folder / name).stat().st_size, str(folder / name))
          parts[name] = version.parse((folder / name).read_bytes(), str(folder / name))
        return _join(parts, version, f'the CIFAR-10 files in {folder}')
  for version in _VERSIONS:
    for archive in version.archives(path):
      if archive.is_file():
        return _load_archive(archive)
  return None


def _load_archive(path: pathlib.Path) -> CifarData:
  """Loads CIFAR-10 from a .tar.gz of either version."""
  parts: dict[str, _Part] = {}
  parsers = {name: version.parse for version in _VERSIONS for name in version.files}
  try:
    with gzip.open(path) as stream:
      with tarfile.open(fileobj=stream, mode='r|') as archive:
        for member in archive:
          name = pathlib.PurePosixPath(member.name).name
          if name in parsers and member.isfile():
            source = f'{path}, {member.name}'
            _check_size(member.size, source)
            if content := archive.extractfile(member):
              parts[name] = parsers[name](content.read(), source)
      # Read to the end, where gzip verifies the checksum.
      while stream.read(1 << 20):
        pass
  except (EOFError, gzip.BadGzipFile, tarfile.TarError, zlib.error) as error:
    raise ValueError(
      f'{path}: expected a complete .tar.gz archive of CIFAR-10, found {path.stat().st_size} bytes '
      f'that cannot be unpacked ({error}); the file is truncated or damaged.'
    ) from error
  version = _VERSIONS[1 if any(n.endswith('.bin') for n in parts) else 0]
  _check_complete(parts, version, path)
  return _join(parts, version, f'the CIFAR-10 archive {path}')


def _check_size(n_bytes: int, source: str) -> None:
  """Raises ValueError for files too large to read into memory."""
  if n_bytes > _MAX_FILE_BYTES:
    raise ValueError(
      f'{source}: {n_bytes} bytes are too many for a file of CIFAR-10, which has 31 million.'
    )


def _check_complete(found: Collection[str], version: _Version, place: pathlib.Path) -> None:
  """Raises FileNotFoundError unless all six files were found."""
  lacking = [name for name in version.files if name not in found]
  if lacking:
    names = os.listdir(place) if place.is_dir() else found
    raise FileNotFoundError(
      f'{place} does not hold all of CIFAR-10, but {missing.listing(names) or "none of it"}. '
      f'Expected {", ".join(version.files)}; missing: {", ".join(lacking)}.'
    )


def _join(parts: dict[str, _Part], version: _Version, source: str) -> CifarData:
  """Concatenates the five training files, in order."""
  images, labels = zip(*(parts[name] for name in version.files[:-1]))
  return CifarData(
    np.concatenate(images), np.concatenate(labels), *parts[version.files[-1]], source=source
  )


def _load_prepared_tfds(data_dir: str) -> Optional[CifarData]:
  """Loads the copy that TensorFlow Datasets has prepared, if any."""
  # TensorFlow takes seconds to import, and only this path needs it.
  from rigl.data import prepared_tfds

  builder = prepared_tfds.find(data_dir or prepared_tfds.default_dir(), 'cifar10')
  if builder is None:
    return None
  train, test = (
    _checked(
      *prepared_tfds.read_pictures(builder, part, IMAGE_SHAPE), f'{builder.data_dir}, split {part}'
    )
    for part in ('train', 'test')
  )
  return CifarData(*train, *test, source=f'TensorFlow Datasets in {builder.data_dir}')

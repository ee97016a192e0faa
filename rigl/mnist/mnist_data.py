"""Finds and reads MNIST: its files, TensorFlow Datasets or a small sample.

Digits are unscaled uint8 arrays. Downloads nothing.
"""

from __future__ import annotations

import dataclasses
import gzip
import importlib.resources
import math
import os
import pathlib
import struct
import zipfile
import zlib
from typing import Any, Mapping

import numpy as np

from rigl.data import missing

# Field of MnistData -> name of its IDX file.
IDX_FILES = {
  'train_images': 'train-images-idx3-ubyte',
  'train_labels': 'train-labels-idx1-ubyte',
  'test_images': 't10k-images-idx3-ubyte',
  'test_labels': 't10k-labels-idx1-ubyte',
}
SAMPLE_FOLDER: Any = importlib.resources.files('rigl.mnist') / 'sample'
N_CLASSES = 10
IMAGE_SHAPE = (28, 28)
N_PIXELS = math.prod(IMAGE_SHAPE)

# Field of MnistData -> name of the array in the file that Keras downloads.
_NPZ_ARRAYS = {
  'train_images': 'x_train',
  'train_labels': 'y_train',
  'test_images': 'x_test',
  'test_labels': 'y_test',
}
_NPZ_FILE = 'mnist.npz'
# Subfolders of torchvision's root folder, or of its folder MNIST.
_SUB_FOLDERS = ('', 'raw', 'MNIST/raw')
_ENDINGS = ('', '.gz')
_GZIP_MAGIC = b'\x1f\x8b'
_IDX_UBYTE = 0x08
_EXPECTED = f'Expected the four files {", ".join(IDX_FILES.values())} (with or without .gz)'


@dataclasses.dataclass(frozen=True)
class MnistData:
  """The two parts of MNIST.

  Attributes:
    train_images: uint8 array [n_train, 28, 28], 0 = background, 255 = ink.
    train_labels: uint8 array [n_train], the digits 0 to 9.
    test_images: uint8 array [n_test, 28, 28].
    test_labels: uint8 array [n_test].
    source: Where the digits come from, for log messages.
    is_sample: Whether this is the small sample that ships with the package,
      on which accuracies are lower than on MNIST.
  """

  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray
  source: str
  is_sample: bool


def load_mnist(folder: str | os.PathLike[str], explicit: bool = True) -> MnistData:
  """Loads MNIST from the first place that has it.

  If the user named `folder`, only that. Otherwise, in this order: the files in
  `folder`, a copy that TensorFlow Datasets has prepared on this machine, the
  sample in this package.

  Args:
    folder: Folder with the four IDX files, gzipped or not, as published, as on
      Kaggle or as torchvision stores them; with Keras' mnist.npz; or a data_dir
      of TensorFlow Datasets.
    explicit: Whether the user named the folder, as opposed to a default.

  Raises:
    FileNotFoundError: If the folder has only some of the four files, or none
      although the user named it.
    ValueError: If a file is damaged or does not hold MNIST digits.
  """
  folder = pathlib.Path(folder)
  for place in (folder / name for name in _SUB_FOLDERS):
    if any(_find_idx(place, name) for name in IDX_FILES.values()):
      return _load_idx_folder(place, f'the IDX files in {place}')
  if (folder / _NPZ_FILE).is_file():
    return _load_npz(folder / _NPZ_FILE)
  data = _load_prepared_tfds(str(folder) if explicit else '')
  if data is None and explicit:
    raise missing.not_found(
      'MNIST',
      str(folder),
      os.listdir(folder) if folder.is_dir() else None,
      f"{_EXPECTED}, Keras' {_NPZ_FILE} or what TensorFlow Datasets has prepared.",
    )
  return data or _load_sample()


def read_idx(path: str | os.PathLike[str], ndim: int) -> np.ndarray:
  """Reads an IDX file of unsigned bytes, gzipped or not, as a read-only array of `ndim` dimensions.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged or not an IDX file.
  """
  content = _read_bytes(path)
  header_size = 4 + 4 * ndim
  if len(content) < header_size:
    raise ValueError(
      f'{path}: expected an IDX header of {header_size} bytes, found'
      f' {len(content)} bytes in all; the file is truncated.'
    )
  magic = bytes([0, 0, _IDX_UBYTE, ndim])
  if content[:4] != magic:
    raise ValueError(
      f'{path}: expected the magic number 0x{magic.hex()} of an IDX file of'
      f' bytes with {ndim} dimension(s), found 0x{content[:4].hex()}.'
    )
  shape = struct.unpack(f'>{ndim}I', content[4:header_size])
  expected, actual = math.prod(shape), len(content) - header_size
  if actual != expected:
    problem = 'is truncated' if actual < expected else 'has trailing data'
    raise ValueError(
      f'{path}: expected {expected} bytes for an array of shape {shape}, found'
      f' {actual}; the file {problem}.'
    )
  return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
  """Reads a whole file, gunzipped if it is gzipped."""
  try:
    # In a package imported from a zip file, `path` is not a pathlib.Path.
    readable = path if hasattr(path, 'read_bytes') else pathlib.Path(path)
    content = readable.read_bytes()
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: no such IDX file.') from None
  if not content.startswith(_GZIP_MAGIC):
    return content
  try:
    return gzip.decompress(content)
  except (EOFError, OSError, struct.error, zlib.error) as error:
    raise ValueError(
      f'{path}: expected a complete gzip file, found {len(content)} bytes that'
      f' cannot be unpacked ({error}); the file is truncated or damaged.'
    ) from error


def _find_idx(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  """Returns the path of an IDX file, gzipped or not, or None.

  On Kaggle some names contain a dot, and some files are in a folder of the same
  name.
  """
  names = (name, name.replace('-idx', '.idx'))
  for place in (folder, *(folder / name for name in names)):
    for path in (place / f'{name}{end}' for name in names for end in _ENDINGS):
      if path.is_file():
        return path
  return None


def _load_idx_folder(folder: pathlib.Path, source: str, is_sample: bool = False) -> MnistData:
  """Loads the four IDX files of a folder."""
  paths = {field: path for field, name in IDX_FILES.items() if (path := _find_idx(folder, name))}
  lacking = [name for field, name in IDX_FILES.items() if field not in paths]
  if lacking:
    raise FileNotFoundError(
      f'{folder} holds only a part of MNIST: {missing.listing(os.listdir(folder))}. {_EXPECTED}, '
      f'missing: {", ".join(lacking)}.'
    )
  arrays = {
    field: read_idx(path, ndim=3 if field.endswith('images') else 1)
    for field, path in paths.items()
  }
  return _checked(arrays, {field: str(path) for field, path in paths.items()}, source, is_sample)


def _load_npz(path: pathlib.Path) -> MnistData:
  """Loads the file that Keras downloads."""
  try:
    # Opened here, because numpy does not close a file that it cannot read.
    with path.open('rb') as stream:
      stored = np.load(stream, allow_pickle=False)
      arrays = {field: stored[name] for field, name in _NPZ_ARRAYS.items()}
  except (
    EOFError,
    IndexError,  # Of a single array.
    KeyError,
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise ValueError(
      f'{path}: expected the arrays {", ".join(_NPZ_ARRAYS.values())}, but'
      f' cannot read them ({error}); the file is damaged or another one.'
    ) from error
  for field, name in _NPZ_ARRAYS.items():
    if arrays[field].dtype != np.uint8:
      raise ValueError(f'{path}: expected {name} of bytes, found {arrays[field].dtype}.')
  names = {field: f'{path}, {name}' for field, name in _NPZ_ARRAYS.items()}
  return _checked(arrays, names, str(path))


def _checked(
  arrays: dict[str, np.ndarray], names: Mapping[str, str], source: str, is_sample: bool = False
) -> MnistData:
  """The data of the fields; raises ValueError unless they are digits, each with a label."""
  for part in ('train', 'test'):
    images, labels = arrays[f'{part}_images'], arrays[f'{part}_labels']
    images_name, labels_name = names[f'{part}_images'], names[f'{part}_labels']
    if images.shape[1:] != IMAGE_SHAPE:
      raise ValueError(
        f'{images_name}: expected images of {"x".join(map(str, IMAGE_SHAPE))} pixels, found an '
        f'array of shape {images.shape}.'
      )
    if not len(images):
      raise ValueError(f'{images_name}: expected images, found none.')
    if len(images) != len(labels):
      raise ValueError(
        f'{images_name} holds {len(images)} images, but {labels_name} holds'
        f' {len(labels)} labels; expected one label for each image.'
      )
    for label in (labels.min(), labels.max()):
      if not 0 <= label < N_CLASSES:
        raise ValueError(
          f'{labels_name}: expected labels from 0 to {N_CLASSES - 1}, found {label}.'
        )
    arrays[f'{part}_labels'] = labels.astype(np.uint8, copy=False)
  return MnistData(**arrays, source=source, is_sample=is_sample)


def _load_prepared_tfds(data_dir: str) -> MnistData | None:
  """Loads the copy of MNIST that TensorFlow Datasets has prepared, if any."""
  # TensorFlow takes seconds to import, and only this path needs it.
  from rigl.data import prepared_tfds

  builder = prepared_tfds.find(data_dir or prepared_tfds.default_dir(), 'mnist')
  if builder is None:
    return None
  arrays: dict[str, np.ndarray] = {}
  for part in ('train', 'test'):
    images, labels = prepared_tfds.read_pictures(builder, part, (*IMAGE_SHAPE, 1))
    arrays |= {f'{part}_images': images[..., 0], f'{part}_labels': labels}
  names = {field: f'{builder.data_dir}, split {field.partition("_")[0]}' for field in arrays}
  return _checked(arrays, names, f'TensorFlow Datasets in {builder.data_dir}')


def _load_sample() -> MnistData:
  """Loads the sample in this package."""
  data = _load_idx_folder(SAMPLE_FOLDER, '', is_sample=True)
  return dataclasses.replace(
    data,
    source=(
      f'a sample of {len(data.train_images)} + {len(data.test_images)} digits,'
      ' whose accuracies are not comparable with those on MNIST; for all of it,'
      ' --mnist=FOLDER with its four IDX files'
    ),
  )

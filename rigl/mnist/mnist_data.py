"""Finds and reads MNIST: IDX files, TensorFlow Datasets or a small sample.

The digits come as arrays of bytes, unscaled. Nothing is ever downloaded.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import os
import pathlib
import struct
import zlib

import numpy as np

from rigl.data import missing

# Field of MnistData -> name of its IDX file, which may also end in ".gz".
IDX_FILES = {
  'train_images': 'train-images-idx3-ubyte',
  'train_labels': 'train-labels-idx1-ubyte',
  'test_images': 't10k-images-idx3-ubyte',
  'test_labels': 't10k-labels-idx1-ubyte',
}
SAMPLE_FOLDER = pathlib.Path(__file__).resolve().parent / 'sample'
N_CLASSES = 10

_IMAGE_SHAPE = (28, 28)
_GZIP_MAGIC = b'\x1f\x8b'
_IDX_UBYTE = 0x08
_FILE_LIST = ', '.join(IDX_FILES.values())


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


def load_mnist(
  folder: str | os.PathLike[str], explicit: bool = True
) -> MnistData:
  """Loads MNIST from the best place that has it.

  In this order: the IDX files in `folder`; a copy that TensorFlow Datasets has
  prepared on this machine before; the sample that ships with the package. Only
  IDX files will do when the user asked for `folder`.

  Args:
    folder: Folder of the four IDX files, each gzipped or not.
    explicit: Whether the user named the folder, as opposed to a default.

  Returns:
    The digits.

  Raises:
    FileNotFoundError: If only some of the four files are in the folder, or none
      although the user named it.
    ValueError: If a file is not a complete IDX file of MNIST digits, or one of
      TensorFlow Datasets is missing, truncated or damaged.
  """
  folder = pathlib.Path(folder)
  found = [name for name in IDX_FILES.values() if _find_idx(folder, name)]
  if found:
    return _load_idx_folder(folder, f'the IDX files in {folder}')
  if explicit:
    raise missing.not_found(
      'MNIST', str(folder), folder.is_dir(),
      f'Expected the four files {_FILE_LIST} (with or without .gz).'
    )
  return _load_prepared_tfds() or _load_sample()


def read_idx(path: str | os.PathLike[str], ndim: int) -> np.ndarray:
  """Reads an IDX file of unsigned bytes.

  Args:
    path: The file. Whether it is gzipped shows in its content, not its name.
    ndim: Number of dimensions that it must have.

  Returns:
    Read-only uint8 array.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged, truncated or something else.
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
    content = pathlib.Path(path).read_bytes()
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
  """Returns the path of an IDX file, gzipped or not, or None."""
  for path in (folder / name, folder / f'{name}.gz'):
    if path.is_file():
      return path
  return None


def _load_idx_folder(
  folder: pathlib.Path, source: str, is_sample: bool = False
) -> MnistData:
  """Loads the four IDX files of a folder."""
  paths = {field: _find_idx(folder, name) for field, name in IDX_FILES.items()}
  missing = [IDX_FILES[field] for field, path in paths.items() if not path]
  if missing:
    raise FileNotFoundError(
      f"{folder} holds only a part of MNIST. Expected the four files"
      f" {_FILE_LIST} (with or without .gz), missing: {', '.join(missing)}."
    )
  arrays = {
    field: read_idx(path, ndim=3 if field.endswith('images') else 1)
    for field, path in paths.items()
  }
  for part in ('train', 'test'):
    _check_part(
      arrays[f'{part}_images'],
      arrays[f'{part}_labels'],
      images_name=str(paths[f'{part}_images']),
      labels_name=str(paths[f'{part}_labels']),
    )
  return MnistData(**arrays, source=source, is_sample=is_sample)


def _check_part(
  images: np.ndarray, labels: np.ndarray, images_name: str, labels_name: str
) -> None:
  """Raises ValueError unless these are digits with a label each."""
  if images.shape[1:] != _IMAGE_SHAPE:
    raise ValueError(
      f'{images_name}: expected images of 28x28 pixels, found an array of shape'
      f' {images.shape}.'
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
        f'{labels_name}: expected labels from 0 to {N_CLASSES - 1}, found'
        f' {label}.'
      )


def _load_prepared_tfds() -> MnistData | None:
  """Loads MNIST as prepared on disk by TensorFlow Datasets, if it is there."""
  # TensorFlow takes seconds to import, and only this path needs it.
  from rigl.data import prepared_tfds

  folder = prepared_tfds.find_prepared(prepared_tfds.default_dir(), 'mnist')
  if folder is None:
    return None
  arrays = {}
  for part in ('train', 'test'):
    split = prepared_tfds.read_split(folder, 'mnist', part)
    images, labels = prepared_tfds.read_pictures(split, (*_IMAGE_SHAPE, 1))
    images = images[..., 0]
    _check_part(
      images, labels, images_name=split.source, labels_name=split.source
    )
    arrays[f'{part}_images'] = images
    arrays[f'{part}_labels'] = labels.astype(np.uint8)
  source = f'TensorFlow Datasets in {folder}'
  return MnistData(**arrays, source=source, is_sample=False)


def _load_sample() -> MnistData:
  """Loads the sample that ships with the package."""
  data = _load_idx_folder(SAMPLE_FOLDER, '', is_sample=True)
  return dataclasses.replace(
    data,
    source=(
      f'a sample of {len(data.train_images)} + {len(data.test_images)} digits,'
      ' whose accuracies are not comparable with those on MNIST; for all of it,'
      ' --mnist=FOLDER with its four IDX files'
    ),
  )

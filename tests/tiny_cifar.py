"""A tiny CIFAR-10 in every supported format."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import pickle
import struct
import tarfile
from typing import Callable

import numpy as np

from tests import tiny_tfds

TRAIN_FILES = [f'data_batch_{i}' for i in range(1, 6)]
PYTHON_FILES = [*TRAIN_FILES, 'test_batch']
BINARY_FILES = [f'{name}.bin' for name in PYTHON_FILES]


@dataclasses.dataclass
class Images:
  """Images and labels of the parts train and test."""

  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray


def make_images(n_train: int = 50, n_test: int = 20) -> Images:
  """Images of random pixels and labels."""
  random_state = np.random.RandomState(3)
  arrays = []
  for n in (n_train, n_test):
    arrays.append(random_state.randint(0, 256, (n, 32, 32, 3)).astype(np.uint8))
    arrays.append(random_state.randint(0, 10, n).astype(np.uint8))
  return Images(*arrays)


def planes(images: np.ndarray) -> np.ndarray:
  """uint8 [n, 3072]: the red, the green, then the blue pixels of each image."""
  return np.stack(
    [np.concatenate([image[..., channel].ravel() for channel in range(3)]) for image in images]
  )


def python_batch(images: np.ndarray, labels: np.ndarray, protocol: int = 2) -> bytes:
  """A file of the python version, as Python 3 pickles it."""
  batch = {
    b'batch_label': b'a batch',
    b'labels': labels.tolist(),
    b'data': planes(images),
    b'filenames': [b'%d.png' % i for i in range(len(images))],
  }
  return pickle.dumps(batch, protocol)


def python2_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
  """A file of the python version, as the original: pickled by Python 2.

  Its strings are of a type that Python 3 cannot write.
  """

  def short(text: bytes) -> bytes:
    return b'U' + bytes([len(text)]) + text

  def integer(value: int) -> bytes:
    return b'M' + struct.pack('<H', value)

  content = planes(images).tobytes()
  array = b''.join(
    [
      b'cnumpy.core.multiarray\n_reconstruct\nq\x08cnumpy\nndarray\nq\x09K\x00',
      b'\x85q\x0a',
      short(b'b'),
      b'q\x0b\x87q\x0cRq\x0d(K\x01',
      integer(len(images)),
      integer(3072),
      b'\x86q\x0e',
      b'cnumpy\ndtype\nq\x0f',
      short(b'u1'),
      b'q\x10K\x00K\x01\x87q\x11Rq\x12',
      b'(K\x03',
      short(b'|'),
      b'q\x13NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff',
      b'K\x00tq\x14b\x89',
      b'T',
      struct.pack('<i', len(content)),
      content,
      b'q\x15tq\x16b',
    ]
  )
  return b''.join(
    [
      b'\x80\x02}q\x01(',
      short(b'data'),
      b'q\x02',
      array,
      short(b'labels'),
      b'q\x03]q\x04(',
      b''.join(b'K' + bytes([label]) for label in labels),
      b'e',
      short(b'batch_label'),
      b'q\x05',
      short(b'training batch 1 of 5'),
      b'q\x06u.',
    ]
  )


def binary_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
  """A file of the binary version."""
  return b''.join(bytes([label]) + row.tobytes() for label, row in zip(labels, planes(images)))


def files(
  data: Images, suffix: str, encode: Callable[[np.ndarray, np.ndarray], bytes]
) -> dict[str, bytes]:
  """{file name: content} of all six files."""
  parts = zip(np.array_split(data.train_images, 5), np.array_split(data.train_labels, 5))
  contents = {f'{name}{suffix}': encode(*part) for name, part in zip(TRAIN_FILES, parts)}
  contents[f'test_batch{suffix}'] = encode(data.test_images, data.test_labels)
  return contents


def write_folder(folder: pathlib.Path, contents: dict[str, bytes]) -> pathlib.Path:
  """Writes files to a new folder; returns it."""
  folder.mkdir(parents=True)
  for name, content in contents.items():
    (folder / name).write_bytes(content)
  return folder


def write_archive(
  path: pathlib.Path, contents: dict[str, bytes], inside: str = 'cifar-10'
) -> pathlib.Path:
  """Writes files to a .tar.gz, below a folder `inside`; returns its path."""
  path.parent.mkdir(parents=True, exist_ok=True)
  # As in the original, they are in no order, and there are others.
  contents = {'readme.html': b'<html>', **contents}
  with tarfile.open(path, 'w:gz') as archive:
    for name in reversed(list(contents)):
      member = tarfile.TarInfo(f'{inside}/{name}')
      member.size = len(contents[name])
      archive.addfile(member, io.BytesIO(contents[name]))
  return path


def write_tfds(data_dir: pathlib.Path, data: Images, version: str = '3.0.2') -> pathlib.Path:
  """Has TensorFlow Datasets prepare `data` as cifar10; returns its folder."""
  return tiny_tfds.write(
    data_dir,
    'cifar10',
    version,
    data.train_images.shape[1:],
    'png',
    10,
    {
      'train': zip(data.train_images, data.train_labels),
      'test': zip(data.test_images, data.test_labels),
    },
    shard_length=20,
  )

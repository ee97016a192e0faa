"""A tiny ImageNet in every supported format."""

from __future__ import annotations

import io
import os
import pathlib
from typing import Iterator, Optional, Sequence

import numpy as np
from PIL import Image

from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_data
from tests import tiny_tfds

N_CLASSES = 5


def make_pixels(seed: int, height: int = 20, width: int = 24) -> np.ndarray:
  """A smooth picture, uint8 [height, width, 3]; JPEG changes it little."""
  rng = np.random.RandomState(seed)
  small = rng.randint(40, 215, (3, 4, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray, image_format: str = 'JPEG', mode: str = 'RGB') -> bytes:
  """Pixels as a file, in another colour space if asked for."""
  stream = io.BytesIO()
  picture = Image.fromarray(pixels).convert(mode)
  options = {'quality': 95, 'subsampling': 0} if image_format == 'JPEG' else {}
  if mode == 'L':
    options.pop('subsampling', None)
  picture.save(stream, image_format, **options)
  return stream.getvalue()


def make_record(encoded: bytes | None, label: int | None) -> bytes:
  """A serialized tf.train.Example; without what is None."""
  feature = {
    'image/filename': tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'picture.JPEG']))
  }
  if encoded is not None:
    feature['image/encoded'] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
  if label is not None:
    feature['image/class/label'] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
  return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def make_records(n: int, first: int = 0) -> list[bytes]:
  """Records of pictures first, first + 1, ...; picture i is of class i % 5."""
  return [make_record(encode(make_pixels(i)), i % N_CLASSES + 1) for i in range(first, first + n)]


def write_part(
  folder: pathlib.Path, part: str, records: Sequence[bytes], n_shards: int
) -> list[pathlib.Path]:
  """Writes TFRecords of about equally many successive records."""
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  bounds = np.linspace(0, len(records), n_shards + 1).astype(int)
  for shard in range(n_shards):
    path = folder / f'{part}-{shard:05d}-of-{n_shards:05d}'
    with tf.io.TFRecordWriter(str(path)) as writer:
      for record in records[bounds[shard] : bounds[shard + 1]]:
        writer.write(record)
    paths.append(path)
  return paths


def write_folder(
  folder: pathlib.Path,
  n_train: int = 23,
  n_eval: int = 9,
  train_records: Optional[Sequence[bytes]] = None,
) -> pathlib.Path:
  """Writes both parts; validation pictures have the numbers 1000, ..."""
  write_part(folder, 'train', train_records or make_records(n_train), 3)
  write_part(folder, 'validation', make_records(n_eval, 1000), 2)
  return folder


def write_tfds(
  data_dir: pathlib.Path,
  n_train: int = 23,
  n_eval: int = 9,
  version: str = '5.1.0',
  name: str = 'imagenet2012',
) -> pathlib.Path:
  """Has TensorFlow Datasets prepare the same pictures; returns its folder."""

  def examples(first: int, n: int) -> Iterator[tuple[io.BytesIO, int]]:
    for i in range(first, first + n):
      yield io.BytesIO(encode(make_pixels(i))), i % N_CLASSES

  return tiny_tfds.write(
    data_dir,
    name,
    version,
    (None, None, 3),
    'jpeg',
    N_CLASSES,
    {'train': examples(0, n_train), 'validation': examples(1000, n_eval)},
    shard_length=8,
  )


def find(
  directory: str | os.PathLike[str] | None, n_train: int = 23, n_eval: int = 9, **options
) -> imagenet_data.ImageNetData:
  """find_data() of a folder, or of none, with the numbers above."""
  return imagenet_data.find_data(
    directory and str(directory),
    **{'num_train_images': n_train, 'num_eval_images': n_eval, 'num_classes': N_CLASSES, **options},
  )

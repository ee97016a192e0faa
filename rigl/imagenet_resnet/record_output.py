"""Writes records in the format of ImageNet's TFRecords."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence

from rigl import files
from rigl.compat import tf


def check_empty(flag: str, folder: str) -> None:
  """Raises ValueError for a folder, given by a flag, that exists and is not empty."""
  if os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
    raise ValueError(
      f'{folder} exists and is not an empty folder: choose another --{flag}, or delete it first.'
    )


def make_example(
  encoded: bytes,
  size: tuple[int, int],
  class_number: int,
  class_name: str,
  name: str,
  *,
  image_format: str = 'JPEG',
  colour_space: str = 'RGB',
) -> tf.train.Example:
  """A record as in ImageNet's TFRecords, with a bounding box of the whole picture.

  The size is width and height; classes are counted from 0. The colour space is 'RGB' or 'CMYK'.
  """

  def text(value: str | bytes) -> tf.train.Feature:
    value = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

  def integer(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

  def real(value: float) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

  label = class_number + 1
  return tf.train.Example(
    features=tf.train.Features(
      feature={
        'image/encoded': text(encoded),
        'image/format': text(image_format),
        'image/colorspace': text(colour_space),
        'image/channels': integer(3),
        'image/filename': text(name),
        'image/height': integer(size[1]),
        'image/width': integer(size[0]),
        'image/class/label': integer(label),
        'image/class/text': text(class_name),
        'image/class/synset': text(f's{label:08d}'),
        'image/object/bbox/xmin': real(0.0),
        'image/object/bbox/ymin': real(0.0),
        'image/object/bbox/xmax': real(1.0),
        'image/object/bbox/ymax': real(1.0),
        'image/object/bbox/label': integer(label),
      }
    )
  )


def write_file(
  folder: str, part: str, shard: int, n_shards: int, examples: Iterable[tf.train.Example]
) -> str:
  """Writes a file of a part, 'train' or 'validation'; returns its path.

  The file appears in the existing folder when it is complete. Shards are counted from 0.
  """
  path = os.path.join(folder, f'{part}-{shard:05d}-of-{n_shards:05d}')
  with files.replaced(path) as temporary:
    with tf.io.TFRecordWriter(temporary) as writer:
      for example in examples:
        # Otherwise the order of features would be random.
        writer.write(example.SerializeToString(deterministic=True))
  return path


def training_command(
  folder: str, num_classes: int, num_train: int, num_eval: int, flags: Sequence[str]
) -> str:
  """A command line that trains on the records in a folder, with further lines of flags."""
  lines = (
    '  python -m rigl.imagenet_resnet.imagenet_train_eval',
    f'--data_directory={shlex.quote(folder)} --num_label_classes={num_classes}',
    f'--num_train_images={num_train} --num_eval_images={num_eval}',
    *flags,
    f'--output_dir={shlex.quote(folder + "_rigl")}',
  )
  return ' \\\n      '.join(lines)

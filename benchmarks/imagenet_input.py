"""Images per second of the ImageNet pipeline of training, and where time goes.

    python benchmarks/imagenet_input.py [--batch_size 64] [--batches 16]

The data are JPEGs of the size and detail of photographs, in TFRecords in a
temporary folder. The pipeline of training is timed alternately with one that
decodes whole pictures before cropping. Then the CPU time of its stages is
measured, each together with the preceding ones; the difference is the share of
a stage. Only ratios and shares carry over to other machines.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from typing import Callable

import numpy as np
import timing
from PIL import Image

from rigl.compat import tf, tf2
from rigl.imagenet_resnet import (
  imagenet_data,
  imagenet_input,
  preprocessing,
  record_input,
  record_output,
)

N_CLASSES = 10
WIDTH, HEIGHT = 500, 375
IMAGE_SIZE = 224
_AUTOTUNE = tf.data.experimental.AUTOTUNE


def make_photo(random_state: np.random.RandomState) -> bytes:
  """A JPEG of gradients with detail at all scales, about 100 kB."""
  pixels = np.full((HEIGHT, WIDTH, 3), 128.0)
  for scale in (2, 4, 8, 32, 128):
    small = random_state.normal(0.0, 6.0 * scale**0.4, (HEIGHT // scale + 2, WIDTH // scale + 2, 3))
    for channel in range(3):
      layer = Image.fromarray(small[..., channel].astype(np.float32))
      pixels[..., channel] += np.asarray(layer.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
  stream = io.BytesIO()
  Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, 'JPEG', quality=95)
  return stream.getvalue()


def write_data(folder: str, n_images: int) -> imagenet_data.ImageNetData:
  """Writes photos as training data, in 8 files."""
  random_state = np.random.RandomState(0)
  for shard in range(8):
    record_output.write_file(
      folder,
      'train',
      shard,
      8,
      (
        record_output.make_example(
          make_photo(random_state), (WIDTH, HEIGHT), i % N_CLASSES, str(i % N_CLASSES), f'{i}.JPEG'
        )
        for i in range(shard, n_images, 8)
      ),
    )
  return imagenet_data.find_data(
    folder, num_train_images=n_images, num_eval_images=1, num_classes=N_CLASSES
  )


def naive_dataset(data: imagenet_data.ImageNetData, batch_size: int) -> tf.data.Dataset:
  """Similar batches, from completely decoded pictures."""

  def prepare(record):
    features = tf.io.parse_single_example(
      record,
      {
        'image/encoded': tf.io.FixedLenFeature([], tf.string),
        'image/class/label': tf.io.FixedLenFeature([], tf.int64),
      },
    )
    image = tf.image.decode_jpeg(features['image/encoded'], 3)
    begin, size, _ = tf2.image.sample_distorted_bounding_box(
      tf.shape(image),
      tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
      area_range=preprocessing.AREA_RANGE,
      aspect_ratio_range=preprocessing.ASPECT_RATIO_RANGE,
    )
    image = tf.image.resize(tf.slice(image, begin, size), [IMAGE_SIZE] * 2, 'bicubic')
    image.set_shape([IMAGE_SIZE, IMAGE_SIZE, 3])
    return tf.image.random_flip_left_right(image), features['image/class/label']

  dataset = tf.data.TFRecordDataset(list(data.train.files)).repeat()
  return dataset.shuffle(1024).map(prepare, _AUTOTUNE).batch(batch_size).prefetch(_AUTOTUNE)


def stages(
  data: imagenet_data.ImageNetData, batch_size: int
) -> dict[str, Callable[[], tf.data.Dataset]]:
  """{name: dataset that ends after this stage}, in order."""

  def seeds(number):
    return tf.stack([tf.constant(0, tf.int64), number])

  def records():
    return record_input.training_records(data, data.train, 0, 0).enumerate()

  def encoded(record):
    return tf.io.parse_single_example(
      record[2], {'image/encoded': tf.io.FixedLenFeature([], tf.string)}
    )['image/encoded']

  def window(number):
    return lambda height, width: preprocessing.random_window(
      height, width, seeds(number), IMAGE_SIZE
    )

  def decoded(number, record):
    return preprocessing.decode_window(encoded(record), window(number))

  def resized(number, record):
    return tf.raw_ops.ResizeBicubic(images=decoded(number, record)[None], size=[IMAGE_SIZE] * 2)[0]

  def finished(number, record):
    return preprocessing.preprocess_train(encoded(record), seeds(number), seeds(number), IMAGE_SIZE)

  def mapped(function):
    # Keep one value of each result: it must be computed, but not copied.
    return lambda: (
      records()
      .map(
        lambda number, record: tf.reshape(function(number, record), [-1])[0],
        _AUTOTUNE,
        deterministic=True,
      )
      .batch(batch_size)
      .prefetch(_AUTOTUNE)
    )

  return {
    'read and shuffle': mapped(lambda number, record: tf.strings.length(record[2])),
    'parse': mapped(lambda number, record: tf.strings.length(encoded(record))),
    'decode and crop': mapped(decoded),
    'resize': mapped(resized),
    'flip and clip': mapped(finished),
    'check and batch': lambda: pipeline(data, batch_size),
  }


def pipeline(data: imagenet_data.ImageNetData, batch_size: int) -> tf.data.Dataset:
  """The pipeline of training."""
  return imagenet_input.Pipeline(data, batch_size, 'train').batches()


class Runner:
  """Runs a dataset without copying batches out of TensorFlow."""

  def __init__(self, make_dataset: Callable[[], tf.data.Dataset], n_batches: int):
    with tf.Graph().as_default():
      # Finite, so that it does nothing while others are timed.
      iterator = tf.data.make_initializable_iterator(make_dataset().take(n_batches))
      element = iterator.get_next()
      self._start = iterator.initializer
      self._op = tf.nest.flatten(element)[0].op
      self._session = tf.Session()

  def run(self) -> tuple[float, float]:
    """Runs all batches; returns wall-clock and CPU seconds."""
    begin = time.perf_counter(), time.process_time()
    self._session.run(self._start)
    try:
      while True:
        self._session.run(self._op)
    except tf.errors.OutOfRangeError:
      return time.perf_counter() - begin[0], time.process_time() - begin[1]


def measure_rates(
  data: imagenet_data.ImageNetData, batch_size: int, n_batches: int, repeats: int
) -> None:
  """Prints images per second of the pipelines."""
  runners = {
    'pipeline': Runner(lambda: pipeline(data, batch_size), n_batches),
    'naive': Runner(lambda: naive_dataset(data, batch_size), n_batches),
  }
  rates = timing.medians_in_turns(
    {
      name: lambda runner=runner: n_batches * batch_size / runner.run()[0]
      for name, runner in runners.items()
    },
    repeats,
  )
  print('            images/s   pipeline is')
  for name, rate in rates.items():
    print(f'{name:10s} {rate:9,.0f} {rates["pipeline"] / rate:12.2f}x')


def measure_stages(
  data: imagenet_data.ImageNetData, batch_size: int, n_batches: int, repeats: int
) -> None:
  """Prints the share of each stage in the CPU time."""
  runners = {
    name: Runner(make_dataset, n_batches) for name, make_dataset in stages(data, batch_size).items()
  }
  times = timing.medians_in_turns(
    {
      name: lambda runner=runner: runner.run()[1] / (n_batches * batch_size)
      for name, runner in runners.items()
    },
    repeats,
  )
  total, before = list(times.values())[-1], 0.0
  print('stage              us an image   share')
  for name, seconds in times.items():
    added, before = seconds - before, seconds
    print(f'{name:18s} {added * 1e6:11.0f} {added / total:7.1%}')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=64,
    metavar='N',
    help='images in a batch (default: %(default)s)',
  )
  parser.add_argument(
    '--batches',
    type=int,
    default=16,
    metavar='N',
    help='batches of a measurement (default: %(default)s)',
  )
  parser.add_argument(
    '--repeats',
    type=int,
    default=5,
    metavar='N',
    help='runs of each, in turns (default: %(default)s)',
  )
  parser.add_argument(
    '--images', type=int, default=256, metavar='N', help='images in the data (default: %(default)s)'
  )
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    data = write_data(folder, arguments.images)
    print(f'{sum(data.train.sizes) / arguments.images / 1000:.0f} kB a picture')
    sizes = arguments.batch_size, arguments.batches, arguments.repeats
    measure_rates(data, *sizes)
    measure_stages(data, *sizes)


if __name__ == '__main__':
  main()

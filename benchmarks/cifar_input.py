"""Images per second of the CIFAR-10 pipeline alone.

    python benchmarks/cifar_input.py [--batch_size 128] [--batches 200]

The data are random bytes of the size of CIFAR-10. Three ways to make the same
batches are timed alternately: the pipeline of training, a plain numpy gather
without augmentation, and a pipeline that processes one image at a time with
tf.image. Only the ratios carry over to other machines.
"""

from __future__ import annotations

import argparse
from typing import Callable

import numpy as np
import timing

from rigl.cifar_resnet import data_helper
from rigl.compat import tf, tf2
from rigl.core import ordering

N_IMAGES = 50_000


def make_images() -> tuple[np.ndarray, np.ndarray]:
  """Random images and labels."""
  rng = np.random.RandomState(0)
  images = rng.bytes(N_IMAGES * 32 * 32 * 3)
  return (
    np.frombuffer(images, np.uint8).reshape(-1, 32, 32, 3),
    rng.randint(0, 10, N_IMAGES).astype(np.uint8),
  )


def one_by_one_dataset(images: np.ndarray, labels: np.ndarray, batch_size: int) -> tf.data.Dataset:
  """Augments single images, in the order and by the rules of training."""

  def examples():
    epoch = 0
    while True:
      for i in ordering.epoch_order(len(images), 0, epoch).reshape(-1, 100):
        yield images[i], labels[i], 100 * epoch + i
      epoch += 1

  def prepare(image, label, number):
    image = tf.image.per_image_standardization(image)
    image = tf.pad(image, [[4, 4], [4, 4], [0, 0]], 'SYMMETRIC')
    seed = tf.stack([tf.constant(0, tf.int64), number])
    image = tf2.image.stateless_random_crop(image, [32, 32, 3], seed)
    image = tf2.image.stateless_random_flip_left_right(image, seed)
    return image, tf.cast(label, tf.int32)

  dataset = tf.data.Dataset.from_generator(
    examples,
    output_signature=(
      tf.TensorSpec([100, 32, 32, 3], tf.uint8),
      tf.TensorSpec([100], tf.uint8),
      tf.TensorSpec([100], tf.int64),
    ),
  )
  autotune = tf.data.experimental.AUTOTUNE
  dataset = dataset.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))
  return (
    dataset.map(prepare, autotune, deterministic=True)
    .batch(batch_size, drop_remainder=True)
    .prefetch(autotune)
  )


class Pipeline:
  """Runs a dataset, batch by batch."""

  def __init__(self, make_dataset: Callable[[], tf.data.Dataset]):
    with tf.Graph().as_default():
      batch = tf.data.make_one_shot_iterator(make_dataset()).get_next()
      # Only the op, so that nothing is copied out of TensorFlow, as in
      # training.
      self._op = batch[0].op
      self._session = tf.Session()

  def run(self, n: int) -> None:
    for _ in range(n):
      self._session.run(self._op)


class Gather:
  """Gathers the bytes of the batches of training from the array."""

  def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int):
    self._images, self._labels = images, labels
    self._batch_size = batch_size
    self._iteration = 0

  def run(self, n: int) -> None:
    n_batches = len(self._images) // self._batch_size
    for k in range(self._iteration, self._iteration + n):
      if k % n_batches == 0 or k == self._iteration:
        order = ordering.epoch_order(len(self._images), 0, k // n_batches)
      begin = k % n_batches * self._batch_size
      chosen = order[begin : begin + self._batch_size]
      self._images[chosen], self._labels[chosen]
    self._iteration += n


def images_per_second(
  sources: dict[str, Pipeline | Gather], batch_size: int, n_batches: int, repeats: int
) -> dict[str, float]:
  """Median over rounds of n_batches batches of each source."""
  return timing.medians_in_turns(
    {
      name: lambda source=source: (
        n_batches * batch_size / timing.seconds_of(lambda: source.run(n_batches))
      )
      for name, source in sources.items()
    },
    repeats,
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=128,
    metavar='N',
    help='images in a batch (default: %(default)s)',
  )
  parser.add_argument(
    '--batches',
    type=int,
    default=200,
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
  arguments = parser.parse_args()
  images, labels = make_images()
  size = arguments.batch_size
  rates = images_per_second(
    {
      'pipeline': Pipeline(lambda: data_helper.train_dataset(images, labels, size, seed=0)),
      'numpy gather': Gather(images, labels, size),
      'one by one': Pipeline(lambda: one_by_one_dataset(images, labels, size)),
    },
    size,
    arguments.batches,
    arguments.repeats,
  )
  print('                images/s   pipeline is')
  for name, rate in rates.items():
    print(f'{name:14s} {rate:9,.0f} {rates["pipeline"] / rate:12.2f}x')


if __name__ == '__main__':
  main()

"""Batches of CIFAR-10, determined by the seed.

Training batch k depends only on the seed and k: `ordering.epoch_order` gives
its images, and stateless random numbers its augmentation. A resumed training
gets the same batches as one without interruption. The graph does not contain
the data set; each batch is passed to it as bytes.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Iterator, Mapping, Optional

import numpy as np

from rigl import tf_random
from rigl.cifar_resnet import cifar_data
from rigl.compat import tf
from rigl.core import checks, ordering, seeding

MODES = ('train', 'eval')
# Pixels of padding on each side before the random crop.
PADDING = 4

_SIZE, _, _CHANNELS = cifar_data.IMAGE_SHAPE
_N_VALUES = _SIZE * _SIZE * _CHANNELS


def input_fn(params: Mapping[str, Any]) -> tf.data.Dataset:
  """The batches for training or evaluation.

  Training batches are endless. Each epoch has its own order and drops its last
  incomplete batch; images are cropped and flipped at random. Evaluation visits
  every test image exactly once, in order; its last batch may be smaller.

  Args:
    params: dict of
      batch_size: images in a batch.
      mode: 'train' or 'eval'.
      data: a CifarData. Add it in a wrapper of this function, because an
        Estimator copies its own params. Without it:
      data_directory, use_synthetic_data: what to load, see
        cifar_data.load_cifar.
      seed: training: of order and augmentation; default 0.
      first_iteration: training: number of the first batch; default 0. To
        resume, the number of batches already taken.

  Returns:
    dataset of (images float32 [batch, 32, 32, 3], labels int32 [batch]), each
    image standardised to mean 0 and variance 1.

  Raises:
    ValueError: a parameter is missing or out of range.
    FileNotFoundError: there are no data, see cifar_data.load_cifar.
  """
  mode, batch_size = params.get('mode'), params.get('batch_size')
  checks.one_of('mode', mode, MODES)
  if batch_size is None:
    raise ValueError('batch_size is missing.')
  seed = params.get('seed') or 0
  data = params.get('data')
  if data is None:
    data = cifar_data.load_cifar(
      params.get('data_directory', ''), params.get('use_synthetic_data', False)
    )
  if mode == 'eval':
    return eval_dataset(data.test_images, data.test_labels, batch_size)
  return train_dataset(
    data.train_images, data.train_labels, batch_size, seed, params.get('first_iteration') or 0
  )


def train_dataset(
  images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, first_iteration: int = 0
) -> tf.data.Dataset:
  """The training batches first_iteration, first_iteration + 1, ..., endlessly.

  Args:
    images: uint8 [n, 32, 32, 3].
    labels: uint8 [n].
    batch_size: at most n.
    seed: seed of order and augmentation.
    first_iteration: number of the first batch.

  Returns:
    dataset of (float32 [batch, 32, 32, 3], int32 [batch]).

  Raises:
    ValueError: an argument is out of range.
  """
  checks.positive('batch_size', batch_size)
  if batch_size > len(images):
    raise ValueError(f'batch_size {batch_size} is more than the {len(images)} training images.')
  checks.not_negative('first_iteration', first_iteration)

  def prepare(
    pixels: tf.Tensor, label: tf.Tensor, iteration: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    tops, lefts, flips = draw_augmentation(batch_size, seed, iteration)
    # Crop before scaling, because bytes move faster. The statistics are those
    # of the whole image before the crop.
    mean, stddev = pixel_statistics(pixels)
    cropped = crop_and_flip(pixels, tops, lefts, flips)
    return (tf.cast(cropped, tf.float32) - mean) / stddev, tf.cast(label, tf.int32)

  dataset = tf.data.Dataset.from_generator(
    functools.partial(training_batches, images, labels, batch_size, seed, first_iteration),
    output_signature=(*_batch_spec(batch_size), tf.TensorSpec([], tf.int64)),
  )
  return _in_parallel(dataset, prepare)


def training_batches(
  images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, first_iteration: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
  """The images, labels and number of each batch of `train_dataset`, before augmentation."""
  n_batches = len(images) // batch_size
  epoch, order = -1, np.empty(0, int)
  for iteration in itertools.count(first_iteration):
    if epoch != iteration // n_batches:
      epoch = iteration // n_batches
      order = ordering.epoch_order(len(images), seed, epoch)
    begin = iteration % n_batches * batch_size
    chosen = order[begin : begin + batch_size]
    yield images[chosen], labels[chosen], iteration


def eval_dataset(images: np.ndarray, labels: np.ndarray, batch_size: int) -> tf.data.Dataset:
  """All images exactly once and in order; the last batch may be smaller.

  Arguments, result and errors are those of `train_dataset`.
  """
  checks.positive('batch_size', batch_size)

  def prepare(pixels: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean, stddev = pixel_statistics(pixels)
    return (tf.cast(pixels, tf.float32) - mean) / stddev, tf.cast(label, tf.int32)

  dataset = tf.data.Dataset.from_generator(
    functools.partial(eval_batches, images, labels, batch_size), output_signature=_batch_spec(None)
  )
  return _in_parallel(dataset, prepare)


def eval_batches(
  images: np.ndarray, labels: np.ndarray, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """The images and labels of each batch of `eval_dataset`."""
  for begin in range(0, len(images), batch_size):
    yield images[begin : begin + batch_size], labels[begin : begin + batch_size]


def pixel_statistics(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """The mean and the standard deviation of each image.

  Computed by sums of integers, which, unlike sums of floats, do not depend on
  how threads share the work.

  Args:
    images: uint8 [batch, 32, 32, 3].

  Returns:
    two float32 [batch, 1, 1, 1]. The standard deviation has a lower bound, so
    that it can be divided by: 1 / sqrt(number of values).
  """
  values = tf.cast(images, tf.int32)
  axes = [1, 2, 3]
  total = tf.reduce_sum(values, axes, keepdims=True)
  squares = tf.cast(tf.reduce_sum(values * values, axes, keepdims=True), tf.int64)
  total_squared = tf.square(tf.cast(total, tf.int64))
  variance = tf.cast(_N_VALUES * squares - total_squared, tf.float64) / (_N_VALUES**2)
  stddev = tf.maximum(tf.sqrt(variance), _N_VALUES**-0.5)
  return tf.cast(total, tf.float32) / _N_VALUES, tf.cast(stddev, tf.float32)


def draw_augmentation(
  batch_size: int, seed: int, iteration: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Where to crop each image of a batch, and whether to flip it.

  Args:
    batch_size: number of images.
    seed: the user's seed.
    iteration: int64 scalar, the number of the batch.

  Returns:
    int32 [batch] of first rows, int32 [batch] of first columns, both in the
    padded image, and bool [batch] of flips.
  """

  def draw(purpose: str, end: int) -> tf.Tensor:
    digest = seeding.stable_seed('cifar', purpose, seed)
    return tf.random.stateless_uniform(
      [batch_size],
      tf.stack([tf.constant(digest, tf.int64), iteration]),
      0,
      end,
      tf.int32,
      alg=tf_random.GENERATOR,
    )

  positions = 2 * PADDING + 1
  return (
    draw('crop_top', positions),
    draw('crop_left', positions),
    tf.cast(draw('flip', 2), tf.bool),
  )


def crop_and_flip(
  images: tf.Tensor, tops: tf.Tensor, lefts: tf.Tensor, flips: tf.Tensor
) -> tf.Tensor:
  """Pads images by reflection, crops and flips them.

  Args:
    images: [batch, 32, 32, 3]; padded by 4 pixels on all sides, by reflection
      that includes the edge itself (symmetric padding).
    tops: int32 [batch], first row of the crop in the padded image, 0 to 8.
    lefts: int32 [batch], first column of the crop, 0 to 8.
    flips: bool [batch], whether to swap left and right.

  Returns:
    [batch, 32, 32, 3], of the same type.
  """
  forth = tf.range(_SIZE)
  across = tf.where_v2(flips[:, None], _SIZE - 1 - forth, forth)
  rows = _mirrored(tops[:, None] + forth - PADDING)
  columns = _mirrored(lefts[:, None] + across - PADDING)
  # A gather from the unpadded image is far faster than tf.pad and a crop.
  positions = rows[:, :, None] * _SIZE + columns[:, None, :]
  return tf.gather(tf.reshape(images, [-1, _SIZE * _SIZE, _CHANNELS]), positions, batch_dims=1)


def _mirrored(positions: tf.Tensor) -> tf.Tensor:
  """Positions of pixels, reflected at the edges of the image."""
  positions = tf.maximum(positions, -1 - positions)
  return tf.minimum(positions, 2 * _SIZE - 1 - positions)


def _batch_spec(batch_size: Optional[int]) -> tuple[tf.TensorSpec, ...]:
  return (
    tf.TensorSpec([batch_size, *cifar_data.IMAGE_SHAPE], tf.uint8),
    tf.TensorSpec([batch_size], tf.uint8),
  )


def _in_parallel(dataset: tf.data.Dataset, prepare: Any) -> tf.data.Dataset:
  """Maps batches in parallel, keeping their order."""
  autotune = tf.data.experimental.AUTOTUNE
  # `prepare` has no control flow to convert.
  prepare = tf.autograph.experimental.do_not_convert(prepare)
  return dataset.map(prepare, autotune, deterministic=True).prefetch(autotune)

"""Batches of digits; the iteration alone determines a batch."""

from __future__ import annotations

import functools
from typing import Iterator, Optional

import numpy as np

from rigl.compat import tf
from rigl.core import ordering


def flat_pixels(images: np.ndarray, kept_pixels: Optional[np.ndarray] = None) -> np.ndarray:
  """uint8 images [n, 28, 28] as rows [n, n_pixels] of all pixels, or of those in bool [784]."""
  rows = images.reshape(len(images), -1)
  return rows if kept_pixels is None else np.ascontiguousarray(rows[:, kept_pixels])


def scale_pixels(images: tf.Tensor) -> tf.Tensor:
  """uint8 pixels as float32 in [0, 1]."""
  return tf.cast(images, tf.float32) / 255.0


def train_dataset(
  images: np.ndarray,
  labels: np.ndarray,
  batch_size: int,
  first_iteration: int,
  end_iteration: int,
  seed: int,
) -> tf.data.Dataset:
  """The training batches of the iterations [first_iteration, end_iteration).

  Each epoch has its own order and drops the last incomplete batch. A resumed
  training gets the same batches as one without interruption.

  Args:
    images: uint8 [n, n_pixels].
    labels: uint8 [n].
    batch_size: at most n.
    first_iteration: the first iteration.
    end_iteration: the last iteration + 1.
    seed: seed of the order.

  Returns:
    dataset of (float32 [batch, n_pixels] in [0, 1], int32 [batch]).
  """
  n_pixels = images.shape[1]
  dataset = tf.data.Dataset.from_generator(
    functools.partial(epochs, images, labels, batch_size, first_iteration, end_iteration, seed),
    (tf.uint8, tf.uint8),
    (tf.TensorShape([None, batch_size, n_pixels]), tf.TensorShape([None, batch_size])),
  )
  dataset = dataset.flat_map(lambda *epoch: tf.data.Dataset.from_tensor_slices(epoch))
  dataset = dataset.map(lambda image, label: (scale_pixels(image), tf.cast(label, tf.int32)))
  return dataset.prefetch(4)


def epochs(
  images: np.ndarray,
  labels: np.ndarray,
  batch_size: int,
  first_iteration: int,
  end_iteration: int,
  seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """The batches of `train_dataset`, (uint8 [n, batch, n_pixels], uint8 [n, batch]) an epoch.

  TensorFlow calls Python, and numpy gathers, once for all batches of an epoch.
  """
  n_batches = len(images) // batch_size
  for epoch in range(first_iteration // n_batches, -(-end_iteration // n_batches)):
    order = ordering.epoch_order(len(images), seed, epoch)
    begin = max(first_iteration - epoch * n_batches, 0)
    end = min(end_iteration - epoch * n_batches, n_batches)
    chosen = order[begin * batch_size : end * batch_size]
    yield (
      images[chosen].reshape(end - begin, batch_size, images.shape[1]),
      labels[chosen].reshape(end - begin, batch_size),
    )

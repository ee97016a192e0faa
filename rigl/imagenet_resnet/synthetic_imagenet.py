"""A synthetic problem in the shape of ImageNet, made up while it is used.

A class is a coloured pattern of two plane waves. An image shows it at a random
place and contrast, under noise. Nothing is stored: image i follows from the
seed and i, so that a data set of a million images costs nothing and is the same
in every epoch. What accuracy a network reaches on it says nothing about
ImageNet.
"""

from __future__ import annotations

import numpy as np

from rigl.compat import tf
from rigl.core import seeding

_HIGHEST_FREQUENCY = 8
# In steps of the 256 of a pixel.
_CONTRAST = (25., 50.)
_NOISE = 25.


def label(part: str, index: tf.Tensor, num_classes: int,
          seed: int) -> tf.Tensor:
  """The class of an image, an int32 scalar.

  In each run of num_classes images every class occurs once, and the last one
  may be incomplete.

  Args:
    part: 'train' or 'validation'.
    index: int64 scalar, number of the image in its part.
    num_classes: number of classes.
    seed: of the problem.
  """
  order = _random_state(f'{part}/labels', seed).permutation(num_classes)
  return tf.gather(tf.constant(order, tf.int32), index % num_classes)


def image(part: str, index: tf.Tensor, num_classes: int, seed: int,
          image_size: int) -> tf.Tensor:
  """An image.

  Args:
    part: 'train' or 'validation'; they share the classes, not the images.
    index: int64 scalar, number of the image in its part.
    num_classes: number of classes.
    seed: of the problem.
    image_size: height and width.

  Returns:
    float32 [image_size, image_size, 3], from 0 to 255.
  """
  def draw(purpose: str) -> tf.Tensor:
    digest = seeding.stable_seed('synthetic_imagenet', f'{part}/{purpose}',
                                 seed)
    return tf.stack([tf.constant(digest, tf.int64), index])

  class_number = label(part, index, num_classes, seed)
  frequencies, phases, colours = (
      tf.gather(table, class_number) for table in _patterns(num_classes, seed))
  position = tf.range(image_size, dtype=tf.float32) / image_size
  shift = tf.random.stateless_uniform([2], draw('shift'), alg='philox')
  # [wave, row, column].
  turns = (frequencies[:, 0, None, None] * (position + shift[0])[:, None] +
           frequencies[:, 1, None, None] * (position + shift[1]) +
           phases[:, None, None])
  pattern = tf.einsum('wyx,wc->yxc', tf.cos(2. * np.pi * turns), colours)
  contrast = tf.random.stateless_uniform(
      [], draw('contrast'), *_CONTRAST, alg='philox')
  noise = tf.random.stateless_normal(
      [image_size, image_size, 3], draw('noise'), stddev=_NOISE, alg='philox')
  return tf.clip_by_value(
      tf.round(128. + contrast * pattern + noise), 0., 255.)


def _patterns(num_classes: int,
              seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Two waves for each class.

  Returns:
    float32 frequencies [class, 2, 2] (wave, down or across), phases [class, 2]
    in turns and colours [class, 2, 3] of norm 1.
  """
  random_state = _random_state('classes', seed)
  frequencies = random_state.randint(
      -_HIGHEST_FREQUENCY, _HIGHEST_FREQUENCY + 1, (num_classes, 2, 2))
  frequencies[(frequencies == 0).all(axis=2)] = 1
  phases = random_state.uniform(size=(num_classes, 2))
  colours = random_state.randn(num_classes, 2, 3)
  colours /= np.linalg.norm(colours, axis=2, keepdims=True)
  return tuple(table.astype(np.float32)
               for table in (frequencies, phases, colours))


def _random_state(purpose: str, seed: int) -> np.random.RandomState:
  return np.random.RandomState(
      seeding.stable_seed('synthetic_imagenet', purpose, seed))

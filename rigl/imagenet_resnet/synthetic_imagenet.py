"""Synthetic data of the shape of ImageNet, generated during training.

A class is a coloured pattern of two plane waves. An image shows the pattern
with a random shift and contrast, plus noise. Nothing is stored: the number of
an image determines it, so a data set of a million images needs no space and is
the same in every epoch and every run. Accuracies on it say nothing about
ImageNet.
"""

from __future__ import annotations

import numpy as np

from rigl import tf_random
from rigl.compat import tf
from rigl.core import seeding
from rigl.data import plane_waves

_NAME = 'synthetic_imagenet'
_HIGHEST_FREQUENCY = 8
# In units of pixel values, 0 to 255.
_CONTRAST = (25.0, 50.0)
_NOISE = 25.0


def label(part: str, index: tf.Tensor, num_classes: int) -> tf.Tensor:
  """The class of image number `index` of a part, an int32 scalar.

  Every num_classes consecutive images have one image of each class.
  """
  order = plane_waves.random_state(_NAME, f'{part}/labels').permutation(num_classes)
  return tf.gather(tf.constant(order, tf.int32), index % num_classes)


def image(part: str, index: tf.Tensor, num_classes: int, image_size: int) -> tf.Tensor:
  """Image number `index`, an int64 scalar: float32 [image_size, image_size, 3], from 0 to 255.

  The parts, 'train' and 'validation', share the classes, not the images.
  """

  def draw(purpose: str) -> tf.Tensor:
    digest = seeding.stable_seed(_NAME, f'{part}/{purpose}')
    return tf.stack([tf.constant(digest, tf.int64), index])

  class_number = label(part, index, num_classes)
  # Two waves for each class.
  waves = plane_waves.draw(
    (num_classes, 2), _HIGHEST_FREQUENCY, plane_waves.random_state(_NAME, 'classes')
  )
  frequencies, phases, colours = (
    tf.gather(table.astype(np.float32), class_number) for table in waves
  )
  position = tf.range(image_size, dtype=tf.float32) / image_size
  shift = tf.random.stateless_uniform([2], draw('shift'), alg=tf_random.GENERATOR)
  # [wave, row, column].
  turns = (
    frequencies[:, 0, None, None] * (position + shift[0])[:, None]
    + frequencies[:, 1, None, None] * (position + shift[1])
    + phases[:, None, None]
  )
  pattern = tf.einsum('wyx,wc->yxc', tf.cos(2.0 * np.pi * turns), colours)
  contrast = tf.random.stateless_uniform([], draw('contrast'), *_CONTRAST, alg=tf_random.GENERATOR)
  noise = tf.random.stateless_normal(
    [image_size, image_size, 3], draw('noise'), stddev=_NOISE, alg=tf_random.GENERATOR
  )
  return tf.clip_by_value(tf.round(128.0 + contrast * pattern + noise), 0.0, 255.0)

"""Synthetic data of the shape of CIFAR-10, to try things without data.

A class is a coloured pattern of two waves. An image shows the pattern with a
random shift (cyclic) and contrast, plus a wave of random direction and colour,
plus noise. Because of the shifts the mean image of each class is almost grey: a
linear classifier is mostly wrong, while a small convolutional network learns
the classes within a few hundred steps. Its accuracy says nothing about
CIFAR-10.
"""

from __future__ import annotations

import numpy as np

from rigl.data import plane_waves

_NAME = 'synthetic_cifar'
_HIGHEST_FREQUENCY = 4
# In units of pixel values, 0 to 255.
_CONTRAST = (15.0, 45.0)
_BACKGROUND = 30.0
_NOISE = 35.0
_BLOCK = 500


def make_part(part: str, n: int, n_classes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws a part of the data, with equally many images per class.

  Parts share the classes, not the images.

  Returns:
    uint8 images [n, size, size, 3] and uint8 labels [n].
  """
  patterns = _patterns(n_classes, size, plane_waves.random_state(_NAME, 'classes'))
  random_state = plane_waves.random_state(_NAME, part)
  labels = random_state.permutation(np.arange(n) % n_classes)
  # In blocks, because noise takes eight times the memory of the pixels.
  images = [np.zeros((0, size, size, 3), np.uint8)] + [
    _images(patterns[labels[i : i + _BLOCK]], random_state) for i in range(0, n, _BLOCK)
  ]
  return np.concatenate(images), labels.astype(np.uint8)


def _waves(n: int, size: int, random_state: np.random.RandomState) -> np.ndarray:
  """Plane waves of random direction, phase and colour, float [n, h, w, 3].

  They are periodic in the image, and of mean 0 and amplitude 1.
  """
  frequencies, phases, colours = plane_waves.draw((n,), _HIGHEST_FREQUENCY, random_state)
  position = 2.0 * np.pi * np.arange(size) / size
  angles = (
    frequencies[:, 0, None, None] * position[:, None]
    + frequencies[:, 1, None, None] * position
    + 2.0 * np.pi * phases[:, None, None]
  )
  return np.cos(angles)[..., None] * colours[:, None, None, :]


def _patterns(n_classes: int, size: int, random_state: np.random.RandomState) -> np.ndarray:
  """The pattern of each class, float [class, h, w, 3]."""
  waves = _waves(2 * n_classes, size, random_state)
  return waves[:n_classes] + waves[n_classes:]


def _images(patterns: np.ndarray, random_state: np.random.RandomState) -> np.ndarray:
  """An image of each pattern, uint8 [n, h, w, 3]."""
  n, size = patterns.shape[:2]
  shifts = random_state.randint(0, size, (2, n))
  rows, columns = (shifts[:, :, None] + np.arange(size)) % size
  shifted = patterns[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
  pixels = random_state.uniform(*_CONTRAST, (n, 1, 1, 1)) * shifted
  pixels += _BACKGROUND * _waves(n, size, random_state)
  pixels += _NOISE * random_state.standard_normal(shifted.shape)
  return np.clip(np.rint(128.0 + pixels), 0, 255).astype(np.uint8)

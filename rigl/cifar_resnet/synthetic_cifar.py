"""A synthetic problem in the shape of CIFAR-10, to try things out without data.

A class is a coloured pattern of two waves. An image shows it shifted around the
torus by a random amount and at a random contrast, over a wave of a random
direction and colour and under noise. The shifts leave the mean image of each
class almost grey, so that a linear classifier is wrong more often than right,
while a small convolutional network learns the classes within a few hundred
steps. What accuracy it reaches says nothing about CIFAR-10.
"""

from __future__ import annotations

import numpy as np

from rigl.core import seeding

N_CLASSES = 10
SIZE = 32

_HIGHEST_FREQUENCY = 4
# In steps of the 256 of a pixel.
_CONTRAST = (15., 45.)
_BACKGROUND = 30.
_NOISE = 35.
_BLOCK = 500


def make_part(part: str, n: int,
              seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Draws a part of the problem; the classes are as many as each other.

  Args:
    part: a name; parts of different names share the classes, not the images.
    n: number of images.
    seed: of the classes and the images.

  Returns:
    uint8 images [n, 32, 32, 3] and uint8 labels [n].
  """
  patterns = _patterns(_random_state('classes', seed))
  random_state = _random_state(part, seed)
  labels = random_state.permutation(np.arange(n) % N_CLASSES)
  # In blocks, for noise takes eight times the memory of the pixels.
  images = [np.zeros((0, SIZE, SIZE, 3), np.uint8)] + [
      _images(patterns[labels[i:i + _BLOCK]], random_state)
      for i in range(0, n, _BLOCK)
  ]
  return np.concatenate(images), labels.astype(np.uint8)


def _random_state(purpose: str, seed: int) -> np.random.RandomState:
  return np.random.RandomState(
      seeding.stable_seed('synthetic_cifar', purpose, seed))


def _waves(n: int, random_state: np.random.RandomState) -> np.ndarray:
  """Plane waves of random direction, phase and colour, float [n, 32, 32, 3].

  They are periodic in the image, and of mean 0 and amplitude 1.
  """
  frequencies = random_state.randint(
      -_HIGHEST_FREQUENCY, _HIGHEST_FREQUENCY + 1, (n, 2))
  frequencies[(frequencies == 0).all(axis=1)] = 1
  phases = random_state.uniform(0., 2. * np.pi, n)
  colours = random_state.randn(n, 3)
  colours /= np.linalg.norm(colours, axis=1, keepdims=True)
  position = 2. * np.pi * np.arange(SIZE) / SIZE
  angles = (frequencies[:, 0, None, None] * position[:, None] +
            frequencies[:, 1, None, None] * position +
            phases[:, None, None])
  return np.cos(angles)[..., None] * colours[:, None, None, :]


def _patterns(random_state: np.random.RandomState) -> np.ndarray:
  """The pattern of each class, float [10, 32, 32, 3]."""
  waves = _waves(2 * N_CLASSES, random_state)
  return waves[:N_CLASSES] + waves[N_CLASSES:]


def _images(patterns: np.ndarray,
            random_state: np.random.RandomState) -> np.ndarray:
  """An image of each pattern, uint8 [n, 32, 32, 3]."""
  n = len(patterns)
  shifts = random_state.randint(0, SIZE, (2, n))
  rows, columns = (shifts[:, :, None] + np.arange(SIZE)) % SIZE
  shifted = patterns[
      np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
  pixels = random_state.uniform(*_CONTRAST, (n, 1, 1, 1)) * shifted
  pixels += _BACKGROUND * _waves(n, random_state)
  pixels += _NOISE * random_state.standard_normal(shifted.shape)
  return np.clip(np.rint(128. + pixels), 0, 255).astype(np.uint8)

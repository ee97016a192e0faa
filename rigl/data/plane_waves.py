"""Random plane waves, for the classes of synthetic problems."""

from __future__ import annotations

import numpy as np

from rigl.core import seeding


def random_state(problem: str, purpose: str) -> np.random.RandomState:
  """The generator of random numbers for one purpose of a problem."""
  return np.random.RandomState(seeding.stable_seed(problem, purpose))


def draw(
  shape: tuple[int, ...], highest_frequency: int, generator: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws direction, phase and colour of plane waves that fit a square image.

  Args:
    shape: shape of the array of waves.
    highest_frequency: largest number of periods, down or across.
    generator: random number generator.

  Returns:
    int [*shape, 2] of periods down and across, not both 0; float64 [*shape] of
    phases in turns; float64 [*shape, 3] of colours of norm 1.
  """
  frequencies = generator.randint(-highest_frequency, highest_frequency + 1, (*shape, 2))
  frequencies[(frequencies == 0).all(axis=-1)] = 1
  phases = generator.uniform(size=shape)
  colours = generator.randn(*shape, 3)
  colours /= np.linalg.norm(colours, axis=-1, keepdims=True)
  return frequencies, phases, colours

"""Plane waves."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.data import plane_waves


@pytest.mark.parametrize('shape', [(500,), (250, 2)])
def test_draws(shape):
  frequencies, phases, colours = plane_waves.draw(shape, 2, np.random.RandomState(0))
  assert frequencies.shape == (*shape, 2)
  assert phases.shape == shape
  assert colours.shape == (*shape, 3)
  assert set(frequencies.ravel()) == {-2, -1, 0, 1, 2}
  # A wave of frequency 0 would be a plain colour.
  assert np.abs(frequencies).max(axis=-1).min() == 1
  assert 0.0 <= phases.min() < 0.1 and 0.9 < phases.max() < 1.0
  np.testing.assert_allclose(np.linalg.norm(colours, axis=-1), 1.0)
  assert colours.min() < 0.0 < colours.max()


def test_generators_of_other_purposes_differ():
  draws = [
    plane_waves.random_state(problem, purpose).randint(2**31)
    for problem in ('a', 'b')
    for purpose in ('x', 'y')
  ]
  assert len(set(draws)) == 4
  assert plane_waves.random_state('a', 'x').randint(2**31) == draws[0]

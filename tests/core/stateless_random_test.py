"""Tests of rigl.core.stateless_random."""

import numpy as np
import pytest

from rigl.core import arrays, rows, stateless_random
from tests import execution_modes

# Both draws, as functions of (like, seed).
DRAWS = {
  'uniform': stateless_random.uniform,
  'near_normal': stateless_random.near_normal,
  'noise': lambda like, seed: stateless_random.noise(like, seed, 1e-5),
}


def _draw(name, shape, seed, mode=execution_modes.NUMPY):
  return execution_modes.run(
    mode,
    lambda like, step: [DRAWS[name](like, (seed[0], step))],
    np.zeros(shape, np.float32),
    np.asarray(seed[1], np.int32),
  )[0]


@pytest.mark.parametrize('name', DRAWS)
@pytest.mark.parametrize('shape', [[], [7], [3, 4], [2, 3, 4, 5], [0, 3]])
def test_draws_have_the_shape_and_are_float32(name, shape):
  got = _draw(name, shape, [1, 2])
  assert got.shape == tuple(shape)
  assert got.dtype == np.float32


@pytest.mark.parametrize('name', DRAWS)
def test_draws_depend_on_both_halves_of_the_seed_only(name):
  draws = {
    seed: _draw(name, [100], seed)
    for seed in [(1, 2), (1, 3), (2, 2), (2, 1), (0, 0), (2**31 - 1, 0)]
  }
  np.testing.assert_array_equal(draws[1, 2], _draw(name, [100], (1, 2)))
  values = list(draws.values())
  for i, first in enumerate(values):
    for second in values[:i]:
      assert np.abs(np.corrcoef(first, second)[0, 1]) < 0.5


@pytest.mark.parametrize('name', DRAWS)
@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
def test_draws_are_the_same_in_all_modes(name, mode):
  """Masks depend on them, so every library must draw the same bits.

  The step is an argument: with a constant one the graph would be folded before
  it reaches XLA, and the test could not fail.
  """
  expected = _draw(name, [50, 41], [1234567, 89])
  got = _draw(name, [50, 41], [1234567, 89], mode)
  np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
def test_joined_noise_is_that_of_each_layer(mode):
  """Of an odd number, of one, and of more numbers than a row has."""
  likes = [np.zeros(shape, np.float32) for shape in [(3, 5), (1,), (2, 4099), ()]]
  seeds = [(11 * i, 7) for i in range(len(likes))]

  def draw(*layers):
    found = rows.Rows(arrays.of(layers[0]), [layer.shape for layer in layers])
    return found.split(stateless_random.joined_noise(found, seeds, 0.5))

  for like, seed, found in zip(likes, seeds, execution_modes.run(mode, draw, *likes)):
    np.testing.assert_array_equal(found, stateless_random.noise(like, seed, 0.5))


def test_uniform_is_uniform():
  draw = _draw('uniform', [200, 500], [5, 6])
  assert draw.min() >= 0.0 and draw.max() < 1.0
  counts, _ = np.histogram(draw, bins=20, range=(0.0, 1.0))
  # 5,000 in each bin, standard deviation 69.
  assert np.abs(counts - 5000).max() < 5 * 69
  # Rows are independent draws, and neighbours are uncorrelated.
  assert np.abs(np.corrcoef(draw[0], draw[1])[0, 1]) < 0.25
  flat = draw.ravel()
  assert np.abs(np.corrcoef(flat[:-1], flat[1:])[0, 1]) < 0.02


def test_uniform_hardly_ever_ties():
  draw = _draw('uniform', [1000], [5, 6])
  assert len(np.unique(draw)) > 995


def test_near_normal_is_symmetric_uncorrelated_and_hardly_ever_ties():
  """Both halves come from the same bytes, in the order of the positions."""
  draw = _draw('near_normal', [200001], [3, 4]).astype(np.float64)
  halves = draw[:100000], draw[100001:]
  for half in halves:
    half /= half.std()
    assert np.abs(half.mean()) < 0.015
    assert np.abs((half**3).mean()) < 0.03
    assert np.abs(np.corrcoef(half[:-1], half[1:])[0, 1]) < 0.015
    assert np.abs((np.abs(half) < 1.0).mean() - 0.6827) < 0.02
    assert len(np.unique(half[:1000])) > 990
  assert np.abs(np.corrcoef(*halves)[0, 1]) < 0.015


@pytest.mark.parametrize('stddev', [1e-5, 3.0, 0.0])
def test_noise_is_near_normal_of_about_the_standard_deviation(stddev):
  like = np.zeros(1000, 'f')
  noise = stateless_random.noise(like, (3, 4), stddev)
  if not stddev:
    assert not noise.any()
    return
  factor = noise / stateless_random.near_normal(like, (3, 4))
  np.testing.assert_allclose(factor, factor[0], rtol=1e-6)
  assert 1 / 1.42 < factor[0] / stddev < 1.42


def test_near_normal_is_close_to_gaussian():
  draw = _draw('near_normal', [100000], (3, 4)).astype(np.float64)
  assert np.abs(draw.mean()) < 0.02
  # Its sampling error is .0022.
  assert np.abs(draw.std() - 1.0) < 0.008
  assert np.abs(draw).max() < 3.5
  # Share within one, two and three standard deviations.
  for bound, share in [(1, 0.6827), (2, 0.9545), (3, 0.9973)]:
    assert np.abs((np.abs(draw) < bound).mean() - share) < 0.02


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
def test_noise_added_to_scores_is_the_same_in_all_modes(mode):
  """A compiler may fuse the product of a draw with an addition behind it."""
  scores = np.random.RandomState(0).randn(64, 33).astype('f')

  def add(scores, step):
    # The step may also be a Python number.
    return [scores + stateless_random.noise(scores, (11, kind), 0.3) for kind in (step, 5)]

  step = np.asarray(5, np.int32)
  expected, _ = execution_modes.run(execution_modes.NUMPY, add, scores, step)
  for got in execution_modes.run(mode, add, scores, step):
    np.testing.assert_array_equal(got, expected)


def test_draws_of_other_seeds_are_no_part_of_each_other():
  """They would overlap if the seed only shifted the start of one sequence."""
  one = _draw('uniform', [2000], (1, 2))
  for seed in ((1, 3), (2, 2), (0, 0)):
    other = _draw('uniform', [2000], seed)
    assert len(np.intersect1d(one, other)) < 10


@pytest.mark.parametrize('name', ['uniform', 'near_normal'])
def test_positions_far_apart_are_uncorrelated(name):
  """Powers of 2 apart, where positions differ in one bit or few."""
  n = 2**18
  draw = _draw(name, [n], (12345, 3)).astype(np.float64)
  draw = (draw - draw.mean()) / draw.std()
  for lag in 2 ** np.arange(17):
    # In standard errors; the largest of 34 is below 4.5.
    assert abs((draw[:-lag] * draw[lag:]).mean()) * np.sqrt(n - lag) < 4.5, lag

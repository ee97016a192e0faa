"""Tests of rigl.core.grow_init."""

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import grow_init
from tests import execution_modes

DTYPES = [np.float32, np.float64, tf.bfloat16.as_numpy_dtype]
SEED = (17, 4)
WEIGHT_INITS = ['zeros', 'initial_dist', 'random_normal', 'random_uniform']
GRADIENT_INITS = ['grad_scale', 'grad_sign']

RNG = np.random.RandomState(0)
WEIGHTS = RNG.randn(40, 50).astype(np.float32) * 3.0
INITIAL = RNG.randn(40, 50).astype(np.float32)
GRADIENT = RNG.randn(40, 50).astype(np.float32)
GRADIENT[0, :5] = 0.0


def _values(name, dtype=np.float32, seed=SEED, mode=execution_modes.GRAPH):
  has_gradient = name.startswith('grad')

  def grow(weights, initial, gradient, step):
    return [
      grow_init.grow_values(
        name,
        weights,
        (seed[0], step),
        lambda: initial,
        (lambda: gradient) if has_gradient else None,
      )
    ]

  return execution_modes.run(
    mode,
    grow,
    WEIGHTS.astype(dtype),
    INITIAL.astype(dtype),
    GRADIENT.astype(dtype),
    np.asarray(seed[1], np.int32),
  )[0]


@pytest.mark.parametrize('divisor', ['', '_2', '_.5', '_10.', '_1.25'])
@pytest.mark.parametrize('name', WEIGHT_INITS + GRADIENT_INITS)
def test_valid_names(name, divisor):
  assert grow_init.parse_grow_init(name + divisor, True) == (name, float(divisor[1:] or 1))


@pytest.mark.parametrize('name', GRADIENT_INITS)
def test_gradient_initialisations_need_a_dense_gradient(name):
  with pytest.raises(ValueError, match=f'{name}.*zeros') as error:
    grow_init.parse_grow_init(name, False)
  assert name not in str(error.value).split('is not one of')[1]
  with pytest.raises(ValueError):
    grow_init.grow_values(name, tf.zeros([2]), SEED)


@pytest.mark.parametrize(
  'name',
  [
    '',
    'zero',
    'ones',
    'initial_value',
    'random',
    'random_normal_',
    'random_normal_-3',
    'random_normal_1e3',
    'random_normal_x',
    'zeros 2',
    'grad_scale_1_2',
    'Zeros',
    '_2',
    None,
    3,
    0.0,
    b'zeros',
    ['zeros'],
  ],
)
def test_unknown_names_are_rejected_with_the_options(name):
  with pytest.raises(ValueError) as error:
    grow_init.parse_grow_init(name, True)
  assert repr(name) in str(error.value)
  for option in WEIGHT_INITS + GRADIENT_INITS:
    assert option in str(error.value)


@pytest.mark.parametrize('name', ['random_normal_0', 'grad_sign_0.0'])
def test_a_divisor_of_zero_is_rejected(name):
  with pytest.raises(ValueError, match=f"'{name}' would divide by zero"):
    grow_init.parse_grow_init(name, True)


def test_initial_dist_needs_the_initial_values():
  with pytest.raises(ValueError, match='initial values'):
    grow_init.grow_values('initial_dist', tf.zeros([2]), SEED)


@pytest.mark.parametrize('name', WEIGHT_INITS)
def test_only_what_is_needed_is_computed(name):

  def fail():
    raise AssertionError('This value is not needed.')

  with tf.Graph().as_default():
    initial = (lambda: tf.zeros([2])) if name == 'initial_dist' else fail
    grow_init.grow_values(name, tf.zeros([2]), SEED, initial, fail)


@pytest.mark.parametrize('dtype', DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize('name', WEIGHT_INITS + GRADIENT_INITS)
def test_values_have_the_shape_and_type_of_the_weights(name, dtype):
  got = _values(f'{name}_3', dtype)
  assert got.shape == WEIGHTS.shape
  assert got.dtype == dtype


def test_zeros():
  np.testing.assert_array_equal(_values('zeros'), np.zeros_like(WEIGHTS))
  np.testing.assert_array_equal(_values('zeros_5'), np.zeros_like(WEIGHTS))


def test_grad_scale_is_the_gradient_over_the_divisor():
  np.testing.assert_array_equal(_values('grad_scale'), GRADIENT)
  np.testing.assert_array_equal(_values('grad_scale_4'), GRADIENT / 4)


def test_grad_sign_is_the_sign_over_the_divisor():
  np.testing.assert_array_equal(_values('grad_sign_4'), np.sign(GRADIENT) / 4)
  assert not _values('grad_sign')[0, :5].any()


def test_initial_dist_is_a_shuffle_of_the_initial_values():
  got = _values('initial_dist')
  assert (got != INITIAL).mean() > 0.9
  np.testing.assert_array_equal(np.sort(got, None), np.sort(INITIAL, None))
  np.testing.assert_array_equal(_values('initial_dist_2'), got / 2)


def test_random_normal_has_the_standard_deviation_of_all_weights():
  got = _values('random_normal_10')
  assert np.abs(got.std() / (WEIGHTS.std() / 10) - 1.0) < 0.05
  assert np.abs(got.mean()) < 0.03
  assert np.abs(np.corrcoef(got.ravel(), WEIGHTS.ravel())[0, 1]) < 0.1


def test_random_uniform_lies_within_the_mean_magnitude():
  got = _values('random_uniform_10')
  bound = np.abs(WEIGHTS).mean() / 10
  assert np.abs(got).max() <= bound * (1 + 1e-6)
  # Both ends are reached and both signs occur alike.
  assert got.max() > 0.99 * bound and got.min() < -0.99 * bound
  assert np.abs(got.mean()) < 0.1 * bound


@pytest.mark.parametrize('name', ['initial_dist', 'random_normal', 'random_uniform'])
def test_draws_are_functions_of_the_seed(name):
  first = _values(name)
  np.testing.assert_array_equal(first, _values(name))
  for other in ((17, 5), (18, 4)):
    got = _values(name, seed=other)
    assert (got != first).mean() > 0.9


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
@pytest.mark.parametrize('name', WEIGHT_INITS + GRADIENT_INITS)
def test_values_are_the_same_in_all_modes(name, mode):
  # Reductions may round differently, draws must be the same.
  np.testing.assert_allclose(
    _values(f'{name}_2', mode=mode), _values(f'{name}_2'), rtol=1e-4, atol=1e-5
  )


def test_all_values_of_one_weight():
  """The standard deviation of one weight is 0."""
  got = execution_modes.run(
    execution_modes.GRAPH,
    lambda w: [
      grow_init.grow_values('random_normal', w, SEED),
      grow_init.grow_values('random_uniform', w, SEED),
    ],
    np.asarray([-2.0], np.float32),
  )
  assert got[0] == 0.0
  assert 0.0 < np.abs(got[1]) <= 2.0

"""Tests of rigl.model_pruning.initializers."""

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import initializers, layers

INITIALIZERS = {
  'glorot_uniform': initializers.glorot_uniform,
  'variance_scaling': initializers.variance_scaling,
  'random_normal': lambda: initializers.random_normal(0.01),
}

# Bounds measured on the 2020 implementation.
GLOROT_BOUNDS = [
  ([784, 300], 0.07439795),
  ([300, 100], 0.122474484),
  ([100, 10], 0.23354968),
  ([3, 3, 16, 64], 0.09128709),
]
# Likewise: (shape, standard deviation before both tails are cut at two).
TRUNCATED_STDDEVS = [([7, 7, 3, 64], 0.09376558), ([3, 3, 64, 64], 0.047368634)]


def _draw(make_initializer, scope='layer', shape=(20, 30), seed=0, dtype=tf.float32, n_other_ops=0):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    for _ in range(n_other_ops):
      tf.random.normal([3])
    with tf.variable_scope(scope):
      variable = tf.get_variable('weights', shape, dtype, initializer=make_initializer())
    assert variable.dtype.base_dtype == dtype
    session.run(tf.global_variables_initializer())
    return session.run(variable)


@pytest.mark.parametrize('name', INITIALIZERS)
def test_values_do_not_depend_on_the_rest_of_the_graph(name):
  np.testing.assert_array_equal(_draw(INITIALIZERS[name]), _draw(INITIALIZERS[name], n_other_ops=7))


@pytest.mark.parametrize('name', INITIALIZERS)
def test_values_depend_on_scope_and_seed(name):
  first = _draw(INITIALIZERS[name])
  for other in (
    _draw(INITIALIZERS[name], scope='layer_1'),
    _draw(INITIALIZERS[name], scope='net/layer'),
    _draw(INITIALIZERS[name], seed=1),
  ):
    assert np.abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


@pytest.mark.parametrize('name', INITIALIZERS)
def test_evaluating_again_gives_the_same_values(name):
  """The growth initialisation initial_dist relies on it."""
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('layer'):
      variable = tf.get_variable('weights', [5, 6], initializer=INITIALIZERS[name]())
    session.run(variable.initializer)
    first = session.run(variable)
    np.testing.assert_array_equal(session.run(variable.initial_value), first)
    np.testing.assert_array_equal(session.run(variable.initial_value), first)
    session.run(variable.initializer)
    np.testing.assert_array_equal(session.run(variable), first)


@pytest.mark.parametrize('name', INITIALIZERS)
def test_without_a_seed_the_graph_has_seed_zero(name):
  with tf.Graph().as_default(), tf.Session() as session:
    with tf.variable_scope('layer'):
      values = INITIALIZERS[name]()([20, 30])
    np.testing.assert_array_equal(session.run(values), _draw(INITIALIZERS[name], seed=0))


@pytest.mark.parametrize('name', INITIALIZERS)
@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16, tf.float64])
def test_types(name, dtype):
  values = _draw(INITIALIZERS[name], dtype=dtype)
  assert values.dtype == dtype.as_numpy_dtype
  assert values.astype(float).std() > 0.0


@pytest.mark.parametrize('shape, bound', GLOROT_BOUNDS)
def test_glorot_uniform_has_the_bounds_of_the_reference(shape, bound):
  values = _draw(initializers.glorot_uniform, shape=shape)
  assert np.abs(values).max() <= bound
  assert values.max() > 0.99 * bound and values.min() < -0.99 * bound
  np.testing.assert_allclose(values.std(), bound / np.sqrt(3.0), rtol=0.03)


@pytest.mark.parametrize('shape, stddev', TRUNCATED_STDDEVS)
def test_variance_scaling_has_the_deviation_of_the_reference(shape, stddev):
  values = _draw(initializers.variance_scaling, shape=shape)
  assert np.abs(values).max() <= 2 * stddev
  np.testing.assert_allclose(values.std(), 0.8796 * stddev, rtol=0.03)
  np.testing.assert_allclose(values.std(), np.sqrt(1.0 / np.prod(shape[:3])), rtol=0.03)


def test_variance_scaling_takes_a_scale():
  values = _draw(lambda: initializers.variance_scaling(2.0), shape=[200, 100])
  np.testing.assert_allclose(values.std(), np.sqrt(2.0 / 200), rtol=0.03)


def test_random_normal_has_its_deviation():
  values = _draw(lambda: initializers.random_normal(0.01), shape=[200, 100])
  np.testing.assert_allclose(values.std(), 0.01, rtol=0.03)
  assert np.abs(values).max() > 0.03


def test_layers_use_it_whatever_is_built_around_them():
  """So all methods, whose graphs differ, start from the same weights."""
  results = []
  for n_before in (0, 3):
    with tf.Graph().as_default(), tf.Session() as session:
      tf.set_random_seed(5)
      for i in range(n_before):
        layers.masked_fully_connected(tf.zeros([1, 4]), 3, scope=f'extra{i}')
      for scope in ('a', 'b'):
        layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope=scope)
      session.run(tf.global_variables_initializer())
      results.append(
        [
          session.run(v)
          for v in tf.trainable_variables()
          if v.op.name in ('a/weights', 'b/weights')
        ]
      )
  np.testing.assert_array_equal(results[0], results[1])
  assert (results[0][0] != results[0][1]).any()

"""All ways to run a training give the same result."""

from __future__ import annotations

import functools
import itertools

import keras
import numpy as np
import pytest

from rigl.keras import kernel_variables as kernels_of
from tests import combinations
from tests.keras import small

BACKEND = keras.backend.backend()
N_BATCHES = 24
tensorflow_only = pytest.mark.skipif(BACKEND != 'tensorflow', reason='only TensorFlow has it')
jax_only = pytest.mark.skipif(BACKEND != 'jax', reason='only JAX has it')


def make(method, has_input=True, **settings):
  keras.utils.set_random_seed(1)
  model = small.network(has_input)
  return model, small.optimizer(method, **settings)


def fit(model, optimizer, n_batches=N_BATCHES, batch_size=32, **settings):
  small.compiled(model, optimizer, **settings)
  x, labels = small.data(N_BATCHES)
  n = n_batches * 32
  model.fit(x[:n], labels[:n], batch_size=batch_size, shuffle=False, verbose=0)


@functools.cache
def built_fit(method):
  """The expected result of all ways: (masks, weights)."""
  model, optimizer = make(method)
  optimizer.build(model.trainable_variables)
  fit(model, optimizer)
  return small.masks(optimizer), small.values(model.trainable_variables)


def check_same(model, optimizer, expected):
  masks, weights = expected
  assert len(masks) == 3
  for got, mask in zip(small.masks(optimizer), masks):
    np.testing.assert_array_equal(got, mask)
  for got, weight in zip(small.values(model.trainable_variables), weights):
    np.testing.assert_allclose(got, weight, atol=1e-6)
  small.check_zeros(model, optimizer)


@pytest.mark.parametrize(
  'way, method',
  combinations.thinned(
    ['not built', 'steps_per_execution', 'train_on_batch', 'XLA', 'subclassed'], small.METHODS
  ),
)
def test_fits_are_equal(way, method):
  if way == 'XLA' and BACKEND == 'jax':
    pytest.skip('all ways have it on JAX')
  expected = built_fit(method)
  model, optimizer = make(method)
  if way == 'train_on_batch':
    small.compiled(model, optimizer)
    x, labels = small.data(N_BATCHES)
    for i in range(0, len(x), 32):
      model.train_on_batch(x[i : i + 32], labels[i : i + 32])
  elif way == 'subclassed':
    keras.utils.set_random_seed(1)
    model = small.Subclassed()
    model(np.zeros((1, small.SIZES[0]), 'float32'))
    fit(model, optimizer)
  else:
    fit(
      model,
      optimizer,
      **{
        'not built': {},
        'XLA': {'jit_compile': True},
        'steps_per_execution': {'steps_per_execution': 4},
      }[way],
    )
  check_same(model, optimizer, expected)


def batches():
  x, labels = small.data(N_BATCHES)
  for i in range(0, len(x), 32):
    yield x[i : i + 32], labels[i : i + 32]


@tensorflow_only
@pytest.mark.parametrize(
  'mode, method', combinations.thinned(['eager', 'function', 'XLA'], small.METHODS)
)
def test_loops_of_ones_own(mode, method):
  import tensorflow as tf

  expected = built_fit(method)
  model, optimizer = make(method)
  loss = small.loss()

  def step(x, labels):
    with tf.GradientTape() as tape:
      value = loss(labels, model(x, training=True))
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))

  if mode == 'eager':
    optimizer.build(model.trainable_variables)
  else:
    step = tf.function(step, jit_compile=mode == 'XLA')
  for x, labels in batches():
    step(tf.constant(x), tf.constant(labels))
  check_same(model, optimizer, expected)


@jax_only
@pytest.mark.parametrize('method', small.METHODS)
def test_stateless_loops(method):
  import jax

  expected = built_fit(method)
  model, optimizer = make(method)
  optimizer.build(model.trainable_variables)
  loss = small.loss()

  def loss_of(trainable, fixed, x, labels):
    logits, fixed = model.stateless_call(trainable, fixed, x, training=True)
    return loss(labels, logits), fixed

  @jax.jit
  def step(trainable, fixed, state, x, labels):
    grads, fixed = jax.grad(loss_of, has_aux=True)(trainable, fixed, x, labels)
    trainable, state = optimizer.stateless_apply(state, grads, trainable)
    return trainable, fixed, state

  trainable, fixed, state = (
    [v.value for v in variables]
    for variables in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
  )
  for x, labels in batches():
    trainable, fixed, state = step(trainable, fixed, state, x, labels)
  for variable, value in zip(
    [*model.trainable_variables, *optimizer.variables], [*trainable, *state]
  ):
    variable.assign(value)
  check_same(model, optimizer, expected)


@pytest.mark.parametrize('method', combinations.quick(small.METHODS, 'rigl', 'dnw', 'prune'))
def test_accumulated_gradients_are_those_of_a_large_batch(method):
  settings = {'frequency': 2} if method in (*small.DYNAMIC, 'prune') else {}
  model, optimizer = make(method, **settings)
  optimizer.build(model.trainable_variables)
  fit(model, optimizer, batch_size=128)
  expected = small.masks(optimizer), small.values(model.trainable_variables)
  n_steps = int(optimizer.iterations)
  model, optimizer = make(method, inner=small.sgd(gradient_accumulation_steps=4), **settings)
  optimizer.build(model.trainable_variables)
  fit(model, optimizer)
  assert (
    int(
      kernels_of.read(optimizer.iterations)
      if hasattr(optimizer.iterations, 'value')
      else optimizer.iterations
    )
    == n_steps
  )
  check_same(model, optimizer, expected)


@pytest.mark.parametrize(
  'scaled, method',
  combinations.quick(
    itertools.product(['factor', 'around'], small.METHODS),
    ('factor', 'rigl'),
    ('around', 'momentum'),
    ('factor', 'snip'),
    ('around', 'dnw'),
  ),
)
def test_scaled_losses(scaled, method):
  expected = built_fit(method)
  inner = small.sgd(loss_scale_factor=8.0) if scaled == 'factor' else None
  model, optimizer = make(method, inner=inner)
  optimizer.build(model.trainable_variables)
  if scaled == 'factor':
    fit(model, optimizer)
  else:
    fit(model, keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0))
  check_same(model, optimizer, expected)


# --- The first gradient -------------------------------------------------------


@tensorflow_only
def test_weights_without_a_value_wait_for_the_first_batch():
  model, optimizer = make('rigl', has_input=False)
  small.compiled(model, optimizer)
  x, labels = small.data(2)
  model.train_on_batch(x[:32], labels[:32])
  small.check_zeros(model, optimizer)
  assert int(optimizer.iterations) == 0
  assert int(kernels_of.read(optimizer._last_update)) == -5
  biases = [v for v in small.values(model.trainable_variables) if v.ndim == 1]
  assert not any(np.any(b) for b in biases)
  model.train_on_batch(x[32:], labels[32:])
  assert int(kernels_of.read(optimizer._last_update)) == 0


@tensorflow_only
@pytest.mark.parametrize(
  'steps, method',
  combinations.quick(
    itertools.product([1, 4], small.METHODS), (4, 'rigl'), (1, 'snip'), (4, 'dnw'), (1, 'prune')
  ),
)
def test_training_without_shapes_only_loses_the_first_batch(steps, method):
  model, optimizer = make(method, has_input=False)
  small.compiled(model, optimizer, steps_per_execution=steps)
  x, labels = small.data(N_BATCHES)
  model.fit(x, labels, batch_size=32, shuffle=False, verbose=0)
  got = small.masks(optimizer), small.values(model.trainable_variables)
  model, optimizer = make(method)
  optimizer.build(model.trainable_variables)
  small.compiled(model, optimizer)
  # SNIP starts with what is there.
  first = 0 if method == 'snip' else 32
  model.fit(x[first:], labels[first:], batch_size=32, shuffle=False, verbose=0)
  check_same(model, optimizer, got)


def test_an_eager_loop_drops_the_gradient_of_the_dense_network():
  model, optimizer = make('rigl')
  before = small.values(model.trainable_variables)
  grads = [keras.ops.ones_like(v.value) for v in model.trainable_variables]
  optimizer.apply_gradients(zip(grads, model.trainable_variables))
  small.check_zeros(model, optimizer)
  for got, old in zip(small.values(model.trainable_variables), before):
    np.testing.assert_array_equal(got[got != 0], old[got != 0])
  assert int(optimizer.iterations) == 0


@pytest.mark.parametrize('method', ['snip', 'dnw', 'prune'])
def test_a_method_that_starts_dense_uses_the_first_gradient(method):
  model, optimizer = make(method)
  grads = [keras.ops.ones_like(v.value) for v in model.trainable_variables]
  optimizer.apply_gradients(zip(grads, model.trainable_variables))
  assert int(optimizer.iterations) == (method != 'snip')

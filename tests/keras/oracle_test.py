"""Whole trainings against the numpy oracle."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from rigl.core import stateless_random
from tests import combinations
from tests.keras import small
from tests.reference import sparse_mlp

N_STEPS = 200


def oracle_of(method, model, optimizer):
  """The oracle with the weights and masks that a model starts with."""
  masks = small.masks(optimizer)
  weights, biases = (
    [value for value in small.values(model.trainable_variables) if value.ndim == n] for n in (2, 1)
  )

  def draw(number, step):
    seed = optimizer.seed_for(number, 'grow'), step
    return np.asarray(stateless_random.uniform(np.zeros(masks[number].shape, 'f'), seed))

  return sparse_mlp.Trainer(
    method,
    [w.copy() for w in weights],
    [b.copy() for b in biases],
    masks,
    [kernel.sparsity for kernel in optimizer.kernels],
    draw,
  )


@pytest.mark.parametrize(
  'jit_compile, method', combinations.thinned(small.JIT_COMPILE, small.METHODS)
)
def test_training_equals_the_oracle_at_every_step(method, jit_compile):
  keras.utils.set_random_seed(1)
  model = small.network()
  optimizer = small.optimizer(method)
  optimizer.build(model.trainable_variables)
  small.compiled(model, optimizer, jit_compile=jit_compile)
  oracle = oracle_of(method, model, optimizer)
  x, labels = small.data(N_STEPS)
  n_moved, before = 0, list(oracle.masks)
  for i in range(N_STEPS):
    batch = slice(32 * i, 32 * (i + 1))
    model.train_on_batch(x[batch], labels[batch])
    oracle.run(x[batch], labels[batch])
    for got, expected in zip(small.masks(optimizer), oracle.masks):
      np.testing.assert_array_equal(got, expected, f'step {i}')
    n_moved += any(np.any(a != b) for a, b in zip(before, oracle.masks))
    before = list(oracle.masks)
  for got, expected in zip(small.kernels(model), oracle.weights):
    np.testing.assert_allclose(got, expected, atol=2e-6)
  assert int(optimizer.iterations) == oracle.step
  # The masks did change.
  assert n_moved >= {'static': 0, 'scratch': 0, 'snip': 1}.get(method, 15)

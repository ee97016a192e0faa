"""A small network, its data and ways to make its optimizers."""

from __future__ import annotations

import keras
import numpy as np

import rigl.keras as sparse
from rigl.keras import kernel_variables as kernels_of

SIZES = (12, 24, 16, 5)
SPARSITY = 0.7
METHODS = {
  'rigl': sparse.RigL,
  'set': sparse.SET,
  'momentum': sparse.SNFS,
  'static': sparse.Static,
  'scratch': sparse.Scratch,
  'snip': sparse.SNIP,
  'dnw': sparse.DNW,
  'prune': sparse.GradualPruning,
}
DYNAMIC = ('rigl', 'set', 'momentum', 'static')
# Without it JAX compiles each branch at each step; torch.compile fails.
JIT_COMPILE = {'tensorflow': [True, False], 'jax': [True], 'torch': [False]}[
  keras.backend.backend()
]
SCHEDULE = {'frequency': 5, 'end_step': 100}


def data(n_batches: int, size: int = 32, seed: int = 0):
  """(features, labels) of some batches."""
  rng = np.random.RandomState(seed)
  x = rng.randn(n_batches * size, SIZES[0]).astype('float32')
  labels = np.argmax(x @ rng.randn(SIZES[0], SIZES[-1]), 1).astype('int32')
  return x, labels


def layers():
  """The layers, with initial weights that only the seed decides."""
  return [
    keras.layers.Dense(
      n, activation=activation, kernel_initializer=keras.initializers.GlorotNormal(seed=i)
    )
    for i, (n, activation) in enumerate(zip(SIZES[1:], ('relu', 'relu', None)))
  ]


def network(has_input: bool = True) -> keras.Model:
  """The layers in a row."""
  inputs = [keras.Input((SIZES[0],))] if has_input else []
  return keras.Sequential([*inputs, *layers()])


class Subclassed(keras.Model):
  """The same, as users write models themselves."""

  def __init__(self):
    super().__init__()
    self.blocks = layers()

  def call(self, x):
    for layer in self.blocks:
      x = layer(x)
    return x


def sgd(**settings):
  return keras.optimizers.SGD(**{'learning_rate': 0.1, 'momentum': 0.9, **settings})


def optimizer(method: str, inner=None, **settings):
  """An optimizer by the script's name of its method."""
  if method in DYNAMIC:
    settings = {**SCHEDULE, 'drop_fraction_anneal': 'cosine', 'noise_std': 0.0, **settings}
  if method == 'prune':
    settings = {**SCHEDULE, **settings}
  return METHODS[method](inner or sgd(), **{'sparsity': SPARSITY, **settings})


def loss():
  return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def compiled(model: keras.Model, sparse_optimizer, **settings) -> keras.Model:
  """Without XLA on TensorFlow unless asked for: compiling takes a second."""
  model.compile(sparse_optimizer, loss(), **{'jit_compile': JIT_COMPILE[-1], **settings})
  return model


def kernels(model: keras.Model) -> list[np.ndarray]:
  """Values of the weight matrices."""
  return [kernels_of.read(v) for v in model.trainable_variables if len(v.shape) > 1]


def values(variables) -> list[np.ndarray]:
  return [kernels_of.read(v) for v in variables]


def masks(sparse_optimizer) -> list[np.ndarray]:
  return list(sparse_optimizer.get_masks().values())


def check_zeros(model: keras.Model, sparse_optimizer) -> None:
  """No inactive weight or slot has a value."""
  for mask, kernel in zip(masks(sparse_optimizer), kernels(model)):
    np.testing.assert_array_equal(kernel[~mask], 0.0)

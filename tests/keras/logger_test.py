"""Tests of the statistics in the logs."""

import csv
import math
import subprocess
import sys

import keras
import numpy as np
import pytest

import rigl
from rigl.keras import SparsityLogger
from rigl.keras.logger import sparse_optimizers

K = keras.layers
SGD = keras.optimizers.SGD
KEYS = ('sparsity', 'drop_fraction', 'moved')


def _model(optimizer, name=None, **arguments):
  keras.utils.set_random_seed(0)
  model = keras.Sequential(
    [keras.Input((12,)), K.Dense(20, activation='relu', name='a'), K.Dense(5, name='b')], name=name
  )
  model.compile(
    optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), **arguments
  )
  return model


def _fit(model, callbacks=(), epochs=3):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(64, 12)).astype('float32')
  y = rng.integers(5, size=64).astype('int32')
  return model.fit(
    x, y, batch_size=16, epochs=epochs, verbose=0, shuffle=False, callbacks=[*callbacks]
  ).history


def _sparse(kind=rigl.keras.RigL, inner=None, **arguments):
  return kind(inner or SGD(0.1), sparsity=0.75, **arguments)


def _map(*optimizers):
  """A MultiOptimizer of one optimizer for each layer, or one for all."""
  first, *rest = optimizers
  return keras.optimizers.MultiOptimizer(
    keras.optimizers.OptimizerMap(first, {'.*/b/.*': rest[0]} if rest else None)
  )


def _choosing(*optimizers):
  """One that learns at its first variable which optimizers there are."""
  return keras.optimizers.MultiOptimizer(
    lambda variable: optimizers[len(optimizers) > 1 and '/b/' in variable.path]
  )


class _Masks(keras.callbacks.Callback):
  """Keeps the masks before training and after each epoch."""

  def __init__(self, optimizer):
    super().__init__()
    self._optimizer = optimizer
    self.masks = []

  def on_train_begin(self, logs=None):
    self.keep()

  def on_epoch_end(self, epoch, logs=None):
    self.keep()

  def keep(self):
    _ = self.model  # Keras on JAX now brings variables up to date.
    self.masks.append(
      np.concatenate([mask.ravel() for mask in self._optimizer.get_masks().values()])
    )


WRAPPERS = {
  'alone': lambda optimizer: optimizer,
  'loss_scale': keras.optimizers.LossScaleOptimizer,
  'multi': _map,
  'multi_chosen_late': _choosing,
}
METHODS = {
  'RigL': {'frequency': 2, 'end_step': 10},
  'SET': {'frequency': 2, 'end_step': 10},
  'Static': {'frequency': 2, 'end_step': 10},
  'DNW': {},
  'Scratch': {},
  'GradualPruning': {'frequency': 2, 'begin_step': 2, 'end_step': 9},
}


@pytest.mark.parametrize('name', METHODS)
def test_numbers_are_those_of_the_masks(name):
  optimizer = _sparse(getattr(rigl.keras, name), **METHODS[name])
  model = _model(optimizer)
  optimizer.build(model.trainable_variables)
  kept = _Masks(optimizer)
  history = _fit(model, [kept, SparsityLogger()])
  old, new = kept.masks[:-1], kept.masks[1:]
  assert history['sparsity'] == pytest.approx([1 - m.mean() for m in new])
  assert history['moved'] == pytest.approx([np.sum(n & ~o) / np.sum(n) for o, n in zip(old, new)])
  moves = name in ('RigL', 'SET', 'DNW')
  assert (max(history['moved']) > 0) == moves


@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_wrapped_optimizers(wrapper):
  optimizer = _sparse(frequency=2, end_step=10)
  model = _model(WRAPPERS[wrapper](optimizer))
  history = _fit(model, [SparsityLogger()])
  assert sparse_optimizers(model) == [optimizer]
  # Of 240 + 100 weights; one number is rounded to whole weights.
  assert history['sparsity'] == pytest.approx([0.75] * 3, abs=1 / 340)
  assert min(history['moved']) > 0
  assert history['drop_fraction'] == pytest.approx([0.3] * 3)


@pytest.mark.parametrize('several', [_map, _choosing])
def test_several_optimizers(several):
  optimizers = [
    rigl.keras.Scratch(SGD(0.1), sparsity=0.5),
    rigl.keras.SET(SGD(0.1), sparsity=0.9, drop_fraction=0.2, frequency=2),
  ]
  model = _model(several(*optimizers))
  history = _fit(model, [SparsityLogger()])
  assert {id(o) for o in sparse_optimizers(model)} == set(map(id, optimizers))
  # 12 * 20 weights, half of them 0, and 20 * 5, nine of ten.
  assert history['sparsity'] == pytest.approx([(120 + 90) / 340] * 3)
  assert history['drop_fraction'] == pytest.approx([0.2] * 3)
  assert 0 < max(history['moved']) <= 10 / 130


def test_drop_fraction_is_annealed():
  model = _model(_sparse(frequency=1, end_step=12, drop_fraction_anneal='cosine'))
  history = _fit(model, [SparsityLogger()])
  # RigL trains on 4 batches an epoch, but for those that move the masks.
  step = int(keras.ops.convert_to_numpy(model.optimizer.iterations))
  assert history['drop_fraction'][-1] == pytest.approx(
    0.15 * (1 + math.cos(math.pi * min(step, 12) / 12))
  )


def test_steps_are_those_of_training_with_accumulation():
  inner = SGD(0.1, gradient_accumulation_steps=2)
  model = _model(
    _sparse(rigl.keras.SET, inner, frequency=100, end_step=12, drop_fraction_anneal='cosine')
  )
  history = _fit(model, [SparsityLogger()], epochs=1)
  # Four batches are two steps; the next is the third.
  assert history['drop_fraction'] == pytest.approx([0.15 * (1 + math.cos(math.pi * 3 / 12))])


@pytest.mark.parametrize('arguments', [{'steps_per_execution': 4}, {'run_eagerly': True}])
def test_ways_to_run(arguments):
  model = _model(_sparse(frequency=2, end_step=10), **arguments)
  history = _fit(model, [SparsityLogger()])
  assert set(history) == {'loss', *KEYS}
  assert all(len(history[key]) == 3 for key in KEYS)


def test_fit_that_goes_on():
  model = _model(_sparse(rigl.keras.Scratch))
  logger = SparsityLogger()
  _fit(model, [logger])
  for variable in model.optimizer.kernels:
    mask = variable.mask
    mask.assign(np.roll(np.array(mask), 1, axis=1))
  assert _fit(model, [logger], epochs=1)['moved'] == [0]


def test_later_callbacks_see_the_numbers(tmp_path):
  path = tmp_path / 'log.csv'
  history = _fit(
    _model(_sparse(frequency=2, end_step=10)),
    [SparsityLogger(), keras.callbacks.CSVLogger(str(path))],
  )
  with path.open() as file:
    rows = list(csv.DictReader(file))
  for key in KEYS:
    assert [float(row[key]) for row in rows] == pytest.approx(history[key])


@pytest.mark.parametrize(
  'optimizer',
  [
    SGD,
    lambda: keras.optimizers.LossScaleOptimizer(SGD()),
    lambda: _choosing(SGD()),
    lambda: _map(SGD()),
  ],
)
def test_no_sparse_optimizer(optimizer):
  optimizer = optimizer()
  with pytest.raises(
    ValueError, match=(f'SparsityLogger needs .* got {type(optimizer).__name__}.*RigL')
  ):
    _fit(_model(optimizer), [SparsityLogger()])


def test_rigl_loads_keras_when_it_is_used():
  code = (
    'import sys, rigl\n'
    'assert "keras" not in sys.modules\n'
    'assert not hasattr(rigl, "kera")\n'
    'assert rigl.keras.RigL.__name__ == "RigL"\n'
    'assert "keras" in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], check=True)

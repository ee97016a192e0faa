"""Selection of sparse kernels, sparsities and initial masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import rigl.keras as sparse
from rigl.core import distributions
from rigl.keras import selection
from tests.keras import small


def counts(optimizer):
  return {path: int(mask.sum()) for path, mask in optimizer.get_masks().items()}


def built(model, **settings):
  optimizer = sparse.RigL(small.sgd(), **settings)
  optimizer.build(model.trainable_variables)
  return optimizer


def named_network():
  return keras.Sequential(
    [
      keras.Input((10,)),
      keras.layers.Dense(20, name='first'),
      keras.layers.Dense(30, name='second'),
      keras.layers.Dense(40, name='third'),
    ],
    name='net',
  )


@pytest.mark.parametrize(
  'layer, shape, expected',
  [
    (lambda: keras.layers.Dense(4), (3,), ['kernel']),
    (lambda: keras.layers.Dense(1), (3,), []),
    (lambda: keras.layers.Conv2D(4, 3), (8, 8, 2), ['kernel']),
    (lambda: keras.layers.Conv2DTranspose(4, 3), (8, 8, 2), ['kernel']),
    (lambda: keras.layers.DepthwiseConv2D(3), (8, 8, 2), []),
    (lambda: keras.layers.SeparableConv2D(4, 3), (8, 8, 2), ['pointwise_kernel']),
    (lambda: keras.layers.LSTM(4), (8, 2), ['kernel', 'recurrent_kernel']),
    (lambda: keras.layers.Embedding(9, 4), (8,), []),
    (lambda: keras.layers.BatchNormalization(), (8,), []),
    (lambda: keras.layers.EinsumDense('ab,bcd->acd', (2, 3)), (5,), ['kernel']),
  ],
)
def test_kernels_by_layer(layer, shape, expected):
  layer = layer()
  layer.build((None, *shape))
  found = [v.path.rpartition('/')[2] for v in layer.trainable_variables if selection.is_kernel(v)]
  assert found == expected


def test_all_projections_of_attention_are_kernels():
  layer = keras.layers.MultiHeadAttention(2, 4)
  x = np.zeros((1, 3, 8), 'float32')
  layer(x, x)
  assert sum(map(selection.is_kernel, layer.trainable_variables)) == 4


@pytest.mark.parametrize('distribution', selection.DISTRIBUTIONS)
def test_counts_are_those_of_the_distribution(distribution):
  model = named_network()
  optimizer = built(model, sparsity=0.8, distribution=distribution)
  shapes = {v.path: tuple(v.shape) for v in model.trainable_variables if len(v.shape) > 1}
  spread = distributions.get_sparsities(shapes, distribution.replace('uniform', 'random'), 0.8)
  assert counts(optimizer) == {
    path: np.prod(shape) - distributions.get_n_zeros(np.prod(shape), spread[path])
    for path, shape in shapes.items()
  }


@pytest.mark.parametrize(
  'settings, expected',
  [
    # 200, 600 and 1200 weights.
    (
      {'sparsity': {'first': 0.5, 'third': 0.9}},
      {'net/first/kernel': 100, 'net/third/kernel': 120},
    ),
    (
      {'sparsity': {'net/first/kernel': 0.5, '.*kernel': 0.9}},
      {'net/first/kernel': 100, 'net/second/kernel': 60, 'net/third/kernel': 120},
    ),
    # Names of more parts first, and names before expressions.
    (
      {'sparsity': {'kernel': 0.9, 'net/first/kernel': 0.5}},
      {'net/first/kernel': 100, 'net/second/kernel': 60, 'net/third/kernel': 120},
    ),
    (
      {'distribution': 'uniform', 'custom_sparsities': {'second': 0.0}},
      {'net/first/kernel': 20, 'net/second/kernel': 600, 'net/third/kernel': 120},
    ),
    (
      {'distribution': 'uniform', 'filters': 'first|third'},
      {'net/first/kernel': 20, 'net/third/kernel': 120},
    ),
    (
      {'distribution': 'uniform', 'filters': ['first', 'second']},
      {'net/first/kernel': 20, 'net/second/kernel': 60},
    ),
    (
      {'distribution': 'uniform', 'filters': lambda v: 'third' in v.path and 'kernel' in v.path},
      {'net/third/kernel': 120},
    ),
  ],
  ids=lambda value: ','.join(value),
)
def test_choices(settings, expected):
  assert counts(built(named_network(), **settings)) == expected


@pytest.mark.parametrize(
  'settings, expected',
  [
    ({'sparsity': {'dense': 0.9, 'dense_1': 0.5, 'dense_2': 0.0}}, [10, 50, 100]),
    (
      {'custom_sparsities': {'dense': 0.0}, 'distribution': 'uniform', 'sparsity': 0.9},
      [100, 10, 10],
    ),
    ({'sparsity': {'dense_.*': 0.5, 'dense': 0.9}}, [10, 50, 50]),
    # Those are regular expressions, as in Keras' own model.quantize.
    ({'sparsity': 0.9, 'distribution': 'uniform', 'filters': 'dense/|_2'}, [10, None, 10]),
  ],
  ids=str,
)
def test_names_are_those_of_whole_layers(settings, expected):
  model = keras.Sequential(
    [
      keras.Input((10,)),
      *(keras.layers.Dense(10, name=name) for name in ('dense', 'dense_1', 'dense_2')),
    ],
    name='dense_net',
  )
  found = counts(built(model, **settings))
  assert [found.get(f'{v.path}') for v in model.trainable_variables if len(v.shape) > 1] == expected


def test_a_whole_path_is_no_part_of_another():
  paths = ['dense/kernel', 'block/dense/kernel']
  for path in paths:
    assert selection.matched({path: 0.9}, paths, 'sparsity') == {path: 0.9}


def test_two_kernels_of_one_path_are_two():
  class Block(keras.layers.Layer):
    def __init__(self):
      super().__init__(name='block')
      self.dense = keras.layers.Dense(8, name='fc')

    def call(self, x):
      return self.dense(x)

  class Net(keras.Model):
    def __init__(self):
      super().__init__(name='net')
      self.blocks = [Block(), Block()]

    def call(self, x):
      return self.blocks[1](self.blocks[0](x))

  model = Net()
  model(np.zeros((1, 8), 'float32'))
  paths = [v.path for v in model.trainable_variables if len(v.shape) > 1]
  assert len(paths) == 2 and len(set(paths)) == 1
  optimizer = built(model, sparsity=0.75, distribution='uniform')
  first, second = optimizer.get_masks().values()
  assert first.sum() == second.sum() == 16
  assert np.any(first != second)
  assert list(optimizer.get_masks()) == [paths[0], f'{paths[0]}_2']


@pytest.mark.parametrize('argument', ['sparsity', 'custom_sparsities'])
def test_a_word_means_no_part_of_another_name(argument):
  """Keras counts the layers of a process: the first Dense of a second model is dense_3, say."""
  layers = [keras.layers.Dense(10, name=f'dense_{i}') for i in (3, 4)]
  model = keras.Sequential([keras.Input((10,)), *layers])
  with pytest.raises(ValueError, match="'dense', which matches none.*dense_3.*write 'dense.*'"):
    built(model, **{argument: {'dense': 0.0}})
  masks = built(model, **{argument: {'dense.*': 0.0}}).get_masks()
  assert all(mask.all() for mask in masks.values()) and len(masks) == 2


# --- First masks --------------------------------------------------------------


def test_masks_are_the_same_in_every_process_and_differ_by_seed():
  masks = [built(named_network(), seed=seed).get_masks() for seed in (0, 0, 1)]
  first, second, third = (np.concatenate([m.ravel() for m in mask.values()]) for mask in masks)
  np.testing.assert_array_equal(first, second)
  assert np.any(first != third)
  # So that other backends and versions are compared with these.
  assert np.flatnonzero(first)[:8].tolist() == [0, 5, 19, 25, 29, 31, 32, 41]


def test_magnitude_keeps_the_largest_weights():
  model = named_network()
  before = small.kernels(model)
  optimizer = built(model, sparsity=0.9, distribution='uniform', mask_init='magnitude')
  for mask, kernel in zip(small.masks(optimizer), before):
    assert np.abs(kernel)[mask].min() >= np.abs(kernel)[~mask].max()
    assert mask.sum() == kernel.size // 10


def test_given_masks_are_taken_and_zeros_stay():
  model = named_network()
  rng = np.random.RandomState(0)
  given = {v.path: rng.rand(*v.shape) < 0.3 for v in model.trainable_variables}
  optimizer = built(model, mask_init=given)
  for path, mask in optimizer.get_masks().items():
    np.testing.assert_array_equal(mask, given[path])
  small.check_zeros(model, optimizer)


@pytest.mark.parametrize('method', ['rigl', 'prune', 'snip'])
def test_a_sparse_network_is_not_destroyed(method):
  model = named_network()
  built(model, sparsity=0.8)
  before = small.kernels(model)
  optimizer = small.optimizer(method, sparsity=0.8)
  optimizer.build(model.trainable_variables)
  for got, old in zip(small.kernels(model), before):
    np.testing.assert_array_equal(got, old)
  for mask, old in zip(small.masks(optimizer), before):
    assert np.all(mask[old != 0])
    assert method == 'snip' or mask.sum() == np.sum(old != 0)


def test_a_sparser_network_gets_as_many_connections_as_asked():
  model = named_network()
  built(model, sparsity=0.9, distribution='uniform')
  before = small.kernels(model)
  optimizer = built(model, sparsity=0.5, distribution='uniform')
  # 90 % zeros are as many as asked: the weights stay, some zeros are trained.
  for got, old, mask in zip(small.kernels(model), before, small.masks(optimizer)):
    np.testing.assert_array_equal(got, old)
    assert mask.sum() == mask.size // 2 and np.all(mask[old != 0])


def train(model, n_batches):
  rng = np.random.RandomState(0)
  for _ in range(n_batches):
    model.train_on_batch(
      rng.randn(8, model.input_shape[1]).astype('float32'), rng.randint(0, 5, 8).astype('int32')
    )


def test_pruned_weights_stay_pruned():
  model = named_network()
  built(model, sparsity=0.8, distribution='uniform')
  before = small.kernels(model)
  optimizer = sparse.GradualPruning(
    small.sgd(), sparsity=0.8, distribution='uniform', frequency=1, end_step=8
  )
  train(small.compiled(model, optimizer), 10)
  for got, old in zip(small.kernels(model), before):
    assert not np.any(got[old == 0])


@pytest.mark.parametrize(
  'begin, end, frequency', [(0, 10, 5), (0, 11, 5), (4, 12, 3), (20, 30, 7), (0, 3, 10)]
)
def test_pruning_ends_at_the_sparsity_asked_for(begin, end, frequency):
  model = named_network()
  optimizer = sparse.GradualPruning(
    small.sgd(),
    sparsity=0.9,
    distribution='uniform',
    begin_step=begin,
    end_step=end,
    frequency=frequency,
  )
  small.compiled(model, optimizer)
  for step in range(max(end, frequency) + frequency + 1):
    if step <= begin:
      assert all(mask.all() for mask in small.masks(optimizer))
    train(model, 1)
  assert [mask.sum() for mask in small.masks(optimizer)] == [20, 60, 120]


def test_apply_masks_makes_foreign_weights_sparse():
  model = named_network()
  optimizer = built(model)
  model.set_weights([np.ones_like(w) for w in model.get_weights()])
  optimizer.apply_masks()
  small.check_zeros(model, optimizer)


def test_frozen_layers_stay_dense():
  model = named_network()
  model.layers[0].trainable = False
  assert list(counts(built(model))) == ['net/second/kernel', 'net/third/kernel']


def test_a_shared_layer_is_one_kernel():
  inputs = keras.Input((8,))
  layer = keras.layers.Dense(8, name='shared')
  model = keras.Model(inputs, layer(layer(inputs)))
  assert len(counts(built(model))) == 1

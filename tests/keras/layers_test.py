"""Tests of rigl.keras.layer_sparsities."""

import keras
import numpy as np
import pytest

import rigl
from rigl.core import distributions
from rigl.keras import layer_sparsities

K = keras.layers


def _model(*layers, shape=(8, 8, 4)):
  return keras.Sequential([keras.Input(shape), *layers])


def _one(layer, shape):
  """The distribution sees one kernel, and a matrix of 10 x 10 beside it."""
  inputs, other = keras.Input(shape), keras.Input((10,))
  outputs = [layer(inputs), K.Dense(10, name='other')(other)]
  return keras.Model([inputs, other], outputs)


# Layer, shape of its input, {end of path: shape that a distribution goes by}.
SPARSE = {
  'dense': (lambda: K.Dense(7), (5,), {'kernel': (5, 7)}),
  'conv': (lambda: K.Conv2D(6, 3), (8, 8, 4), {'kernel': (3, 3, 4, 6)}),
  'transpose': (lambda: K.Conv2DTranspose(6, 3), (8, 8, 4), {'kernel': (3, 3, 6, 4)}),
  'separable': (
    lambda: K.SeparableConv2D(6, 3, depth_multiplier=2),
    (8, 8, 4),
    {'pointwise_kernel': (1, 1, 8, 6)},
  ),
  'lstm': (lambda: K.LSTM(3), (5, 4), {'kernel': (4, 12), 'recurrent_kernel': (3, 12)}),
  'bidirectional': (
    lambda: K.Bidirectional(K.GRU(3, name='gru')),
    (5, 4),
    {
      'forward_gru/gru_cell/kernel': (4, 9),
      'forward_gru/gru_cell/recurrent_kernel': (3, 9),
      'backward_gru/gru_cell/kernel': (4, 9),
      'backward_gru/gru_cell/recurrent_kernel': (3, 9),
    },
  ),
  'einsum': (lambda: K.EinsumDense('abc,cde->abde', (None, 3, 7)), (5, 6), {'kernel': (6, 21)}),
  'einsum_ellipsis': (lambda: K.EinsumDense('...x,xy->...y', 7), (5, 6), {'kernel': (6, 7)}),
  'einsum_from_two': (
    lambda: K.EinsumDense('abcd,cde->abe', (None, 7)),
    (5, 3, 2),
    {'kernel': (6, 7)},
  ),
  # Five matrices of 6 x 7 side by side.
  'einsum_experts': (lambda: K.EinsumDense('abc,bcd->abd', (5, 7)), (5, 6), {'kernel': (5, 6, 7)}),
  # As above, with the dimensions of the kernel in another order.
  'einsum_turned': (
    lambda: K.EinsumDense('abc,dec->abde', (None, 3, 7)),
    (5, 6),
    {'kernel': (6, 21)},
  ),
}


@pytest.mark.parametrize('distribution', ['erdos_renyi', 'erdos_renyi_kernel'])
@pytest.mark.parametrize('name', SPARSE)
def test_shape_that_a_distribution_goes_by(name, distribution):
  make, shape, expected = SPARSE[name]
  result = layer_sparsities(_one(make(), shape), 0.6, distribution)
  named = {}
  for end, size in expected.items():
    (path,) = (path for path in result if path.endswith(f'/{end}') and not path.startswith('other'))
    named[path] = size
  spread = distributions.get_sparsities({**named, 'other/kernel': (10, 10)}, distribution, 0.6)
  assert result == pytest.approx(spread)


def test_attention_by_hand():
  inputs = keras.Input((5, 6))
  model = keras.Model(inputs, K.MultiHeadAttention(2, 4, name='attention')(inputs, inputs))
  result = layer_sparsities(model, custom_sparsities={'attention_output': 0.25})
  # q, k and v are matrices of 6 x 8, so they share one density: 43 of 48
  # weights are 0.
  assert result == pytest.approx(
    {
      **{f'attention/{name}/kernel': 43 / 48 for name in ('query', 'key', 'value')},
      'attention/attention_output/kernel': 0.25,
    }
  )


DENSE = {
  'depthwise': (lambda: K.DepthwiseConv2D(3, depth_multiplier=3), (8, 8, 4)),
  'depthwise_1d': (lambda: K.DepthwiseConv1D(3, depth_multiplier=2), (8, 4)),
  'embedding': (lambda: K.Embedding(9, 4), ()),
  'norm': (K.LayerNormalization, (4,)),
  'one_unit': (lambda: K.Dense(1), (4,)),
  'frozen': (lambda: K.Dense(5, trainable=False), (4,)),
}


@pytest.mark.parametrize('name', DENSE)
def test_layers_that_stay_dense(name):
  make, shape = DENSE[name]
  assert list(layer_sparsities(_one(make(), shape))) == ['other/kernel']


def test_a_function_decides_about_depthwise_convolutions_too():
  model = _model(K.DepthwiseConv2D(3, depth_multiplier=3, name='deep'))
  result = layer_sparsities(
    model, 0.5, filters=lambda v: 'deep' in v.path and v.path.endswith('kernel')
  )
  assert len(result) == 1
  assert next(iter(result)).endswith('deep/kernel')
  assert next(iter(result.values())) == pytest.approx(0.5)


class _Block(K.Layer):
  def __init__(self):
    super().__init__()
    self.deep = K.DepthwiseConv2D(3, depth_multiplier=2)
    self.project = K.Conv2D(4, 1)
    self.never_built = K.Dense(3)

  def build(self, shape):
    self.deep.build(shape)
    self.project.build(self.deep.compute_output_shape(shape))

  def call(self, inputs):
    return self.project(self.deep(inputs))


def test_layers_inside_layers():
  inner = keras.Sequential([keras.Input((8, 8, 4)), _Block()])
  result = layer_sparsities(_model(inner, K.Flatten(), K.Dense(3)), 0.5, 'uniform')
  assert [(path.split('/')[-2].rstrip('_0123456789'), value) for path, value in result.items()] == [
    ('conv2d', 0.5),
    ('dense', 0.5),
  ]


@pytest.mark.parametrize('name', [*SPARSE, 'depthwise', 'depthwise_1d'])
def test_an_optimizer_takes_the_result(name):
  make, shape = {**SPARSE, **DENSE}[name][:2]
  model = _one(make(), shape)
  sparsities = layer_sparsities(model, 0.7)
  optimizer = rigl.keras.RigL(keras.optimizers.SGD(0.1), sparsity=sparsities, end_step=10)
  optimizer.build(model.trainable_variables)
  masks = optimizer.get_masks()
  assert set(masks) == set(sparsities)
  for path, mask in masks.items():
    assert mask.size - mask.sum() == distributions.get_n_zeros(mask.size, sparsities[path])


class _Subclassed(keras.Model):
  def __init__(self):
    super().__init__(name='mine')
    self.head = K.Dense(3)

  def call(self, inputs):
    return self.head(inputs)


@pytest.mark.parametrize('call', [layer_sparsities, rigl.keras.sparsity_of, rigl.keras.summary])
@pytest.mark.parametrize('make', [_Subclassed, lambda: keras.Sequential([K.Dense(3)], name='mine')])
def test_a_model_that_is_not_built(make, call):
  model = make()
  with pytest.raises(
    ValueError, match=(f"{call.__name__} needs the weights of 'mine'.*call it on a batch")
  ):
    call(model)
  model(np.zeros((2, 5), 'float32'))
  call(model)


@pytest.mark.parametrize('call', [layer_sparsities, rigl.keras.sparsity_of, rigl.keras.summary])
def test_what_is_no_model(call):
  with pytest.raises(ValueError, match='takes a model of Keras 3, got 3'):
    call(3)


def test_two_kernels_of_one_path():
  inner = [keras.Sequential([keras.Input((4,)), K.Dense(n, name='fc')], name='b') for n in (5, 50)]
  for model in inner:
    model.layers[0].kernel._path = 'b/fc/kernel'
  inputs = keras.Input((4,))
  model = keras.Model(inputs, inner[0](inputs))
  model.other = inner[1]
  with pytest.raises(ValueError, match='Two kernels have the path b/fc/kernel'):
    layer_sparsities(model)
  assert layer_sparsities(model, 0.5, 'uniform') == {'b/fc/kernel': 0.5}


@pytest.mark.parametrize(
  'arguments,match',
  [
    ({'sparsity': 1.5}, 'sparsity'),
    ({'distribution': 'none'}, 'distribution'),
    ({'custom_sparsities': {'nothing': 0.5}}, 'nothing'),
    ({'custom_sparsities': {'deep': 0.5}}, 'deep'),
  ],
)
def test_errors(arguments, match):
  model = _model(K.DepthwiseConv2D(3, depth_multiplier=2, name='deep'), K.Conv2D(5, 1))
  with pytest.raises(ValueError, match=match):
    layer_sparsities(model, **arguments)

"""Tests of the reports on the zeros of a model."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import rigl
from rigl.micronet import keras_counting

K = keras.layers
ROOT = pathlib.Path(__file__).parents[2]


def _prune(kernel, n_zeros):
  values = np.ones(kernel.shape, 'float32').ravel()
  values[:n_zeros] = 0
  kernel.assign(values.reshape(kernel.shape))


def _net():
  return keras.Sequential(
    [
      keras.Input((6, 6, 2)),
      K.Conv2D(4, 3, activation='relu', name='conv'),
      K.Flatten(name='flat'),
      K.Dense(5, name='fc'),
      K.Dense(1, name='head'),
    ],
    name='net',
  )


def test_sparsity_by_hand():
  model = _net()
  assert rigl.keras.sparsity_of(model) == 0
  _prune(model.get_layer('conv').kernel, 36)
  _prune(model.get_layer('fc').kernel, 300)
  # A head of one unit is dense by default, and does not count.
  _prune(model.get_layer('head').kernel, 2)
  # conv has 3 * 3 * 2 * 4 weights, fc 4 * 4 * 4 * 5.
  assert rigl.keras.sparsity_of(model) == pytest.approx(336 / (72 + 320))


LAYERS = {
  'dense': (lambda: K.Dense(7), (5,)),
  'conv': (lambda: K.Conv2D(6, 3), (8, 8, 4)),
  'attention': (lambda: _Attention(), (5, 6)),
  'einsum': (lambda: K.EinsumDense('abc,cde->abde', (None, 3, 7)), (5, 6)),
  'lstm': (lambda: K.LSTM(3), (5, 4)),
  'separable': (lambda: K.SeparableConv2D(6, 3), (8, 8, 4)),
}


class _Attention(K.Layer):
  def __init__(self):
    super().__init__()
    self.inner = K.MultiHeadAttention(2, 4)

  def call(self, inputs):
    return self.inner(inputs, inputs)


@pytest.mark.parametrize('name', LAYERS)
def test_sparsity_is_that_of_the_masks(name):
  make, shape = LAYERS[name]
  model = keras.Sequential([keras.Input(shape), make()])
  optimizer = rigl.keras.Scratch(keras.optimizers.SGD(0.1), sparsity=0.8)
  optimizer.build(model.trainable_variables)
  masks = np.concatenate([m.ravel() for m in optimizer.get_masks().values()])
  assert rigl.keras.sparsity_of(model) == pytest.approx(1 - masks.mean())


def test_no_kernel_that_is_sparse_by_default():
  model = keras.Sequential([keras.Input((3,)), K.Dense(1)], name='small')
  with pytest.raises(ValueError, match="'small' has no kernel.*kernel"):
    rigl.keras.sparsity_of(model)


def _counts(model, **arguments):
  count = keras_counting.count_model(model, **arguments).count
  return {row.name: row for row in count.layers}


def test_count_of_zeros_by_hand():
  model = _net()
  dense = _counts(model)
  assert _counts(model, counts_zeros=True) == dense
  _prune(model.get_layer('fc').kernel, 240)
  rows = _counts(model, counts_zeros=True)
  assert rows['conv'] == dense['conv']
  # 5 dot products over a quarter of 64, and a bias.
  assert rows['fc'].flops == 5 * (16 + 15 + 1)
  # A bit for each place, 32 for each of 80 weights and 5 biases.
  assert rows['fc'].n_bytes == (320 + 32 * (80 + 5)) / 8
  assert rows['fc'].n_kept == 80


def test_both_kernels_of_a_separable_convolution():
  layer = K.SeparableConv2D(6, 3, name='both')
  model = keras.Sequential([keras.Input((5, 5, 4)), layer])
  _prune(layer.depthwise_kernel, 9)
  _prune(layer.pointwise_kernel, 12)
  rows = _counts(model, counts_zeros=True)
  assert rows['both/depthwise'].sparsity == 9 / 36
  assert rows['both/pointwise'].sparsity == 12 / 24


@pytest.mark.parametrize('name', ['dense', 'conv', 'einsum', 'separable'])
def test_a_share_of_zeros_counts_as_that_sparsity(name):
  make, shape = LAYERS[name]
  model = keras.Sequential([keras.Input(shape), make()])
  kernels = [weight for weight in model.weights if 'kernel' in weight.name]
  for kernel in kernels:
    _prune(kernel, int(np.prod(kernel.shape)) // 3)
  zeros = _counts(model, counts_zeros=True)
  given = _counts(model, custom_sparsities={row.name: row.sparsity for row in zeros.values()})
  assert zeros == given
  assert all(row.sparsity for row in zeros.values())


@pytest.mark.parametrize(
  'arguments', [{'default_sparsity': 0.5}, {'custom_sparsities': {'fc': 0.5}}]
)
def test_zeros_and_a_distribution(arguments):
  with pytest.raises(ValueError, match='counts_zeros takes the sparsities'):
    keras_counting.count_model(_net(), counts_zeros=True, **arguments)


# Equation, output shape, multiplications and additions of input (5, 6) by hand.
EQUATIONS = {
  'abc,cd->abd': ((None, 7), 5 * 7 * (6 + 5)),
  'abc,cde->abde': ((None, 3, 7), 5 * 21 * (6 + 5)),
  'abc,bcd->abd': ((5, 7), 5 * 7 * (6 + 5)),
  'abc,bcd->ad': ((7,), 7 * (30 + 29)),
}


@pytest.mark.parametrize('equation', EQUATIONS)
def test_flops_of_einsum_dense_by_hand(equation):
  shape, flops = EQUATIONS[equation]
  model = keras.Sequential([keras.Input((5, 6)), K.EinsumDense(equation, shape, name='e')])
  row = _counts(model)['e']
  assert row.flops == flops
  assert row.n_weights == model.count_params()


def test_einsum_dense_with_a_bias_counts_as_dense_does():
  models = [
    keras.Sequential([keras.Input((5, 6)), layer])
    for layer in (
      K.EinsumDense('abc,cd->abd', (None, 7), bias_axes='d', activation='relu'),
      K.Dense(7, activation='relu'),
    )
  ]
  assert len({keras_counting.count_model(m).count.counts for m in models}) == 1


@pytest.mark.parametrize(
  'arguments,reason',
  [
    (('abc,cd->abd', (5, 7), None, 'bd'), 'bias of another size'),
    (('abc,cd->ad', (7,)), 'sums the input over more'),
  ],
)
def test_einsum_dense_without_rule(arguments, reason):
  model = keras.Sequential([keras.Input((5, 6)), K.EinsumDense(*arguments)])
  (note,) = keras_counting.count_model(model).not_counted
  assert reason in note.reason
  assert note.n_weights == model.count_params()


class _Own(K.Layer):
  def __init__(self, name):
    super().__init__(name=name)
    self.inner = K.Dense(3, name='inner')

  def call(self, inputs):
    return keras.ops.tanh(self.inner(inputs)) * 2


class _Unrolled(K.Layer):
  """Calls a layer in a loop of the backend."""

  def __init__(self):
    super().__init__(name='loop')
    self.inner = K.Dense(4, name='inner')

  def call(self, inputs):
    return keras.ops.fori_loop(0, 3, lambda i, x: self.inner(x), inputs)


def test_operations_of_a_layer_of_ones_own():
  model = keras.Sequential([keras.Input((4,)), _Own('own')])
  result = keras_counting.count_model(model)
  assert [row.name for row in result.count.layers] == ['own/inner']
  (note,) = result.not_counted
  names = note.reason.lower()
  assert note.name == 'own'
  # The product of the layer inside is its own.
  assert 'tanh' in names and 'mul' in names
  assert 'dot' not in names and 'matmul' not in names


def test_calls_in_a_loop():
  layer = _Unrolled()
  layer.inner.build((None, 4))
  model = keras.Sequential([keras.Input((4,)), layer])
  result = keras_counting.count_model(model)
  assert not result.count.layers
  reasons = {note.name: note.reason for note in result.not_counted}
  assert 'in a loop' in reasons['loop/inner']


class _Noisy(K.Layer):
  """Draws, and so changes the state of its generator, at every call."""

  def __init__(self):
    super().__init__()
    self.generator = keras.random.SeedGenerator(1)

  def call(self, inputs):
    return inputs + keras.random.normal((3,), seed=self.generator)


def test_a_count_changes_nothing():
  model = keras.Sequential([keras.Input((4,)), K.Dense(3), K.BatchNormalization(), _Noisy()])

  def values():
    # The state of a generator is no weight.
    return [keras.ops.convert_to_numpy(v) for v in model.variables]

  before = values()
  keras_counting.count_model(model, counts_zeros=True)
  for old, new in zip(before, values()):
    np.testing.assert_array_equal(old, new)
  # Which Keras refuses for a layer that was called twice.
  assert model.layers[0].output.shape == (None, 3)


def test_summary_by_hand():
  model = _net()
  _prune(model.get_layer('fc').kernel, 240)
  texts = []
  assert rigl.keras.summary(model, print_fn=texts.append) is None
  lines = '\n'.join(texts).splitlines()
  rows = {line.split('  ')[0]: line.split() for line in lines}
  # 16 positions of 4 channels, each 18 products, 17 sums, bias and ReLU.
  assert rows['conv'] == ['conv', '3x3x2x4', '1.0000', '2,368', '304']
  assert rows['fc'] == ['fc', '64x5', '0.2500', '160', '380']
  assert rows['head'] == ['head', '5x1', '1.0000', '10', '24']
  assert rows['total'] == ['total', '-', '0.3955', '2,538', '708']
  assert rows['total if dense'] == ['total', 'if', 'dense', '-', '1.0000', '3,018', '1,628']


def test_summary_lists_what_is_not_counted(capsys):
  model = keras.Sequential([keras.Input((5, 4)), K.LSTM(3, name='lstm'), K.Dense(2, name='head')])
  rigl.keras.summary(model)
  # 4 gates of 4 + 3 inputs and a bias, for 3 units.
  printed = capsys.readouterr().out
  assert '  lstm (LSTM), 96 weights: no rule' in printed
  assert re.search(r'^total of these +- +1\.0000', printed, re.MULTILINE)


_SCRIPT = """
import sys
sys.modules['tensorflow'] = None  # Its import raises.
import keras, rigl
assert 'keras' not in vars(rigl)
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
                          keras.layers.Flatten(), keras.layers.Dense(3)])
model.compile(
    rigl.keras.RigL(keras.optimizers.SGD(0.1), rigl.keras.layer_sparsities(
        model, 0.75, 'uniform'), end_step=10, frequency=1),
    keras.losses.MeanSquaredError())
import numpy as np
history = model.fit(np.ones((8, 8, 8, 3)), np.ones((8, 3)), batch_size=4,
                    verbose=0, callbacks=[rigl.keras.SparsityLogger()])
assert history.history['sparsity'] == [0.75]
assert rigl.keras.sparsity_of(model) == 0.75
rigl.keras.summary(model)
"""


@pytest.mark.skipif(keras.backend.backend() == 'tensorflow', reason='this backend is TensorFlow')
def test_other_backends_need_no_tensorflow():
  done = subprocess.run(
    [sys.executable, '-c', _SCRIPT],
    capture_output=True,
    encoding='utf-8',
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  assert done.returncode == 0, done.stderr
  assert 'total if dense' in done.stdout

"""Tests of the recorded calls of layers and their shapes."""

import numpy as np
import pytest

from rigl.compat import tf2
from rigl.micronet import keras_calls
from rigl.micronet.keras_rules import NotCounted

K = tf2.keras.layers


def _calls(call, path=''):
  """[(path, inputs, output)] of a call and those inside it, outermost first."""
  path = f'{path}/{call.layer.name}'
  return [(path, call.inputs, call.output)] + [
    one for inner in call.inner for one in _calls(inner, path)
  ]


class _Block(K.Layer):
  def __init__(self, name):
    super().__init__(name=name)
    self.conv = K.Conv2D(4, 3, padding='same', name='conv')
    self.add = K.Add(name='add')

  def call(self, inputs):
    outputs = self.conv(inputs)
    return self.add([outputs, self.conv(outputs)])


def test_calls_inside_calls():
  inner = tf2.keras.Sequential([tf2.keras.Input((None, None, 4)), _Block('block')], name='inner')
  inputs = tf2.keras.Input((6, 8, 4))
  outputs = K.MaxPooling2D(name='pool')(inner(inputs))
  model = tf2.keras.Model(inputs, inner(outputs), name='outer')

  def block(shape):
    return [
      ('/outer/inner', (shape,), shape),
      ('/outer/inner/block', (shape,), shape),
      ('/outer/inner/block/conv', (shape,), shape),
      ('/outer/inner/block/conv', (shape,), shape),
      ('/outer/inner/block/add', (shape, shape), shape),
    ]

  big, small = (1, 6, 8, 4), (1, 3, 4, 4)
  assert _calls(keras_calls.trace(model)) == [
    ('/outer', (big,), small),
    *block(big),
    ('/outer/pool', (big,), small),
    *block(small),
  ]


def test_a_size_that_is_not_known():
  inputs = tf2.keras.Input((None, 3))
  model = tf2.keras.Model(inputs, K.Dense(4)(inputs))
  (call,) = keras_calls.trace(model).inner
  assert (call.inputs, call.output) == (((1, None, 3),), (1, None, 4))


@pytest.mark.parametrize('is_symbolic', [False, True])
def test_several_arguments(is_symbolic):

  class Gated(K.Layer):
    def __init__(self):
      super().__init__()
      self.left, self.right = K.Dense(2), K.Dense(2)

    def build(self, *shapes):
      self.left.build((None, 3))
      self.right.build((None, 5))
      self.built = True

    def call(self, inputs, gates=None):
      return self.left(inputs) * self.right(gates)

  layer = Gated()
  if is_symbolic:
    layer(tf2.keras.Input((3,)), gates=tf2.keras.Input((5,)))
    root = keras_calls.trace(layer)
    assert [call.inputs for call in root.inner] == [((1, 3),), ((1, 5),)]
    assert root.arithmetic == ('Mul',)
  else:
    # Of a layer that is no model Keras 2 keeps the first argument only.
    with pytest.raises(NotCounted, match='not known|cannot trace'):
      keras_calls.trace(layer)


def test_own_operations():

  class Shuffle(K.Layer):
    def call(self, inputs):
      n_rows = 2 * (tf2.shape(inputs)[1] // 2)
      return tf2.reshape(inputs[:, ::-1], (-1, n_rows // 2, 2))

  class Norm(Shuffle):
    def call(self, inputs):
      return super().call(inputs) / tf2.reduce_sum(tf2.square(inputs))

  for cls, expected in ((Shuffle, ()), (Norm, ('RealDiv', 'Square', 'Sum'))):
    layer = cls()
    layer(tf2.keras.Input((6,)))
    assert keras_calls.trace(layer).arithmetic == expected


def test_a_regularizer_is_no_operation_of_the_model():
  inputs = tf2.keras.Input((4,))
  outputs = K.Dense(3, activity_regularizer='l2')(inputs)
  assert keras_calls.trace(tf2.keras.Model(inputs, outputs)).arithmetic == ()


class _Repeated(K.Layer):
  def __init__(self):
    super().__init__()
    self.fc = K.Dense(3)

  def build(self, shape):
    self.fc.build(shape)
    self.built = True


def test_calls_in_a_loop_are_marked():

  class Loop(_Repeated):
    def call(self, inputs):
      return tf2.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, self.fc(x)), (0, inputs))[1]

  layer = Loop()
  layer(tf2.zeros((1, 3)))
  root = keras_calls.trace(layer)
  assert not root.in_loop
  assert {call.in_loop for call in root.inner} == {True}


def test_calls_in_a_function_that_was_traced_before():

  class Function(_Repeated):
    @tf2.function
    def call(self, inputs):
      return self.fc(self.fc(inputs))

  layer = Function()
  layer(tf2.zeros((1, 3)))
  root = keras_calls.trace(layer)
  assert [call.in_loop for call in root.inner] == [False, False]
  assert not tf2.config.functions_run_eagerly()


def test_variables_of_another_graph():
  with tf2.Graph().as_default():
    inputs = tf2.keras.Input((4,))
    model = tf2.keras.Model(inputs, K.Dense(3)(inputs))
  if not hasattr(model.weights[0], 'graph'):
    pytest.skip('Keras 3 has no graph mode.')
  assert [call.output for call in keras_calls.trace(model).inner] == [(1, 3)]


def test_other_backends_are_named(monkeypatch):
  layer = K.Dense(3)
  layer(tf2.keras.Input((4,)))
  if layer.__module__.startswith('keras.src.'):
    monkeypatch.setattr('keras.backend.backend', lambda: 'torch')
    with pytest.raises(NotCounted, match="backend 'torch' cannot be traced, only tensorflow and"):
      keras_calls.trace(layer)


def test_nothing_is_left_behind():
  inputs = tf2.keras.Input((4,))
  model = tf2.keras.Model(inputs, K.Dropout(0.5)(K.BatchNormalization()(K.Dense(3)(inputs))))
  weights = model.get_weights()
  nodes = [len(layer._inbound_nodes) for layer in model.layers]
  calls = [cls.__call__ for cls in type(model).__mro__]
  keras_calls.trace(model)
  assert calls == [cls.__call__ for cls in type(model).__mro__]
  assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
  for before, after in zip(weights, model.get_weights()):
    np.testing.assert_array_equal(before, after)
  model.compile('sgd', 'mse')
  model.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)


def test_an_error_leaves_nothing_behind():

  class Odd(K.Layer):
    def call(self, inputs):
      if inputs.shape[0] == 1:
        raise KeyError('odd')
      return inputs

  layer = Odd()
  layer(tf2.keras.Input((4,)))
  calls = [cls.__call__ for cls in type(layer).__mro__]
  with pytest.raises(NotCounted, match='TensorFlow cannot trace it: .*odd'):
    keras_calls.trace(layer)
  assert calls == [cls.__call__ for cls in type(layer).__mro__]
  assert not tf2.config.functions_run_eagerly()


def test_layers_inside_a_layer():
  block = _Block('block')
  assert keras_calls.children(block) == [block.conv, block.add]


def test_input_shape():
  layer = K.Dense(3)
  with pytest.raises(NotCounted, match='call the model once on an input'):
    keras_calls.input_shape(layer)
  layer(tf2.zeros((2, 4)))
  assert keras_calls.input_shape(layer)[1:] == (4,)
  layer(tf2.keras.Input((4,)))
  assert keras_calls.input_shape(layer) == (None, 4)
  layer(inputs=tf2.keras.Input((5, 4)))
  with pytest.raises(NotCounted, match='inputs of 2 sizes; count a model'):
    keras_calls.input_shape(layer)

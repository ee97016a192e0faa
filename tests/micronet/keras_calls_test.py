"""Tests of what is read of Keras 3, with stand-ins for its objects.

keras_counting_test.py counts real models, of the Keras that is installed.
"""

import types

import pytest

from rigl.micronet import keras_calls
from rigl.micronet.keras_layers import NotCounted


class _Tensor:

  def __init__(self, shape, history):
    self.shape = shape
    self._keras_history = history


class _Node:

  def __init__(self, operation, args, shape):
    self.arguments = types.SimpleNamespace(args=args)
    self.input_tensors = [
        value for arg in args
        for value in (arg if isinstance(arg, list) else [arg])
        if isinstance(value, _Tensor)
    ]
    histories = [tensor._keras_history for tensor in self.input_tensors]
    self.parent_nodes = [
        parent._inbound_nodes[index] for parent, index, _ in histories
    ]
    history = (operation, len(operation._inbound_nodes), 0)
    self.output_tensors = [_Tensor(shape, history)]


class _Operation:
  """It knows its calls, but has no weights."""

  def __init__(self, name):
    self.name = name
    self._inbound_nodes = []

  def __call__(self, *args, shape=(None, 4)):
    self._inbound_nodes.append(_Node(self, args, shape))
    return self._inbound_nodes[-1].output_tensors[0]


class _Layer(_Operation):
  kernel = None

  def __init__(self, name, path=None, inside=()):
    super().__init__(name)
    self._inside = inside
    self.built = True
    self.weights = []
    if path:
      self.kernel = types.SimpleNamespace(name='kernel', path=path)
      self.weights = [self.kernel]

  @property
  def input(self):
    if not self._inbound_nodes:
      raise AttributeError(f'{self.name} has never been called.')
    tensors = self._inbound_nodes[0].input_tensors
    return tensors if len(tensors) > 1 else tensors[0]

  def get_build_config(self):
    return {'input_shape': (1, 9)} if self.weights else None

  def _flatten_layers(self, include_self, recursive):
    assert not include_self and not recursive
    return iter(self._inside)


class DepthwiseConv2D(_Layer):
  pass


class _Model:

  def __init__(self, outputs, *operations):
    self.outputs = [outputs]
    self._operations = operations

  @property
  def operations(self):
    return list(self._operations)

  @property
  def layers(self):
    return [one for one in self._operations if isinstance(one, _Layer)]


def test_calls_of_a_functional_model():
  entry, dense, double = _Layer('in'), _Layer('dense'), _Operation('double')
  add, outside = _Layer('add'), _Layer('outside')
  inputs = entry(shape=(None, 3))
  hidden = dense(inputs)
  outside(dense(hidden))
  model = _Model(add([double(2., hidden), hidden]), entry, dense, double, add)
  calls = list(keras_calls.calls(model))
  assert calls == [
      (entry, ([], (None, 3))), (dense, ((None, 3), (None, 4))),
      (double, ((), (None, 4))), (add, ([(None, 4)] * 2, (None, 4)))]
  assert [keras_calls.is_layer(one) for one, _ in calls] == [
      True, True, False, True]
  assert keras_calls.children(double) == []


def test_layers_inside_a_layer():
  inside = [_Layer('a'), _Layer('b')]
  block = _Layer('block', inside=inside)
  assert keras_calls.children(block) == inside
  assert list(keras_calls.calls(block)) == [(one, None) for one in inside]


@pytest.mark.parametrize('cls, kernel', [
    (_Layer, 'kernel'), (DepthwiseConv2D, 'depthwise_kernel')])
def test_name_of_a_kernel(cls, kernel):
  layer = cls('conv', path='model/block/conv/kernel')
  assert keras_calls.kernel_name(layer) == f'model/block/conv/{kernel}:0'
  # A sequential model calls its layers on symbolic tensors.
  layer(_Layer('in')())
  assert keras_calls.kernel_name(layer) == f'conv/{kernel}:0'


def test_input_shape():
  with pytest.raises(NotCounted, match='call this layer once on a keras.Input'):
    keras_calls.input_shape(_Layer('relu'))
  layer = _Layer('conv')
  layer.built = False
  with pytest.raises(NotCounted, match='call the model once on an input'):
    keras_calls.input_shape(layer)
  layer = _Layer('fc', path='fc/kernel')
  assert keras_calls.input_shape(layer) == (1, 9)
  inputs = _Layer('in')(shape=(None, 5))
  layer(inputs)
  assert keras_calls.input_shape(layer) == (None, 5)
  add = _Layer('add')
  add(inputs, inputs)
  assert keras_calls.input_shape(add) == [(None, 5), (None, 5)]

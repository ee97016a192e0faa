"""Files that another program wrote, or damaged, are read or named."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from rigl.compat import tf2
from rigl.inference import (
  codes,
  engine,
  exporting,
  graph,
  litert,
  reading,
  requirements,
  tflite_files,
)
from tests.inference import networks

L = keras.layers


@pytest.fixture(scope='module')
def content(tmp_path_factory):
  """A file with an operator of most kinds."""
  x = inputs = keras.Input((8, 8, 3))
  x = L.MaxPooling2D(2)(L.ZeroPadding2D(1)(L.ReLU()(x)))
  x = L.DepthwiseConv2D(3, padding='same')(L.Conv2D(4, 3)(x))
  model = networks.sparsified(keras.Model(inputs, L.Dense(5)(L.Flatten()(x))), 0.5)
  return exporting.export(model, tmp_path_factory.mktemp('content') / 'm.tflite').dense


class _File:
  """A file that a test changes."""

  def __init__(self, content):
    self.model = tflite_files.read(content, 'm')
    self.graph = self.model.subgraphs[0]

  def operator(self, code):
    (found,) = [
      one for one in self.graph.operators if tflite_files.operator_code(self.model, one) == code
    ]
    found.inputs = [int(i) for i in found.inputs]
    return found

  def input(self, code, i):
    return self.graph.tensors[self.operator(code).inputs[i]]

  def output(self, code):
    return self.graph.tensors[int(self.operator(code).outputs[0])]

  def set_input(self, code, i, shape):
    """Gives a constant another shape."""
    tflite_files.set_values(self.model, self.input(code, i), np.ones(shape, np.float32))

  def set_pads(self, pads):
    tflite_files.set_values(self.model, self.input(codes.PAD, 1), np.array(pads, np.int32))

  def read(self):
    return reading.read_graph(self.model, 'm.tflite')


def _set(target, **values):
  for name, value in values.items():
    setattr(target, name, value)


def _without_bytes(file):
  file.model.buffers[file.input(codes.CONV_2D, 2).buffer].data = np.zeros(5, np.uint8)


_DAMAGE = {
  'a number of a tensor': (
    lambda f: _set(f.operator(codes.CONV_2D), inputs=[999, 1, 2]),
    'm.tflite is damaged .IndexError',
  ),
  'biases': (lambda f: f.set_input(codes.CONV_2D, 2, 3), 'a bias of 4 units has the shape'),
  'size of a constant': (
    lambda f: _set(f.input(codes.CONV_2D, 2), shape=[3]),
    r'has 4 values, but the shape \[3\]',
  ),
  'bytes of a constant': (_without_bytes, 'has 5 bytes'),
  'type of a constant': (
    lambda f: _set(f.input(codes.CONV_2D, 2), type=11),
    'has the type 11, which is not read',
  ),
  'strides': (
    lambda f: _set(f.operator(codes.CONV_2D).builtinOptions, strideH=0),
    'a window has the shape',
  ),
  'size of an output': (
    lambda f: _set(f.output(codes.CONV_2D), shape=[1, 9, 3, 4]),
    'the output of a window has the shape',
  ),
  'channels of an output': (
    lambda f: _set(f.output(codes.CONV_2D), shape=[1, 3, 3, 7]),
    'the output of a layer has the shape',
  ),
  'a depthwise kernel': (
    lambda f: (
      f.set_input(codes.DEPTHWISE_CONV_2D, 1, (1, 3, 3, 6)),
      _set(f.output(codes.DEPTHWISE_CONV_2D), shape=[1, 3, 3, 6]),
    ),
    'a depthwise kernel has the shape',
  ),
  'the input of weights': (
    lambda f: f.set_input(codes.FULLY_CONNECTED, 1, (5, 35)),
    'the input of 35 weights has the shape',
  ),
  'the output of a ReLU': (
    lambda f: _set(f.output(codes.RELU), shape=[1, 8, 8, 2]),
    'the output of a ReLU has the shape',
  ),
  'the output of PAD': (
    lambda f: _set(f.output(codes.PAD), shape=[1, 11, 10, 3]),
    'the output of PAD has the shape',
  ),
}


@pytest.mark.parametrize('name', _DAMAGE)
def test_damage_is_named(name, content):
  change, message = _DAMAGE[name]
  change(file := _File(content))
  with pytest.raises(ValueError, match=message):
    file.read()


_UNKNOWN = {
  'two inputs': (lambda f: _set(f.graph, inputs=[0, 1]), '2 inputs and 1 outputs'),
  'an output without operator': (
    lambda f: _set(f.graph, outputs=f.graph.inputs),
    'an output that nothing computes',
  ),
  'computed weights': (
    lambda f: _set(f.operator(codes.CONV_2D), inputs=f.operator(codes.CONV_2D).inputs[:1] * 3),
    'weights that are no constants',
  ),
  'an activation': (
    lambda f: _set(f.operator(codes.CONV_2D).builtinOptions, fusedActivationFunction=4),
    'activation 4',
  ),
  'groups': (lambda f: f.set_input(codes.CONV_2D, 1, (4, 3, 3, 1)), 'CONV_2D with groups'),
  'padded channels': (
    lambda f: f.set_pads([[0, 0], [1, 1], [1, 1], [0, 1]]),
    'PAD of batch or channels',
  ),
}


@pytest.mark.parametrize('name', _UNKNOWN)
def test_what_the_engine_lacks_is_named(name, content):
  change, message = _UNKNOWN[name]
  change(file := _File(content))
  with pytest.raises(graph.UnknownOperation, match=message):
    file.read()


def test_layers_may_read_images_without_flattening_them(content):
  file = _File(content)
  wanted = engine.Engine(file.read())
  file = _File(content)
  reshape = file.operator(codes.RESHAPE)
  file.graph.operators = [one for one in file.graph.operators if one is not reshape]
  file.operator(codes.FULLY_CONNECTED).inputs[0] = reshape.inputs[0]
  batch = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype('f')
  networks.assert_close(engine.Engine(file.read())(batch), wanted(batch))


def _check_agrees_with_litert(content, shape):
  batch = np.random.default_rng(0).normal(size=(2, *shape)).astype('f')
  found = engine.Engine(reading.read_graph(tflite_files.read(content, 'm'), 'm'))(batch)
  networks.assert_close(found, litert.LiteRT(content, 'm')(batch))


def test_weights_in_8_bits(tmp_path):
  exported = exporting.export(networks.lenet(0.5), tmp_path / 'm.tflite', 'int8')
  _check_agrees_with_litert(exported.sparse, (784,))


def test_weights_in_float16():
  weights = np.random.default_rng(0).normal(size=(40, 70)).astype('f')
  layer = tf2.function(lambda x: tf2.nn.relu(tf2.matmul(x, weights)))
  converter = tf2.lite.TFLiteConverter.from_concrete_functions(
    [layer.get_concrete_function(tf2.TensorSpec([1, 40]))]
  )
  converter.optimizations = [tf2.lite.Optimize.DEFAULT]
  converter.target_spec.supported_types = [tf2.float16]
  _check_agrees_with_litert(converter.convert(), (40,))


@pytest.mark.parametrize(
  'scale, zero, wanted',
  [([0.5], [1], [[0.0, 0.5], [1.0, -1.5]]), ([0.5, 2.0], [0, 1], [[0.5, 1.0], [4.0, -6.0]])],
)
def test_int8_has_a_scale_for_all_or_for_each_output(scale, zero, wanted):
  tensor = requirements.litert_schema().TensorT()
  tensor.quantization = requirements.litert_schema().QuantizationParametersT()
  _set(tensor.quantization, scale=scale, zeroPoint=zero, quantizedDimension=0)
  values = np.array([[1, 2], [3, -2]], np.int8)
  np.testing.assert_allclose(tflite_files.dequantized(tensor, values), wanted)


def test_damaged_indices_of_sparse_weights_are_named():
  weights = np.eye(6, dtype=np.float32)

  def unpacked(change):
    sparsity, values = tflite_files.pack(weights)
    change(sparsity)
    return tflite_files.unpack(sparsity, values, weights.shape, 'w')

  def of_last(change):
    return lambda sparsity: change(sparsity.dimMetadata[-1])

  np.testing.assert_array_equal(unpacked(lambda sparsity: None), weights)
  for change in (
    lambda sparsity: _set(sparsity, traversalOrder=[0, 0]),
    lambda sparsity: _set(sparsity, traversalOrder=[0, 1, 2], blockMap=[5]),
    of_last(lambda last: _set(last.arraySegments, values=np.arange(6))),
    of_last(lambda last: _set(last.arraySegments, values=np.array([0, 2, 1, 3, 4, 5, 6]))),
    of_last(lambda last: _set(last.arrayIndices, values=np.arange(1, 7))),
  ):
    with pytest.raises(ValueError, match='sparse weights w are damaged'):
      unpacked(change)


def test_litert_names_a_file_that_it_cannot_run(content):
  file = _File(content)
  number = file.operator(codes.CONV_2D).opcodeIndex
  code = file.model.operatorCodes[number]
  code.builtinCode = code.deprecatedBuiltinCode = 32  # Of another program.
  code.customCode = b'NoSuch'
  with pytest.raises(ValueError, match='LiteRT cannot run m.tflite:.*NoSuch'):
    litert.LiteRT(tflite_files.write(file.model), 'm.tflite')

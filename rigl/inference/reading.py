"""Reads the nodes of a .tflite network."""

from __future__ import annotations

import functools
from typing import Any, Optional

import numpy as np

from rigl.inference import codes, tflite_files
from rigl.inference.graph import INFINITY, Graph, Node, NotFloat32, UnknownOperation


def read_graph(model: Any, name: str) -> Graph:
  """Reads the network of a ModelT.

  Args:
    model: from `tflite_files.read`.
    name: name of the file, for errors.

  Raises:
    UnknownOperation: names the operation.
    NotFloat32: the network does not compute in float32.
    ValueError: the file is damaged.
  """
  try:
    return _Reader(model, name).read()
  except (IndexError, TypeError, AttributeError, KeyError) as error:
    raise ValueError(
      f'{name} is damaged ({type(error).__name__}: {error}). Export it again.'
    ) from error


class _Reader:
  """Reads operators one by one."""

  def __init__(self, model: Any, name: str) -> None:
    self._model, self._name = model, name
    self._tensors = model.subgraphs[0].tensors
    self._constants: dict[int, np.ndarray] = {}
    self._nodes: list[Node] = []
    self._pads: dict[int, tuple[int, tuple[int, int, int, int]]] = {}
    # {activation: the one that it is another name of}.
    self._names: dict[int, int] = {}
    self._next = len(self._tensors)
    self.shapes: dict[int, tuple[int, int, int]] = {}

  def read(self) -> Graph:
    graph = self._model.subgraphs[0]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
      raise UnknownOperation(f'{len(graph.inputs)} inputs and {len(graph.outputs)} outputs')
    first, last = int(graph.inputs[0]), int(graph.outputs[0])
    self._check_float(first)
    self._shape(first)
    for operator in graph.operators:
      self._read(operator)
    computed = {first}
    for node in self._nodes:
      node.inputs = [self._names.get(index, index) for index in node.inputs]
      if not computed.issuperset(node.inputs):
        raise UnknownOperation(f'PAD before {node.kind}')
      computed.add(node.output)
    shapes = [tflite_files.shape_of(self._tensors[i]) for i in (first, last)]
    last = self._names.get(last, last)
    if last not in computed - {first}:
      raise UnknownOperation('an output that nothing computes')
    if all(node.kind == 'flatten' for node in self._nodes):
      raise UnknownOperation('a network that only changes shapes')
    return Graph(self._nodes, self.shapes, first, last, shapes[0][1:], shapes[1][1:])

  def _name_of(self, index: int) -> str:
    return (self._tensors[index].name or b'?').decode(errors='replace')

  def _check_float(self, index: int) -> None:
    kind = self._tensors[index].type
    if kind != tflite_files.FLOAT32:
      known = tflite_files.DTYPES.get(kind)
      raise NotFloat32(
        f'{self._name} does not compute in float32: {self._name_of(index)} '
        f'has the type {np.dtype(known).name if known else kind}. Use '
        "engine='litert'."
      )

  def _shape(self, index: int) -> tuple[int, int, int]:
    if index not in self.shapes:
      shape = tflite_files.shape_of(self._tensors[index])
      if len(shape) == 1:
        # For some sums of vectors the converter drops the batch dimension.
        shape = (1, *shape)
      if len(shape) == 2:
        shape = (shape[0], 1, 1, shape[1])
      elif len(shape) == 3:
        # An image of one channel.
        shape = (*shape, 1)
      if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
        raise UnknownOperation(f'an activation of the shape {list(shape)}')
      self.shapes[index] = shape[1:]
    return self.shapes[index]

  def _constant(self, index: int) -> Optional[np.ndarray]:
    """A constant, or the result of DENSIFY and DEQUANTIZE on one."""
    if index in self._constants:
      return self._constants[index]
    return tflite_files.values_of(self._model, self._tensors[index])

  def _weights(self, operator: Any) -> np.ndarray:
    index = operator.inputs[1]
    weights = self._constant(index)
    if weights is None:
      raise UnknownOperation('weights that are no constants')
    self._check_float(index)
    return weights

  def _biases(self, operator: Any, n: int) -> np.ndarray:
    if len(operator.inputs) < 3 or operator.inputs[2] < 0:
      return np.zeros(n, np.float32)
    biases = self._constant(operator.inputs[2])
    if biases is None or biases.shape != (n,):
      raise self._damaged(f'a bias of {n} units', getattr(biases, 'shape', None))
    return biases

  def _read(self, operator: Any) -> None:
    code = tflite_files.operator_code(self._model, operator)
    name = tflite_files.operator_name(code)
    if code in (codes.DENSIFY, codes.DEQUANTIZE):
      self._unpack(operator, code)
      return
    read = getattr(self, f'_read_{name.lower()}', None)
    if read is None:
      raise UnknownOperation(name)
    operator.inputs = [int(i) for i in operator.inputs]
    operator.outputs = [int(i) for i in operator.outputs]
    for index in (operator.inputs[0], operator.outputs[0]):
      self._check_float(index)
      if self._constant(index) is None:
        self._shape(index)
    read(operator)

  def _unpack(self, operator: Any, code: int) -> None:
    source = int(operator.inputs[0])
    values = self._constant(source)
    if values is None:
      raise UnknownOperation(tflite_files.operator_name(code))
    if code == codes.DEQUANTIZE:
      values = tflite_files.dequantized(self._tensors[source], values)
    self._constants[int(operator.outputs[0])] = values

  def _add(self, kind: str, operator: Any, **settings: Any) -> None:
    output = operator.outputs[0]
    name = self._name_of(output)
    if 'weights' in settings:
      name += ';' + self._name_of(operator.inputs[1])
    self._nodes.append(Node(kind, [operator.inputs[0]], output, name=name, **settings))

  def _window(
    self, operator: Any, kernel: tuple[int, ...], is_dilated: bool = True
  ) -> dict[str, Any]:
    """Kernel, strides and padding, including a preceding operator PAD."""
    options, source = operator.builtinOptions, operator.inputs[0]
    strides = (options.strideH, options.strideW)
    dilations = (options.dilationHFactor, options.dilationWFactor) if is_dilated else (1, 1)
    sizes, outputs = self._shape(source), self._shape(operator.outputs[0])
    pads, expected = [0, 0, 0, 0], []
    if min(*kernel, *strides, *dilations) < 1:
      raise self._damaged('a window', (kernel, strides, dilations))
    for i in range(2):
      reach = (kernel[i] - 1) * dilations[i] + 1
      if options.padding == codes.SAME:
        expected.append(-(-sizes[i] // strides[i]))
        total = max((expected[i] - 1) * strides[i] + reach - sizes[i], 0)
        pads[i], pads[i + 2] = total // 2, total - total // 2
      else:
        expected.append((sizes[i] - reach) // strides[i] + 1)
    if tuple(expected) != outputs[:2]:
      raise self._damaged('the output of a window', outputs)
    if source in self._pads:
      source, added = self._pads[source]
      pads = [a + b for a, b in zip(pads, added)]
    operator.inputs = [source, *operator.inputs[1:]]
    return dict(kernel=kernel, strides=strides, dilations=dilations, pads=tuple(pads))

  def _damaged(self, what: str, shape: Any) -> ValueError:
    return ValueError(
      f'{self._name} is damaged: {what} has the shape {shape}, which does not fit. Export it again.'
    )

  def _check_channels(self, operator: Any, n: int, is_image: bool = True) -> None:
    """Raises ValueError unless a layer has n outputs (at each position)."""
    shape = self._shape(operator.outputs[0])
    if shape[2] != n or not (is_image or shape[:2] == (1, 1)):
      raise self._damaged('the output of a layer', shape)

  def _limits(self, operator: Any) -> tuple[float, float]:
    activation = operator.builtinOptions.fusedActivationFunction
    if activation not in codes.ACTIVATIONS:
      raise UnknownOperation(f'activation {activation}')
    return codes.ACTIVATIONS[activation]

  def _add_layer(
    self, kind: str, operator: Any, weights: np.ndarray, n: int, **window: Any
  ) -> None:
    """Adds a layer of n outputs (at each position)."""
    biases, limits = self._biases(operator, n), self._limits(operator)
    self._add(kind, operator, weights=weights, biases=biases, limits=limits, **window)

  def _read_conv_2d(self, operator: Any) -> None:
    weights = self._weights(operator)
    if weights.shape[3] != self._shape(operator.inputs[0])[2]:
      raise UnknownOperation('CONV_2D with groups')
    self._check_channels(operator, len(weights))
    window = self._window(operator, weights.shape[1:3])
    self._add_layer('conv', operator, weights, len(weights), **window)

  def _read_depthwise_conv_2d(self, operator: Any) -> None:
    weights = self._weights(operator)[0]
    self._check_channels(operator, weights.shape[2])
    if weights.shape[2] % self._shape(operator.inputs[0])[2]:
      raise self._damaged('a depthwise kernel', weights.shape)
    window = self._window(operator, weights.shape[:2])
    self._add_layer('depthwise', operator, weights, weights.shape[2], **window)

  def _read_fully_connected(self, operator: Any) -> None:
    weights = self._weights(operator)
    source = operator.inputs[0]
    if len(tflite_files.shape_of(self._tensors[source])) == 3:
      raise UnknownOperation('FULLY_CONNECTED of a sequence')
    if weights.shape[1] != np.prod(self._shape(source)):
      if weights.shape[1] == self._shape(source)[2]:
        raise UnknownOperation('FULLY_CONNECTED at each position')
      raise self._damaged(f'the input of {weights.shape[1]} weights', self._shape(source))
    self._check_channels(operator, len(weights), is_image=False)
    if self._shape(source)[:2] != (1, 1):
      operator.inputs = [self._flatten(source), *operator.inputs[1:]]
    self._add_layer('conv', operator, weights[:, None, None], len(weights))

  def _flatten(self, source: int) -> int:
    self._next += 1
    self.shapes[self._next] = (1, 1, int(np.prod(self._shape(source))))
    self._nodes.append(Node('flatten', [source], self._next))
    return self._next

  def _read_reshape(self, operator: Any) -> None:
    source, output = operator.inputs[0], operator.outputs[0]
    shape, wanted = self._shape(source), self._shape(output)
    if wanted == shape:
      self._names[output] = self._names.get(source, source)
    elif np.prod(shape) == np.prod(wanted) and wanted[:2] == (1, 1):
      self._add('flatten', operator)
    else:
      raise UnknownOperation(f'RESHAPE from {shape} to {wanted}')

  _read_squeeze = _read_reshape

  def _elementwise(self, name: str, operator: Any) -> None:
    limits = self._limits(operator)
    inputs, output = operator.inputs, operator.outputs[0]
    constant, is_first = self._constant(inputs[1]), False
    if constant is None and name != 'DIV':
      constant, is_first = self._constant(inputs[0]), True
      inputs = inputs if constant is None else inputs[::-1]
    if constant is None:
      shapes = [self._shape(i) for i in (*inputs, output)]
      if name != 'ADD' or shapes[0] != shapes[2] or shapes[1] != shapes[2]:
        raise UnknownOperation(f'{name} of {shapes[0]} and {shapes[1]}')
      self._nodes.append(Node('add', inputs, output, limits=limits))
      return
    n = self._shape(inputs[0])[2]
    is_of_channels = constant.size == 1 or (constant.size == n and constant.shape[-1] == n)
    if not is_of_channels or self._shape(output) != self._shape(inputs[0]):
      raise UnknownOperation(f'{name} of a constant for each position')
    values = np.broadcast_to(constant.ravel(), (n,)).astype(np.float32)
    factors: np.ndarray = np.ones(n, np.float32)
    biases: np.ndarray = np.zeros(n, np.float32)
    if name in ('ADD', 'SUB'):
      biases = -values if name == 'SUB' and not is_first else values
      factors = -factors if name == 'SUB' and is_first else factors
    else:
      factors = 1 / values if name == 'DIV' else values
    self._scale(inputs[0], output, factors, biases, limits)

  _read_add = functools.partialmethod(_elementwise, 'ADD')
  _read_mul = functools.partialmethod(_elementwise, 'MUL')
  _read_sub = functools.partialmethod(_elementwise, 'SUB')
  _read_div = functools.partialmethod(_elementwise, 'DIV')

  def _scale(
    self,
    source: int,
    output: int,
    weights: np.ndarray,
    biases: np.ndarray,
    limits: tuple[float, float],
  ) -> None:
    self._nodes.append(
      Node('depthwise', [source], output, weights=weights[None, None], biases=biases, limits=limits)
    )

  def _read_relu(self, operator: Any, largest: float = INFINITY) -> None:
    source, output = operator.inputs[0], operator.outputs[0]
    shape = self._shape(source)
    if self._shape(output) != shape:
      raise self._damaged('the output of a ReLU', shape)
    ones = np.ones(shape[2], np.float32)
    self._scale(source, output, ones, np.zeros_like(ones), (0.0, largest))

  _read_relu6 = functools.partialmethod(_read_relu, largest=6.0)

  def _read_pad(self, operator: Any) -> None:
    pads = self._constant(operator.inputs[1])
    if pads is None or pads.shape != (4, 2) or pads[[0, 3]].any() or (pads < 0).any():
      raise UnknownOperation('PAD of batch or channels')
    shape = self._shape(operator.inputs[0])
    padded = (shape[0] + pads[1].sum(), shape[1] + pads[2].sum(), shape[2])
    if self._shape(operator.outputs[0]) != padded:
      raise self._damaged('the output of PAD', padded)
    self._pads[operator.outputs[0]] = (
      operator.inputs[0],
      (int(pads[1, 0]), int(pads[2, 0]), int(pads[1, 1]), int(pads[2, 1])),
    )

  def _pool(self, kind: str, operator: Any) -> None:
    options, pads_count = operator.builtinOptions, operator.inputs[0] in self._pads
    self._check_channels(operator, self._shape(operator.inputs[0])[2])
    if pads_count and options.padding == codes.SAME:
      raise UnknownOperation('PAD before pooling that pads too')
    window = self._window(operator, (options.filterHeight, options.filterWidth), False)
    self._add(kind, operator, limits=self._limits(operator), pads_count=pads_count, **window)

  _read_max_pool_2d = functools.partialmethod(_pool, 'max_pool')
  _read_average_pool_2d = functools.partialmethod(_pool, 'average_pool')

  def _read_mean(self, operator: Any) -> None:
    axes = self._constant(operator.inputs[1])
    rank = len(tflite_files.shape_of(self._tensors[operator.inputs[0]]))
    if axes is None or rank != 4 or sorted(int(axis) % 4 for axis in axes.ravel()) != [1, 2]:
      raise UnknownOperation('MEAN over other axes than rows and columns')
    n = self._shape(operator.inputs[0])[2]
    self._check_channels(operator, n, is_image=False)
    self._add('mean', operator)

  def _read_softmax(self, operator: Any) -> None:
    if operator.builtinOptions.beta != 1 or self._shape(operator.inputs[0])[:2] != (1, 1):
      raise UnknownOperation('SOFTMAX of images')
    self._check_channels(operator, self._shape(operator.inputs[0])[2], is_image=False)
    self._add('softmax', operator)

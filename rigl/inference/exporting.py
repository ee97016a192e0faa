"""Writes the network of a model or a run as a small .tflite file."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

from rigl import files
from rigl.compat import tf2
from rigl.core import checks
from rigl.inference import codes, names, requirements, shrinking, sources, tflite_files

QUANTIZE = (None, 'int8')
# From this sparsity on, LiteRT runs fully connected layers faster with sparse
# weights than with dense ones; see docs/inference.md.
CSR_SPARSITY = 0.94
# Weights with fewer values stay in float32.
_MIN_QUANTIZED = 1024
_SPARSE_FULLY_CONNECTED_VERSION = 8
_VERSIONS = {codes.DENSIFY: 1, codes.DEQUANTIZE: 5}


@dataclasses.dataclass(frozen=True)
class Exported:
  """The result of `export`.

  Attributes:
    path: path of the sparse file.
    dense: the same network as a dense file, as bytes.
    sparse: the sparse file, as bytes.
    n_removed: units that were removed.
    layers: {scope in the dense file: name of the layer} of a Keras model.
  """

  path: str
  dense: bytes = dataclasses.field(repr=False)
  sparse: bytes = dataclasses.field(repr=False)
  n_removed: int
  layers: Mapping[str, str]


def export(source: Any, path: str, quantize: Optional[str] = None) -> Exported:
  """Writes a network as a .tflite file with sparse weights.

  Folds batch normalization into the preceding layers. Removes units without
  outgoing weights, and units without incoming weights, whose constant output is
  added to the next bias. The outputs of the network change only by rounding.

  Args:
    source: a Keras model with known inputs; the path of a .keras file, of a
      dense .tflite file, of a SavedModel (its signature serving_default), or of
      the folder of a run of the MNIST, CIFAR or ImageNet script.
    path: path of the file, which is replaced.
    quantize: None for weights in float32, 'int8' for weights rounded to 8 bits,
      which are still computed with in float32.

  Raises:
    ValueError: the source is not one of these, or has several inputs or
      outputs; or `quantize` is unknown.
    OSError: the file cannot be written.
  """
  checks.one_of('quantize', quantize, QUANTIZE)
  requirements.litert_schema()  # Before the converter, which takes long.
  path = os.path.expanduser(os.fspath(path))
  dense, layers = _dense_file(source)
  model = tflite_files.read(dense, path)
  n_removed = shrinking.shrink(model)
  _free_batch(model)
  _make_compact(model, quantize, layers)
  sparse = tflite_files.write(model)
  write_file(path, sparse)
  return Exported(path, dense, sparse, n_removed, layers)


def _dense_file(source: Any) -> tuple[bytes, Mapping[str, str]]:
  """(the network as a dense file of TensorFlow's converter, layers of its scopes)."""
  if isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith('.tflite'):
    return read_file(os.fspath(source)), {}
  function, layers = sources.concrete_function(source)
  with _quiet():
    converter = tf2.lite.TFLiteConverter.from_concrete_functions([function])
    return converter.convert(), layers


def read_file(path: str) -> bytes:
  """The content of a file.

  Raises:
    ValueError: the file cannot be read; names it.
  """
  try:
    with open(os.path.expanduser(path), 'rb') as file:
      return file.read()
  except OSError as error:
    raise ValueError(f'Cannot read {path}: {error.strerror}.') from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides the converter's advice to pass the model of a function."""
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _free_batch(model: Any) -> None:
  """Makes layers that flatten images accept any batch size."""
  graph = model.subgraphs[0]
  for operator in graph.operators:
    if tflite_files.operator_code(model, operator) != codes.RESHAPE:
      continue
    tensor = graph.tensors[operator.inputs[1]]
    shape = tflite_files.values_of(model, tensor)
    if shape is not None and shape.size > 1 and shape[0] == 1 and (shape > 0).all():
      tflite_files.set_values(model, tensor, np.concatenate([[-1], shape[1:]]).astype(shape.dtype))
      if operator.builtinOptions is not None:
        operator.builtinOptions.newShape = None


def _make_compact(model: Any, quantize: Optional[str], layers: Mapping[str, str]) -> None:
  """Stores weights as sparse if smaller, and in 8 bits if asked."""
  graph = model.subgraphs[0]
  operators: list[Any] = []
  compact: dict[int, int] = {}
  for operator in graph.operators:
    code = tflite_files.operator_code(model, operator)
    if code in codes.WEIGHTED:
      index = int(operator.inputs[1])
      if index not in compact:
        compact[index] = _compact(model, operator, quantize, operators)
      operator.inputs = np.array(operator.inputs, np.int32)
      operator.inputs[1] = compact[index]
      if graph.tensors[compact[index]].sparsity is not None:
        _use_version(model, operator, code, _SPARSE_FULLY_CONNECTED_VERSION)
    operators.append(operator)
  graph.operators = operators
  _shorten_names(model, layers)
  _drop_unused(model)


def _compact(model: Any, operator: Any, quantize: Optional[str], operators: list[Any]) -> int:
  """Stores the weights of a layer; returns the tensor that it reads.

  The operators DENSIFY and DEQUANTIZE, which LiteRT runs once when it loads the
  file, restore dense weights in float32. Layers that compute a single vector
  read very sparse weights directly.
  """
  index, tensors = int(operator.inputs[1]), model.subgraphs[0].tensors
  tensor, output = tensors[index], tensors[int(operator.outputs[0])]
  code = tflite_files.operator_code(model, operator)
  weights = tflite_files.values_of(model, tensor)
  if weights is None or weights.ndim < 2 or weights.dtype != np.float32:
    return index
  is_quantized = quantize == 'int8' and weights.size >= _MIN_QUANTIZED
  stored = weights
  if is_quantized:
    axis = 3 if code == codes.DEPTHWISE_CONV_2D else 0
    tensor.type = tflite_files.INT8
    tensor.quantization, stored = _quantize(weights, axis)
    tflite_files.set_values(model, tensor, stored)
  stays_sparse = (
    code == codes.FULLY_CONNECTED
    and math.prod(tflite_files.shape_of(output)[:-1]) == 1
    and not is_quantized
    and bool(np.count_nonzero(weights) <= (1 - CSR_SPARSITY) * weights.size)
  )
  is_sparse = _pack(model, tensor, stored, by_rows=stays_sparse)
  if is_sparse and stays_sparse:
    return index
  if is_sparse:
    index = _append(model, index, codes.DENSIFY, operators)
  if is_quantized:
    index = _append(model, index, codes.DEQUANTIZE, operators)
  return index


def _quantize(weights: np.ndarray, axis: int) -> tuple[Any, np.ndarray]:
  """int8 weights with a scale per unit; zeros stay zeros."""
  others = tuple(i for i in range(weights.ndim) if i != axis)
  scale = np.abs(weights).max(others, keepdims=True) / 127.0
  scale[scale == 0] = 1.0
  quantization = requirements.litert_schema().QuantizationParametersT()
  quantization.scale = scale.ravel().astype(np.float32)
  quantization.zeroPoint = np.zeros(scale.size, np.int64)
  quantization.quantizedDimension = axis
  return quantization, np.rint(weights / scale).astype(np.int8)


def _pack(model: Any, tensor: Any, weights: np.ndarray, by_rows: bool) -> bool:
  """Stores a tensor as sparse if that is smaller; returns whether it is."""
  packed = sparsity, kept = tflite_files.pack(weights, by_rows)
  # LiteRT treats a tensor with an empty buffer as not constant.
  if tflite_files.n_packed_bytes(packed) >= weights.nbytes or not kept.size:
    return False
  tflite_files.set_values(model, tensor, kept)
  tensor.shape = np.asarray(weights.shape, np.int32)
  tensor.sparsity = sparsity
  return True


def _append(model: Any, index: int, code: int, operators: list[Any]) -> int:
  """Adds an operator that unpacks a tensor; returns its output."""
  schema = requirements.litert_schema()
  tensors = model.subgraphs[0].tensors
  packed, output = tensors[index], schema.TensorT()
  output.name = packed.name
  output.shape, output.hasRank = packed.shape, packed.hasRank
  output.buffer = 0  # The empty buffer of every file.
  if code == codes.DEQUANTIZE:
    output.type = tflite_files.FLOAT32
  else:
    output.type, output.quantization = packed.type, packed.quantization
  tensors.append(output)
  operator = schema.OperatorT()
  operator.inputs = np.array([index], np.int32)
  operator.outputs = np.array([len(tensors) - 1], np.int32)
  _use_version(model, operator, code, _VERSIONS[code])
  operators.append(operator)
  return len(tensors) - 1


def _use_version(model: Any, operator: Any, code: int, version: int) -> None:
  """Sets the kind and the version of an operator."""
  for index, known in enumerate(model.operatorCodes):
    if (known.builtinCode, known.version) == (code, version):
      operator.opcodeIndex = index
      return
  new = requirements.litert_schema().OperatorCodeT()
  new.builtinCode, new.version = code, version
  new.deprecatedBuiltinCode = min(code, 127)
  model.operatorCodes.append(new)
  operator.opcodeIndex = len(model.operatorCodes) - 1


def _shorten_names(model: Any, layer_of_scope: Mapping[str, str]) -> None:
  """Keeps only the names of input and output, and short names of layers.

  The converter's names take as many bytes as thousands of weights.
  """
  graph = model.subgraphs[0]
  layers = [
    (int(operator.outputs[0]), int(operator.inputs[1]))
    for operator in graph.operators
    if tflite_files.operator_code(model, operator) in codes.WEIGHTED
  ]
  long = [
    ';'.join((graph.tensors[index].name or b'').decode(errors='replace') for index in pair)
    for pair in layers
  ]
  short = {
    output: name for (output, _), name in zip(layers, names.short_names(long, layer_of_scope))
  }
  ends = {int(i) for i in (*graph.inputs, *graph.outputs)}
  for index, tensor in enumerate(graph.tensors):
    if index not in ends:
      tensor.name = short[index].encode() if index in short else None


def _drop_unused(model: Any) -> None:
  """Drops unused buffers."""
  users = [tensor for graph in model.subgraphs for tensor in graph.tensors]
  users += model.metadata or ()
  used = sorted({0} | {user.buffer for user in users})
  for user in users:
    user.buffer = used.index(user.buffer)
  model.buffers = [model.buffers[index] for index in used]


def write_file(path: str, data: bytes) -> None:
  """Writes a file atomically: readers see the old or the complete new one.

  Raises:
    OSError: the file cannot be written.
  """
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  with files.replaced(path) as temporary, open(temporary, 'wb') as file:
    file.write(data)

"""Reads and writes .tflite files: their tensors, operators and sparse weights.

Uses the flatbuffer classes of the package ai-edge-litert.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from rigl.inference import requirements

# TensorTypes of the schema that are used here.
FLOAT32, INT32, INT64, INT8 = 0, 2, 4, 9
DTYPES = {
  0: np.float32,
  1: np.float16,
  2: np.int32,
  3: np.uint8,
  4: np.int64,
  6: np.bool_,
  7: np.int16,
  9: np.int8,
}
_DENSE, _CSR = 0, 1
_IDENTIFIER = b'TFL3'
# Alignment of buffers, required by the schema.
_ALIGNMENT = 16


def read(data: bytes, name: str) -> Any:
  """Unpacks a model, a ModelT of the schema.

  Raises:
    ValueError: the data are not a model, or damaged.
  """
  schema = requirements.litert_schema()
  if data[4:8] != _IDENTIFIER:
    raise ValueError(
      f'{name} is not a .tflite file, or a damaged one: it lacks the identifier TFL3. Export it '
      'again.'
    )
  # Damaged offsets can cause any error.
  try:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
      _ = model.buffers[tensor.buffer]
    for operator in graph.operators:
      _ = model.operatorCodes[operator.opcodeIndex]
  except Exception as error:
    raise ValueError(
      f'{name} is damaged ({type(error).__name__} while reading it). Export it again.'
    ) from error
  return model


def write(model: Any) -> bytes:
  """Packs a ModelT into the bytes of a file."""
  import flatbuffers

  class Builder(flatbuffers.Builder):
    """Aligns buffers, and stores equal vectors (e.g. zero points) once."""

    def __init__(self) -> None:
      super().__init__(1 << 20)
      self._stored: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
      key = x.dtype.str, x.tobytes()
      if key not in self._stored:
        if x.dtype == np.uint8:
          self.Prep(_ALIGNMENT, x.nbytes)
        self._stored[key] = super().CreateNumpyVector(x)
      return self._stored[key]

  builder = Builder()
  builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
  return bytes(builder.Output())


def operator_code(model: Any, operator: Any) -> int:
  """The BuiltinOperator of an operator."""
  code = model.operatorCodes[operator.opcodeIndex]
  # Older files store the code in a field of 8 bits.
  return max(code.builtinCode, code.deprecatedBuiltinCode)


def operator_name(code: int) -> str:
  """The name of a BuiltinOperator: 3 is CONV_2D."""
  names = vars(requirements.litert_schema().BuiltinOperator)
  return next((name for name, value in names.items() if value == code), f'operator {code}')


def shape_of(tensor: Any) -> tuple[int, ...]:
  """The shape of a tensor."""
  return () if tensor.shape is None else tuple(int(n) for n in tensor.shape)


def values_of(model: Any, tensor: Any) -> Optional[np.ndarray]:
  """The values of a constant, sparse ones unpacked; None for an activation.

  Raises:
    ValueError: the buffer does not fit the tensor.
  """
  data = model.buffers[tensor.buffer].data
  if data is None or not len(data):
    return None
  shape, name = shape_of(tensor), (tensor.name or b'?').decode(errors='replace')
  if tensor.type not in DTYPES:
    raise ValueError(f'The constant {name} has the type {tensor.type}, which is not read here.')
  dtype = np.dtype(DTYPES[tensor.type])
  data = np.asarray(data, np.uint8)
  if len(data) % dtype.itemsize:
    raise ValueError(f'The constant {name} has {len(data)} bytes.')
  values = data.view(dtype)
  if tensor.sparsity is not None:
    return unpack(tensor.sparsity, values, shape, name)
  if values.size != math.prod(shape):
    raise ValueError(f'The constant {name} has {values.size} values, but the shape {list(shape)}.')
  return values.reshape(shape)


def set_values(model: Any, tensor: Any, values: np.ndarray) -> None:
  """Sets values, of the tensor's type, and shape of a tensor, in a new buffer."""
  buffer = requirements.litert_schema().BufferT()
  buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
  model.buffers.append(buffer)
  tensor.buffer = len(model.buffers) - 1
  tensor.shape = np.asarray(values.shape, np.int32)
  tensor.shapeSignature = None
  tensor.sparsity = None


def _indices(schema: Any, values: np.ndarray) -> tuple[int, Any]:
  """Indices in the smallest type: (number of the type, vector)."""
  largest = int(values.max(initial=0))
  kinds = schema.SparseIndexVector
  if largest < 2**8:
    kind, vector, dtype = kinds.Uint8Vector, schema.Uint8VectorT(), 'uint8'
  elif largest < 2**16:
    kind, vector, dtype = kinds.Uint16Vector, schema.Uint16VectorT(), 'uint16'
  else:
    kind, vector, dtype = kinds.Int32Vector, schema.Int32VectorT(), 'int32'
  vector.values = values.astype(dtype)
  return kind, vector


def pack(values: np.ndarray, by_rows: bool = False) -> tuple[Any, np.ndarray]:
  """Stores one dimension of weights compressed, as sparse rows or columns.

  TensorFlow's converter compresses the last dimension, the inputs of a layer.
  Compressing the first, the outputs, takes fewer bytes if there are at most 256
  outputs and more inputs: an index then has one byte instead of two.

  Args:
    values: weights of two or more dimensions.
    by_rows: whether to compress the last dimension in any case.

  Returns:
    (SparsityParametersT, the non-zero values).
  """
  order = list(range(values.ndim))
  packed = _pack_last(values, order)
  if not by_rows:
    packed = min(packed, _pack_last(values, [*order[1:], 0]), key=n_packed_bytes)
  return packed


def _pack_last(values: np.ndarray, order: Sequence[int]) -> tuple[Any, np.ndarray]:
  """Compresses the last of some dimensions and leaves the others dense."""
  schema = requirements.litert_schema()
  sparsity = schema.SparsityParametersT()
  sparsity.traversalOrder = np.array(order, np.int32)
  sparsity.blockMap = np.zeros(0, np.int32)
  values = values.transpose(order)
  sparsity.dimMetadata = []
  for size in values.shape[:-1]:
    dimension = schema.DimensionMetadataT()
    dimension.format, dimension.denseSize = _DENSE, size
    sparsity.dimMetadata.append(dimension)
  rows = values.reshape(-1, values.shape[-1])
  is_kept = rows != 0
  last = schema.DimensionMetadataT()
  last.format = _CSR
  segments = np.concatenate([[0], np.cumsum(is_kept.sum(1))])
  last.arraySegmentsType, last.arraySegments = _indices(schema, segments)
  last.arrayIndicesType, last.arrayIndices = _indices(schema, np.nonzero(is_kept)[1])
  sparsity.dimMetadata.append(last)
  return sparsity, rows[is_kept]


def n_packed_bytes(packed: tuple[Any, np.ndarray]) -> int:
  """The number of bytes of a result of `pack`."""
  sparsity, kept = packed
  last = sparsity.dimMetadata[-1]
  return kept.nbytes + last.arraySegments.values.nbytes + last.arrayIndices.values.nbytes


def unpack(sparsity: Any, values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
  """The dense array of sparse values, with or without blocks.

  Raises:
    ValueError: indices, values and shape do not match.
  """
  problem = ValueError(
    f'The sparse weights {name} are damaged: their indices do not fit their shape. Export the '
    'model again.'
  )
  order = [int(i) for i in sparsity.traversalOrder]
  blocks = [] if sparsity.blockMap is None else list(sparsity.blockMap)
  n, dims = len(shape), sparsity.dimMetadata
  if (
    sorted(order) != list(range(n + len(blocks)))
    or len(dims) != len(order)
    or any(not 0 <= b < n for b in blocks)
  ):
    raise problem
  block_sizes = np.ones(n, np.int64)
  for level, position in enumerate(order):
    if position >= n:
      block_sizes[blocks[position - n]] = dims[level].denseSize
  # One row of coordinates per entry of the levels so far.
  coordinates = np.zeros((1, n), np.int64)
  for dim, position in zip(dims, order):
    parents = np.arange(len(coordinates))
    if dim.format == _DENSE:
      entries = np.tile(np.arange(dim.denseSize), len(parents))
      parents = np.repeat(parents, dim.denseSize)
    else:
      segments = np.asarray(dim.arraySegments.values, np.int64)
      entries = np.asarray(dim.arrayIndices.values, np.int64)
      counts = np.diff(segments)
      if (
        len(segments) != len(parents) + 1
        or segments[0]
        or (counts < 0).any()
        or segments[-1] != len(entries)
      ):
        raise problem
      parents = np.repeat(parents, counts)
    axis = position if position < n else blocks[position - n]
    scale = block_sizes[axis] if position < n else 1
    coordinates = coordinates[parents]
    coordinates[:, axis] += entries * scale
  if (
    len(coordinates) != len(values)
    or (coordinates < 0).any()
    or (coordinates >= np.asarray(shape)).any()
  ):
    raise problem
  dense = np.zeros(shape, values.dtype)
  dense[tuple(coordinates.T)] = values
  return dense


def dequantized(tensor: Any, values: np.ndarray) -> np.ndarray:
  """The values of a tensor, int8 with its scales or float16, as float32."""
  if values.dtype == np.float16:
    return values.astype(np.float32)
  scale = np.asarray(tensor.quantization.scale, np.float32)
  zero = np.asarray(tensor.quantization.zeroPoint, np.float32)
  shape = [1] * values.ndim
  if scale.size != 1:
    shape[tensor.quantization.quantizedDimension] = scale.size
  return (values - zero.reshape(shape)) * scale.reshape(shape)

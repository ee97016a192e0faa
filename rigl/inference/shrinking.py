"""Removes units of a network without changing its outputs.

A unit (a channel of a convolution) without outgoing weights is unused. A unit
without incoming weights has a constant output, which can be folded into the
biases of the layers that read it. Both are removed between two layers with
weights if everything in between works per channel: depthwise convolutions,
pooling, means and flattening. Units that a residual addition reads stay.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

import numpy as np

from rigl.inference import codes, requirements, tflite_files

_POOLS = (codes.MAX_POOL_2D, codes.AVERAGE_POOL_2D)
_ENDS = (codes.CONV_2D, codes.FULLY_CONNECTED)


def shrink(model: Any) -> int:
  """Removes dead units from a ModelT in place; returns how many."""
  n_removed = 0
  while n := _Pass(model).run():
    n_removed += n
  return n_removed


class _Path(NamedTuple):
  """The operations from a layer to one that reads it, and that one."""

  channelwise: list[Any]
  end: Any


class _Pass:
  """One pass over all layers."""

  def __init__(self, model: Any) -> None:
    self._model = model
    self._graph = model.subgraphs[0]
    self._readers: dict[int, list[Any]] = {}
    for operator in self._graph.operators:
      for index in set(operator.inputs):
        self._readers.setdefault(int(index), []).append(operator)
    self._outputs = {int(i) for i in self._graph.outputs}

  def run(self) -> int:
    n_removed = 0
    # Backwards, so that units made unused by a removal go in the same pass.
    for operator in reversed(self._graph.operators):
      if self._code(operator) in _ENDS and self._has_weights(operator):
        paths = self._paths(int(operator.outputs[0]))
        if paths is not None:
          n_removed += self._shrink_layer(operator, paths)
    return n_removed

  def _code(self, operator: Any) -> int:
    return tflite_files.operator_code(self._model, operator)

  def _values(self, index: int) -> Any:
    """The array of a constant; None for an activation."""
    return tflite_files.values_of(self._model, self._graph.tensors[index])

  def _has_weights(self, operator: Any) -> bool:
    """Whether its weights and biases are constants that only it reads."""
    return all(
      self._values(index) is not None and len(self._readers[index]) == 1
      for index in map(int, operator.inputs[1:])
      if index >= 0
    )

  def _paths(self, index: int) -> Optional[list[_Path]]:
    """To all readers of the channels of a tensor; None if they must stay."""
    if index in self._outputs or not self._readers.get(index):
      return None
    found = []
    for operator in self._readers[index]:
      code = self._code(operator)
      if int(operator.inputs[0]) != index:
        return None
      if code in _ENDS and self._has_weights(operator):
        found.append(_Path([], operator))
      elif self._is_channelwise(operator):
        rest = self._paths(int(operator.outputs[0]))
        if rest is None:
          return None
        found += [_Path([operator, *path.channelwise], path.end) for path in rest]
      else:
        return None
    return found

  def _is_channelwise(self, operator: Any) -> bool:
    shapes = [
      tflite_files.shape_of(self._graph.tensors[int(index)])
      for index in (operator.inputs[0], operator.outputs[0])
    ]
    code = self._code(operator)
    if code == codes.DEPTHWISE_CONV_2D:
      return shapes[0][-1] == shapes[1][-1] and self._has_weights(operator)
    if code == codes.RESHAPE:
      # Flattening keeps the first dimension.
      return len(shapes[0]) == 4 and len(shapes[1]) == 2 and shapes[0][0] == shapes[1][0]
    if code == codes.MEAN:
      axes = self._values(int(operator.inputs[1]))
      is_known = len(shapes[0]) == 4 and axes is not None
      return is_known and sorted(int(axis) % 4 for axis in axes.ravel()) == [1, 2]
    return code in _POOLS

  def _shrink_layer(self, operator: Any, paths: Sequence[_Path]) -> int:
    weights = self._values(int(operator.inputs[1]))
    n = len(weights)
    is_constant = ~weights.reshape(n, -1).any(1)
    constants = np.where(is_constant, _activated(operator, self._biases(operator, n)), 0.0)
    is_kept, constants_read = np.zeros(n, bool), []
    for path in paths:
      is_constant_here, constants_here = is_constant, constants
      for one in path.channelwise:
        is_constant_here, constants_here = self._through(one, is_constant_here, constants_here)
      columns = self._columns(path.end, n)
      if _pads(path.end, self._code(path.end), columns.shape[1]):
        is_constant_here = is_constant_here & (constants_here == 0)
      is_kept |= columns.any((0, 1)) & ~is_constant_here
      constants_read.append(constants_here)
    if not is_kept.any():
      # A layer must keep at least one unit.
      is_kept[0] = True
    if is_kept.all():
      return 0
    for path, constants in zip(paths, constants_read):
      self._fold(path.end, np.where(is_kept, 0.0, constants))
    self._remove(operator, paths, is_kept)
    return int((~is_kept).sum())

  def _biases(self, operator: Any, n: int) -> np.ndarray:
    return self._values(int(operator.inputs[2])) if _has_biases(operator) else np.zeros(n)

  def _columns(self, end: Any, n: int) -> np.ndarray:
    """The weights of a layer as [units, positions, input channels]."""
    weights = self._values(int(end.inputs[1]))
    return weights.reshape(len(weights), -1, n)

  def _through(
    self, operator: Any, is_constant: np.ndarray, constants: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Which channels are constant behind a channelwise operation, and their values."""
    code = self._code(operator)
    if code in _POOLS:
      constants = np.where(is_constant, _activated(operator, constants), 0.0)
    if code != codes.DEPTHWISE_CONV_2D:
      return is_constant, constants
    n = len(constants)
    weights = self._values(int(operator.inputs[1])).reshape(-1, n)
    if _pads(operator, codes.DEPTHWISE_CONV_2D, len(weights)):
      # At the borders, padding makes the output of a constant differ.
      is_constant = is_constant & (constants == 0)
    is_constant = is_constant | ~weights.any(0)
    outputs = weights.sum(0) * constants + self._biases(operator, n)
    return is_constant, np.where(is_constant, _activated(operator, outputs), 0.0)

  def _fold(self, end: Any, constants: np.ndarray) -> None:
    """Adds the contribution of removed constant units to the biases."""
    if not constants.any():
      return
    added = self._columns(end, len(constants)).sum(1) @ constants
    biases = self._biases(end, len(added)) + added
    if not _has_biases(end):
      tensor = requirements.litert_schema().TensorT()
      tensor.name, tensor.type = b'biases', tflite_files.FLOAT32
      self._graph.tensors.append(tensor)
      end.inputs = np.array([*end.inputs[:2], len(self._graph.tensors) - 1], np.int32)
    self._set(end.inputs[2], biases.astype(np.float32))

  def _remove(self, operator: Any, paths: Sequence[_Path], is_kept: np.ndarray) -> None:
    for index in operator.inputs[1:]:
      self._take(int(index), is_kept, axis=0)
    self._narrow(operator, is_kept)
    # Paths begin with the same operations.
    for one in {id(one): one for path in paths for one in path.channelwise}.values():
      code = self._code(one)
      if code == codes.DEPTHWISE_CONV_2D:
        for index in one.inputs[1:]:
          self._take(int(index), is_kept, axis=-1)
      self._narrow(one, is_kept)
      if code == codes.RESHAPE:
        self._reshape(one)
    for path in paths:
      index = int(path.end.inputs[1])
      size = tflite_files.shape_of(self._graph.tensors[index])[-1]
      self._take(index, np.tile(is_kept, size // len(is_kept)), axis=-1)

  def _narrow(self, operator: Any, is_kept: np.ndarray) -> None:
    """Removes channels from the shape of the output."""
    tensor = self._graph.tensors[int(operator.outputs[0])]
    tensor.shape = np.array(tensor.shape, np.int32)
    tensor.shape[-1] = tensor.shape[-1] // len(is_kept) * is_kept.sum()
    tensor.shapeSignature = None

  def _reshape(self, operator: Any) -> None:
    shape = self._graph.tensors[int(operator.outputs[0])].shape
    self._set(operator.inputs[1], np.array(shape, np.int32))
    operator.builtinOptions = None
    operator.builtinOptionsType = 0

  def _take(self, index: int, is_kept: np.ndarray, axis: int) -> None:
    if index >= 0:
      values = self._values(index)
      self._set(index, np.compress(is_kept, values, axis % values.ndim))

  def _set(self, index: int, values: np.ndarray) -> None:
    tflite_files.set_values(self._model, self._graph.tensors[int(index)], values)


def _has_biases(operator: Any) -> bool:
  return len(operator.inputs) > 2 and operator.inputs[2] >= 0


def _activated(operator: Any, values: np.ndarray) -> np.ndarray:
  low, high = codes.ACTIVATIONS[operator.builtinOptions.fusedActivationFunction]
  return np.clip(values, low, high)


def _pads(operator: Any, code: int, n_positions: int) -> bool:
  """Whether some positions may read padding."""
  is_window = code != codes.FULLY_CONNECTED and n_positions > 1
  return is_window and operator.builtinOptions.padding == codes.SAME

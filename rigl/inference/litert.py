"""LiteRT, the runtime of .tflite files, as a function of batches."""

from __future__ import annotations

import threading
from typing import Any, Optional

import numpy as np

from rigl.inference import requirements


class LiteRT:
  """Runs a network; calls from several threads wait for one another."""

  def __init__(self, data: bytes, name: str, num_threads: int = 1, xnnpack: bool = True) -> None:
    """Loads the network.

    Args:
      data: content of the file.
      name: name of the file, for errors.
      num_threads: threads that compute each layer together.
      xnnpack: whether LiteRT uses XNNPACK, its default.

    Raises:
      ValueError: LiteRT cannot run the network; names the reason.
    """
    module = requirements.litert()
    resolvers = module.OpResolverType
    self._lock = threading.Lock()
    try:
      self._interpreter = module.Interpreter(
        model_content=data,
        num_threads=num_threads,
        experimental_op_resolver_type=(
          resolvers.AUTO if xnnpack else resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        ),
      )
      self._interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
      raise ValueError(f'LiteRT cannot run {name}: {error}') from error
    (self._input,) = self._interpreter.get_input_details()
    (self._output,) = self._interpreter.get_output_details()
    self.input_shape = tuple(int(n) for n in self._input['shape'][1:])
    self._batch_size = int(self._input['shape'][0])
    # Whether examples of a batch change each other's outputs; None if not known.
    self._mixes: Optional[bool] = None

  def __call__(self, batch: np.ndarray) -> np.ndarray:
    """Computes the outputs of a batch.

    Args:
      batch: [batch, *input_shape], of any batch size.
    """
    batch = batch.astype(self._input['dtype'], copy=False)
    with self._lock:
      if not len(batch):
        return np.zeros((0, *self._output['shape'][1:]), np.float32)
      if not self._mixes and self._resize(len(batch)):
        outputs = self._invoke(batch)
        if self._mixes is None and len(batch) > 1:
          self._mixes = self._differs_alone(batch[-1:], outputs[-1:])
        if not self._mixes:
          return outputs
      self._resize(1)
      return np.concatenate([self._invoke(one[None]) for one in batch])

  def _invoke(self, batch: np.ndarray) -> Any:
    self._interpreter.set_tensor(self._input['index'], batch)
    self._interpreter.invoke()
    return self._interpreter.get_tensor(self._output['index'])

  def _differs_alone(self, example: np.ndarray, output: np.ndarray) -> bool:
    """Whether an example of a batch has another output in a batch of 1.

    The converter may have fixed a batch of 1 in the shape of a constant, so that
    the examples of a batch become positions of one image. A network that takes
    no batch of 1 was made for another one.
    """
    return self._resize(1) and not np.allclose(
      self._invoke(example), output, rtol=1e-3, atol=1e-5, equal_nan=True
    )

  def _resize(self, n: int) -> bool:
    """Resizes to batches of n; returns whether the network allows it."""
    if n == self._batch_size:
      return True
    try:
      self._interpreter.resize_tensor_input(self._input['index'], (n, *self.input_shape))
      self._interpreter.allocate_tensors()
    except (RuntimeError, ValueError):
      self._batch_size = 0
      return False
    self._batch_size = n
    (output,) = self._interpreter.get_output_details()
    return int(output['shape'][0]) == n

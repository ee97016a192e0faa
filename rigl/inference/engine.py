"""The engine of this library: a sparse network on the processor."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any, Optional

import numpy as np

from rigl.inference import graph as graphs


class Engine:
  """Runs a network; calls from several threads wait for one another."""

  def __init__(self, graph: graphs.Graph, n_threads: int = 1) -> None:
    """Compiles the network.

    Args:
      graph: the network.
      n_threads: threads that compute each layer together.
    """
    # These load numba, which takes a second.
    from rigl.inference import compiling, kernels
    self.input_shape = graph.input_shape
    self._output_shape = graph.output_shape
    self._n_threads = n_threads
    self._run = kernels.run
    self._program = compiling.make_program(graph, n_threads)
    self._arguments = self._program.arguments()
    self._lock = threading.Lock()
    self._pool: Optional[Any] = None
    if n_threads > 1:
      self._pool = concurrent.futures.ThreadPoolExecutor(n_threads - 1)

  def __call__(self, batch: np.ndarray) -> np.ndarray:
    """Computes the outputs of a batch.

    Args:
      batch: float32 [batch, *input_shape], of any batch size.
    """
    outputs = np.empty((len(batch), *self._output_shape), np.float32)
    arena, place = self._program.arena, self._program.input
    with self._lock:
      for example, output in zip(batch, outputs):
        arena[place] = example.ravel()
        self._run_once()
        output[...] = arena[self._program.output].reshape(output.shape)
    return outputs

  def _run_once(self) -> None:
    arrivals = np.zeros(8, np.int64)
    n = self._n_threads
    others = [
        self._pool.submit(self._run, *self._arguments, i, n, arrivals)
        for i in range(1, n)] if self._pool else []
    self._run(*self._arguments, 0, n, arrivals)
    for future in others:
      future.result()

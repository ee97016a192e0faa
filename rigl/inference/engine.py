"""The engine of this library: runs a sparse network on the CPU."""

from __future__ import annotations

import threading

import numpy as np

from rigl.inference import graph as graphs


class Engine:
  """Runs a network; calls from several threads wait for one another."""

  def __init__(self, graph: graphs.Graph, n_threads: int = 1) -> None:
    """Compiles the network."""
    # Imported here, since numba takes a second to load.
    from rigl.inference import compiling, threads

    self.input_shape = graph.input_shape
    self._output_shape = graph.output_shape
    self._program = compiling.make_program(graph, n_threads)
    self._team = threads.Team(self._program.arrays, n_threads)
    self._lock = threading.Lock()

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
        self._team.run()
        output[...] = arena[self._program.output].reshape(output.shape)
    return outputs

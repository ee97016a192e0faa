"""Threads that compute each layer together."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from typing import Any

import numpy as np

from rigl.inference import kernels


@dataclasses.dataclass
class _Shared:
  """State shared by the threads of an engine."""

  counts: np.ndarray
  condition: threading.Condition
  is_closed: bool = False

  def close(self) -> None:
    with self.condition:
      self.is_closed = True
      self.condition.notify_all()


class Team:
  """Runs a program on the calling thread and on others.

  After a call the others first spin, waiting for the next one, then sleep. They
  end with this object.
  """

  def __init__(self, arrays: tuple[Any, ...], n_threads: int) -> None:
    """Starts the threads, of which the calling one is one.

    `arrays` are the arguments of `kernels.run`, from `steps` on.
    """
    self._arrays, self._n_threads = arrays, n_threads
    self._shared = _Shared(np.zeros(kernels.N_COUNTS, np.int64), threading.Condition())
    self._n_calls = 0
    for thread in range(1, n_threads):
      threading.Thread(target=_take_part, args=(arrays, thread, self._shared), daemon=True).start()
    weakref.finalize(self, self._shared.close)

  def run(self) -> None:
    """Runs the program once."""
    shared = self._shared
    if self._n_threads > 1:
      with shared.condition:
        kernels.begin(shared.counts)
        shared.condition.notify_all()
    kernels.run(0, shared.counts, self._n_calls, *self._arrays)
    self._n_calls += 1


def _take_part(arrays: tuple[Any, ...], thread: int, shared: _Shared) -> None:
  """The main function of the other threads."""
  call = 0
  while True:
    with shared.condition:
      while shared.counts[kernels.CALLS] == call and not shared.is_closed:
        shared.condition.wait()
      if shared.is_closed:
        return
    call = kernels.serve(thread, shared.counts, call, *arrays)

"""Loads a .tflite file with the engine that is fastest for it here."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from typing import Any, Optional

import numpy as np
from absl import logging

from rigl.core import checks
from rigl.inference import engine as engines
from rigl.inference import exporting, litert, reading, requirements, tflite_files, timing
from rigl.inference import graph as graphs

ENGINES = ('auto', 'rigl', 'litert')
_SECONDS_TO_CHOOSE = 1.0
# Increased when a change of the kernels invalidates earlier measurements.
_VERSION = 2


class Network:
  """A network, ready to be called.

  Attributes:
    engine: the engine, 'rigl' or 'litert'.
    input_shape: shape of an example.
  """

  def __init__(self, run: Any, engine: str) -> None:
    """Wraps an Engine or LiteRT of this name."""
    self._run, self.engine = run, engine
    self.input_shape: tuple[int, ...] = tuple(run.input_shape)

  def __call__(self, batch: Any) -> np.ndarray:
    """Computes the outputs of a batch, float32 [batch, ...].

    Args:
      batch: numbers [batch, *input_shape], of any batch size.

    Raises:
      ValueError: the examples have another shape.
    """
    batch = np.asarray(batch, np.float32)
    if batch.shape[1:] != self.input_shape or not batch.ndim:
      raise ValueError(
        f'The network takes batches of the shape [batch, {", ".join(map(str, self.input_shape))}], '
        f'got {list(batch.shape)}.'
      )
    return self._run(batch)


def load(path: str, num_threads: int = 1, engine: str = 'auto', batch_size: int = 1) -> Network:
  """Loads a network from a .tflite file.

  Args:
    path: path of the file.
    num_threads: threads that compute each layer together.
    engine: 'rigl' for the engine of this library, which skips zeros; 'litert'
      for LiteRT; 'auto' for the faster of the two, measured once, in about a
      second, and stored in the file `<path>.engine.json`. If the engine of this
      library cannot run the network, LiteRT does, with a message in the log.
    batch_size: batch size of that measurement. The network accepts batches of
      any size.

  Raises:
    ValueError: the file cannot be read, is damaged, or, with engine='rigl',
      does not compute in float32; or an argument is not one of its options.
  """
  checks.one_of('engine', engine, ENGINES)
  checks.positive('num_threads', num_threads)
  checks.positive('batch_size', batch_size)
  path = os.path.expanduser(os.fspath(path))
  data = exporting.read_file(path)
  run = None
  if engine != 'litert':
    run = own_engine(data, path, num_threads, is_wanted=engine == 'rigl')
  if run is None:
    tflite_files.read(data, path)
    return Network(litert.LiteRT(data, path, num_threads), 'litert')
  if engine == 'rigl':
    return Network(run, 'rigl')
  networks = {'rigl': run, 'litert': litert.LiteRT(data, path, num_threads)}
  chosen = _choose(networks, data, path, num_threads, batch_size)
  return Network(networks[chosen], chosen)


def own_engine(
  data: bytes, path: str, num_threads: int, is_wanted: bool = False
) -> Optional[engines.Engine]:
  """The engine of this library; None, with a message, if it cannot be used.

  Raises:
    ValueError: `is_wanted`, but numba is not installed or the file is not
      float32.
  """
  if not requirements.has_numba():
    if is_wanted:
      requirements.numba()
    logging.warning('%s runs on LiteRT: numba is not installed.', path)
    return None
  try:
    graph = reading.read_graph(tflite_files.read(data, path), path)
    return engines.Engine(graph, num_threads)
  except graphs.UnknownOperation as error:
    logging.warning('%s runs on LiteRT: the engine of rigl does not know %s.', path, error)
    return None
  except graphs.NotFloat32 as error:
    if is_wanted:
      raise
    logging.warning('%s runs on LiteRT: %s', path, error)
    return None


def _choose(
  networks: dict[str, Any], data: bytes, path: str, num_threads: int, batch_size: int
) -> str:
  """The name of the faster engine, stored or measured now."""
  key = _key(data, num_threads, batch_size)
  memory = f'{path}.engine.json'
  remembered = _read_memory(memory)
  found = remembered.get(key)
  if isinstance(found, dict) and found.get('engine') in networks:
    return found['engine']
  shape = (batch_size, *networks['rigl'].input_shape)
  examples = np.random.default_rng(0).random(shape, np.float32)
  calls = {name: functools.partial(run, examples) for name, run in networks.items()}
  samples = timing.seconds_in_turn(calls, _SECONDS_TO_CHOOSE, num_threads)
  chosen = faster(samples)
  medians = {name: round(1000 * float(np.median(times)), 4) for name, times in samples.items()}
  remembered[key] = {'engine': chosen, 'milliseconds': medians}
  try:
    exporting.write_file(memory, (json.dumps(remembered, indent=2) + '\n').encode())
  except OSError as error:
    logging.info('Cannot write %s (%s): the next load measures again.', memory, error)
  return chosen


def faster(samples: dict[str, list[float]]) -> str:
  """The engine to use: 'litert' unless 'rigl' is clearly faster.

  It must win three of four rounds, so that noise on a busy machine does not decide. `samples` are
  those of `timing.seconds_in_turn`.
  """
  wins = np.array(samples['rigl']) < np.array(samples['litert'])
  return 'rigl' if wins.mean() >= 0.75 else 'litert'


def _key(data: bytes, num_threads: int, batch_size: int) -> str:
  """A key of everything that the choice depends on."""
  from importlib import metadata

  digest = hashlib.sha256(data).hexdigest()[:16]
  version = metadata.version('ai-edge-litert')
  return (
    f'{digest}, {num_threads} threads, batch {batch_size}, {_processor()}, LiteRT {version}, '
    f'rigl {_VERSION}'
  )


def _processor() -> str:
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      for line in file:
        if line.startswith('model name'):
          return line.partition(':')[2].strip()
  except OSError:
    pass
  return platform.processor() or platform.machine()


def _read_memory(path: str) -> dict[str, Any]:
  """Earlier choices; {} if the file is missing or damaged."""
  try:
    with open(path, encoding='utf-8') as file:
      found = json.load(file)
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}

"""Times a network on this machine, on LiteRT and on the engine of rigl."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from rigl.inference import exporting, litert, loading, tflite_files, timing
from rigl.micronet import formatting


def benchmark(
  path: str,
  against: Optional[str] = None,
  threads: Sequence[int] = (1,),
  batch: int = 1,
  seconds: float = 5.0,
) -> list[dict[str, Any]]:
  """Times the engines in this process, alternating between them.

  Args:
    path: path of a .tflite file.
    against: path of the dense file as baseline; None for LiteRT on `path`.
    threads: numbers of threads to try.
    batch: examples per call.
    seconds: approximate time to measure each number of threads.

  Returns:
    A record of each engine and number of threads: engine, network, threads,
    median and quartiles of a call in seconds (see `timing.seconds_in_turn`),
    and ratio, the median speed-up over the first engine.

  Raises:
    ValueError: a file cannot be read or run, or the networks have different
      inputs.
  """
  records = []
  for n_threads in threads:
    networks = _networks(path, against, n_threads)
    shapes = {run.input_shape for run in networks.values()}
    if len(shapes) != 1:
      raise ValueError(f'{path} and {against} take different inputs: {sorted(shapes)}.')
    examples = np.random.default_rng(0).random((batch, *shapes.pop()), np.float32)
    samples = timing.seconds_in_turn(
      {key: functools.partial(run, examples) for key, run in networks.items()}, seconds, n_threads
    )
    baseline = np.array(next(iter(samples.values())))
    for (engine, network), times in samples.items():
      low, median, high = np.quantile(times, [0.25, 0.5, 0.75])
      records.append(
        {
          'engine': engine,
          'network': network,
          'threads': n_threads,
          'batch': batch,
          'seconds': float(median),
          'quartiles': [float(low), float(high)],
          'ratio': float(np.median(baseline / np.array(times))),
        }
      )
  return records


def _networks(path: str, against: Optional[str], n_threads: int) -> dict[tuple[str, str], Any]:
  """{(engine, network): a function of a batch}, the baseline first."""
  networks: dict[tuple[str, str], Any] = {}
  named = {'dense': against} if against is not None else {}
  named['sparse'] = path
  data = {name: exporting.read_file(file) for name, file in named.items()}
  for name, content in data.items():
    tflite_files.read(content, named[name])
    for engine, xnnpack in (('LiteRT', True), ('LiteRT, no XNNPACK', False)):
      networks[engine, name] = litert.LiteRT(content, named[name], n_threads, xnnpack)
  own = loading.own_engine(data['sparse'], path, n_threads)
  if own is not None:
    networks['rigl', 'sparse'] = own
  return networks


def render(records: Sequence[dict[str, Any]]) -> str:
  """The records of `benchmark` as a table."""
  rows = [
    [
      record['engine'],
      record['network'],
      str(record['threads']),
      f'{1000 * record["seconds"]:.4g} ms',
      ' - '.join(f'{1000 * quartile:.4g}' for quartile in record['quartiles']),
      f'{record["ratio"]:.2f}x',
    ]
    for record in records
  ]
  first = records[0]
  load = ''
  if hasattr(os, 'getloadavg'):
    load = f'\nLoad of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors.'
  header = ['engine', 'network', 'threads', 'median', 'quartiles', 'faster']
  return (
    formatting.text_table(header, rows, n_left=2)
    + f'\nBatches of {first["batch"]}. "faster" is how many times longer {first["engine"]} takes '
    f'on the {first["network"]}\nnetwork with as many threads.{load}\n'
  )

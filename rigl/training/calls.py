"""Trains from Python: settings are keyword arguments instead of flags."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import tempfile
import warnings
from typing import Any, Iterator, Mapping, Optional

import numpy as np
from absl import logging

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.training import history, signals
from rigl.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Result:
  """The result of a training.

  Attributes:
    history: the rows of metrics.jsonl.
    masks: {layer: 0/1 array}; empty for a dense network.
    weights: {name of a parameter: array}, zero where a mask is.
    folder: folder of the run; None for a temporary one, which is gone.
  """

  history: list[dict[str, Any]]
  masks: dict[str, np.ndarray]
  weights: dict[str, np.ndarray]
  folder: Optional[str]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """A context in which nothing is printed or logged; errors pass."""
  loggers = (logging.get_absl_logger(), tf.get_logger())
  levels = [logger.level for logger in loggers]
  verbosity = logging.get_verbosity()
  try:
    logging.set_verbosity(logging.ERROR)
    tf.get_logger().setLevel('ERROR')
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.set_verbosity(verbosity)
    for logger, level in zip(loggers, levels):
      logger.setLevel(level)


def train(
  kind: type[Experiment],
  method: str,
  sparsity: Optional[float],
  verbose: bool,
  given: Mapping[str, Any],
) -> Result:
  """Trains as the script does, with these settings instead of flags.

  The sparsity, if None, is the default of the script. If `verbose`, it prints
  what the script prints. `given` is {setting: value} of all others.

  Raises:
    ValueError: a setting does not exist, is given twice, or has a wrong value;
      names it.
    KeyboardInterrupt: a signal has stopped it; says what is kept.
  """
  given = dict(given)
  for name, short, value in (
    ('training_method', 'method', method),
    ('end_sparsity', 'sparsity', sparsity),
  ):
    if name in given:
      raise ValueError(f'Give {short} instead of {name}.')
    if value is not None:
      given[name] = value
  with contextlib.ExitStack() as stack:
    keeps = bool(given.get(kind.schema.folder))
    if not keeps:
      given[kind.schema.folder] = stack.enter_context(tempfile.TemporaryDirectory())
    if not verbose:
      stack.enter_context(_quiet())
    # Event files would stay open, in a folder that may be gone.
    stack.callback(tf.summary.FileWriterCache.clear)
    try:
      folder = kind.of(given).run()
    except signals.StoppedError as stopped:
      if stopped.number == signal.SIGINT:
        raise KeyboardInterrupt(str(stopped)) from stopped
      raise
    prefix = checkpoint_files.latest(folder)
    masks, weights = checkpoint_files.read_network(prefix) if prefix else ({}, {})
    return Result(history.read(folder), masks, weights, folder if keeps else None)

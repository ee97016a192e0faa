"""metrics.jsonl: the metrics of a training, for programs to read.

Each line is a JSON object, a row:

    {"step": 50, "epoch": 1, "split": "test", "loss": 0.31, "accuracy": 0.9}

A training that resumes from a checkpoint drops the rows after it and writes
them again. Some numbers accumulate over the steps between rows, so each
checkpoint comes with their current state. An interrupted training therefore has
the same rows as an uninterrupted one, except for `seconds`.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from typing import Any, Mapping

import numpy as np

from rigl import files, text_files
from rigl.compat import tf

METRICS_FILE = 'metrics.jsonl'
_STATE_FILE = 'metrics_state.json'


def read(folder: str) -> list[dict[str, Any]]:
  """The rows of a training, which may be running, in order.

  Raises:
    ValueError: a line is not a row; names it.
  """
  path = os.path.join(folder, METRICS_FILE)
  rows = []
  for number, line in enumerate(text_files.read(path).splitlines(True), 1):
    if not line.endswith('\n'):
      continue  # An incomplete line: cut short by a kill, or being written.
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if not isinstance(row, dict):
      raise ValueError(
        f'{path}, line {number}: expected a JSON object, found '
        f'{line.strip()!r}. Move the file away.'
      )
    rows.append(row)
  return rows


def evaluations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """The rows of evaluations."""
  return [row for row in rows if row['split'] != 'train']


class History:
  """The rows of a training, in memory and in its folder.

  Attributes:
    rows: all rows so far, including those of earlier processes.
  """

  def __init__(self, folder: str, position: str = 'step'):
    """Neither reads nor writes anything before `resume`; `position` orders rows."""
    self._folder = folder
    self._path = os.path.join(folder, METRICS_FILE)
    self._position = position
    self.rows: list[dict[str, Any]] = []
    self._states: dict[str, Any] = {}
    self._begin = time.monotonic()

  def resume(self, at: int) -> Any:
    """Goes back to the checkpoint at a position, 0 without one.

    Returns:
      The state that `save_state` saved there; None without one.

    Raises:
      ValueError: a file is damaged; names it.
    """
    found = read(self._folder)
    self.rows = [row for row in found if row.get(self._position, 0) <= at]
    text = ''.join(map(_line, self.rows))
    if text_files.read(self._path) != text:
      text_files.write(self._path, text)
    self._states = self._read_states()
    state = self._states.get(str(at))
    self._states = {str(at): state} if state is not None else {}
    self._begin = time.monotonic() - (self.rows[-1]['seconds'] if self.rows else 0.0)
    return state

  def add(self, split: str, **values: Any) -> None:
    """Appends a row of a split, unless there is one of this split and position.

    The values include the position. Nones are left out.
    """
    row: dict[str, Any] = {
      name: _plain(value) for name, value in values.items() if value is not None
    }
    row['split'] = split
    row['seconds'] = round(time.monotonic() - self._begin, 2)
    if self.has(split, row[self._position]):
      return
    self.rows.append(row)
    tf.io.gfile.makedirs(self._folder)
    with files.errors_name(self._path), tf.io.gfile.GFile(self._path, 'a') as stream:
      stream.write(_line(row))

  def has(self, split: str, at: int) -> bool:
    """Whether there is a row of a split at a position."""
    return any(
      row['split'] == split and row.get(self._position) == at for row in reversed(self.rows)
    )

  def save_state(self, at: int, state: Any) -> None:
    """Saves the state that `resume` returns. Call it before each checkpoint.

    Keeps the state of the previous checkpoint, in case the next is not written.
    """
    self._states.pop(str(at), None)
    self._states = {**dict(list(self._states.items())[-1:]), str(at): state}
    text_files.write(os.path.join(self._folder, _STATE_FILE), json.dumps(self._states) + '\n')

  def _read_states(self) -> dict[str, Any]:
    path = os.path.join(self._folder, _STATE_FILE)
    text = text_files.read(path)
    try:
      return json.loads(text) if text else {}
    except ValueError as error:
      raise ValueError(
        f'{path} is damaged: {error}. Delete it to go on; the '
        'next row of metrics.jsonl then counts from here.'
      ) from error


def record_evaluation(folder: str, split: str, metrics: Mapping[str, Any]) -> None:
  """Adds the metrics of a checkpoint, with its step as 'global_step', to the rows in a folder.

  It is the folder of the training, or of a process that only evaluates it.
  """
  rows = History(folder)
  rows.resume(sys.maxsize)
  rest = {name: value for name, value in metrics.items() if name != 'global_step'}
  rows.add(split, step=metrics['global_step'], **rest)


def _line(row: Mapping[str, Any]) -> str:
  first = ('step', 'iteration', 'epoch', 'split')
  names = [*(name for name in first if name in row), *(name for name in row if name not in first)]
  return json.dumps({name: row[name] for name in names}) + '\n'


def _plain(value: Any) -> Any:
  """A value for JSON; numbers that are not finite become null."""
  if isinstance(value, np.ndarray):
    value = value[()]  # From an array without dimensions to its number.
  if isinstance(value, np.floating) and value.dtype != np.float64:
    # The fewest digits that identify the number in its own type.
    value = float(str(value))
  elif isinstance(value, (np.generic, np.ndarray)):
    value = value.tolist()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value

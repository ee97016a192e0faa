"""Keeps the masks of a training run over time in a plain `.npz` file.

The file loads without pickle and without this module. It holds

    iterations      int64 [n_records], when each record was taken
    <layer>/mask    uint8 [n_records, ceil(n_weights / 8)], bits of the masks
    <layer>/shape   int64 [n_dimensions], shape of one mask
    version         int64 [], 1

and the masks of a layer are

    np.unpackbits(file["layer1/mask"], axis=1, count=n_weights)

with `n_weights` the product of `layer1/shape`. Bits rather than bytes, because
a long run has thousands of records.
"""

from __future__ import annotations

import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np

_VERSION = 1
_MASK = '/mask'
_SHAPE = '/shape'


class MaskRecords:
  """Masks of some layers at several iterations of training.

  Example:

      records = MaskRecords()
      records.append(0, {"layer1": mask})
      records.save("masks.npz")
      MaskRecords.load("masks.npz").mask("layer1", 0)
  """

  def __init__(self) -> None:
    self._iterations: list[int] = []
    self._shapes: dict[str, tuple[int, ...]] = {}
    self._bits: dict[str, list[np.ndarray]] = {}

  def __len__(self) -> int:
    return len(self._iterations)

  @property
  def iterations(self) -> np.ndarray:
    """The iterations of the records, int64 [n_records], ascending."""
    return np.array(self._iterations, np.int64)

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """The mask shape of each layer, by its name."""
    return dict(self._shapes)

  def append(self, iteration: int, masks: Mapping[str, np.ndarray]) -> None:
    """Adds a record.

    Args:
      iteration: Iteration of training, later than that of the last record.
      masks: Layer name -> 0/1 array. Names and shapes are those of the first
        record.

    Raises:
      ValueError: If the iteration or the masks do not fit the earlier records,
        or an array holds something else than 0 and 1.
    """
    if self._iterations and iteration <= self._iterations[-1]:
      raise ValueError(
        f'Expected an iteration after {self._iterations[-1]}, found'
        f' {iteration}.'
      )
    masks = {name: np.asarray(mask) for name, mask in masks.items()}
    shapes = {name: mask.shape for name, mask in masks.items()}
    if not shapes:
      raise ValueError('Expected the mask of at least one layer, found none.')
    if self._shapes and shapes != self._shapes:
      raise ValueError(
        f'Expected masks of the shapes {self._shapes}, found {shapes}.'
      )
    for name, mask in masks.items():
      if not np.isin(mask, (0, 1)).all():
        raise ValueError(f'The mask of {name} holds more than 0 and 1.')
    self._shapes = shapes
    self._iterations.append(int(iteration))
    for name, mask in masks.items():
      bits = np.packbits(mask.reshape(-1).astype(bool))
      self._bits.setdefault(name, []).append(bits)

  def mask(self, name: str, index: int) -> np.ndarray:
    """Returns the mask of a layer in one record.

    Args:
      name: Name of the layer.
      index: Number of the record, from 0; from the end if negative.

    Returns:
      uint8 array of the layer's shape.

    Raises:
      ValueError: If there are no records of such a layer.
    """
    if name not in self._shapes:
      raise ValueError(
        f"No records of a layer named {name}; there are records of"
        f" {', '.join(self._shapes) or 'no layer'}."
      )
    shape = self._shapes[name]
    bits = self._bits[name][index]
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape)

  def drop_after(self, iteration: int) -> None:
    """Removes the records later than `iteration`.

    A run that goes on from a checkpoint repeats the iterations after it, and
    would record them a second time.

    Args:
      iteration: the last to keep.
    """
    n_kept = int(np.searchsorted(self.iterations, iteration, side='right'))
    del self._iterations[n_kept:]
    for bits in self._bits.values():
      del bits[n_kept:]

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes all records, leaving no half-written file if interrupted.

    Args:
      path: File to write; an earlier one is replaced.
    """
    arrays = {
      'version': np.array(_VERSION, np.int64),
      'iterations': self.iterations,
    }
    for name, shape in self._shapes.items():
      n_bytes = -(-math.prod(shape) // 8)
      bits = np.array(self._bits[name], np.uint8).reshape(len(self), n_bytes)
      arrays[name + _MASK] = bits
      arrays[name + _SHAPE] = np.array(shape, np.int64)
    path = pathlib.Path(path)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
      with temporary.open('wb') as file:
        np.savez_compressed(file, **arrays)
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> MaskRecords:
    """Reads the records that `save` wrote.

    Args:
      path: The file.

    Returns:
      The records.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If the file is damaged, or is not a file of mask records.
    """
    arrays = _read_npz(path)
    records = cls()
    try:
      records._fill(arrays)
    except ValueError as error:
      message = f'{path}: not a file of mask records: {error}'
      raise ValueError(message) from error
    return records

  def _fill(self, arrays: dict[str, np.ndarray]) -> None:
    """Takes over the arrays of a file, or raises ValueError."""
    for key in ('version', 'iterations'):
      if key not in arrays:
        raise ValueError(f'expected an array named {key}, found none.')
    if arrays['version'].tolist() != _VERSION:
      raise ValueError(
        f"expected version {_VERSION}, found {arrays['version']}."
      )
    iterations = arrays['iterations']
    if not _is_integer_list(iterations) or (np.diff(iterations) <= 0).any():
      raise ValueError('expected a list of ascending iterations.')
    self._iterations = iterations.tolist()
    for key in (key for key in arrays if key.endswith(_MASK)):
      name = key[: -len(_MASK)]
      if name + _SHAPE not in arrays:
        raise ValueError(f'expected {name + _SHAPE} beside {key}, found none.')
      if not _is_integer_list(arrays[name + _SHAPE]):
        raise ValueError(f'expected {name + _SHAPE} to be a list of sizes.')
      shape = tuple(arrays[name + _SHAPE].tolist())
      expected = (len(iterations), -(-math.prod(shape) // 8))
      if arrays[key].shape != expected or arrays[key].dtype != np.uint8:
        raise ValueError(
          f'expected {key} to be uint8 of shape {expected}, found'
          f' {arrays[key].dtype} of shape {arrays[key].shape}.'
        )
      self._shapes[name] = shape
      self._bits[name] = list(arrays[key])


def resume_mask_records(
  path: str | os.PathLike[str], iteration: int
) -> MaskRecords:
  """Returns the records to which a run adds that goes on at `iteration`.

  Args:
    path: File of the records; there is none yet at the start of a run.
    iteration: Iteration of the checkpoint that the run goes on from. Later
      records are dropped.

  Returns:
    The records up to `iteration`.

  Raises:
    ValueError: If the file is damaged, or is not a file of mask records.
  """
  if not pathlib.Path(path).exists():
    return MaskRecords()
  records = MaskRecords.load(path)
  records.drop_after(iteration)
  return records


def _is_integer_list(array: np.ndarray) -> bool:
  """Tells whether an array is one-dimensional and holds integers."""
  return array.ndim == 1 and np.issubdtype(array.dtype, np.integer)


def _read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads all arrays of an `.npz` file."""
  with open(path, 'rb') as file:
    is_zip = zipfile.is_zipfile(file)
  if not is_zip:
    raise ValueError(
      f'{path}: expected mask records in .npz format, found a file that is'
      ' truncated or of another format.'
    )
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return {key: arrays[key] for key in arrays.files}
  except (
    EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error
  ) as error:
    raise ValueError(
      f'{path}: expected mask records in .npz format, found a damaged or'
      f' foreign file ({error}).'
    ) from error

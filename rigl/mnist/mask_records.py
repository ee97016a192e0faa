"""Stores the masks of a training run over time in a plain `.npz` file.

The file loads without pickle and without this module. It holds

    iterations      int64 [n_records], the iteration of each record
    <layer>/mask    uint8 [n_records, ceil(n_weights / 8)], bits of the masks
    <layer>/shape   int64 [n_dimensions], shape of one mask
    kept_pixels     bool [n_pixels], the input mask of the run, if it had one
    version         int64 [], 1

and the masks of a layer are

    np.unpackbits(file['layer1/mask'], axis=1, count=n_weights)

with `n_weights` the product of `layer1/shape`. Masks are stored as bits,
because a long run has thousands of records.
"""

from __future__ import annotations

import io
import math
import os
import pathlib
import zipfile
import zlib
from typing import Any, Mapping, Optional, Union

import numpy as np

from rigl import files
from rigl.core import layer_names

_VERSION = 1
_SHAPE = '/shape'
_KEPT_PIXELS = 'kept_pixels'

_Path = Union[str, 'os.PathLike[str]']


class MaskRecords:
  """Masks of some layers at several iterations of training.

  Example:
      records = MaskRecords()
      records.append(0, {'layer1': mask})
      records.save('masks.npz')
      MaskRecords.load('masks.npz').mask('layer1', 0)

  Attributes:
    kept_pixels: bool [n_pixels], the pixels of the rows of the first layer;
      None for all.
  """

  def __init__(self, kept_pixels: Optional[np.ndarray] = None) -> None:
    self.kept_pixels = kept_pixels
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
    """Adds a record of masks, {layer: 0/1 array}, names and shapes those of the first one.

    Raises:
      ValueError: the iteration is not later than that of the last record, the masks
        do not fit the earlier ones, or an array has values other than 0 and 1.
    """
    if self._iterations and iteration <= self._iterations[-1]:
      raise ValueError(f'Expected an iteration after {self._iterations[-1]}, found {iteration}.')
    masks = {name: np.asarray(mask) for name, mask in masks.items()}
    shapes = {name: mask.shape for name, mask in masks.items()}
    if not shapes:
      raise ValueError('Expected the mask of at least one layer, found none.')
    if self._shapes and shapes != self._shapes:
      raise ValueError(f'Expected masks of the shapes {self._shapes}, found {shapes}.')
    self._check_rows(shapes)
    for name, mask in masks.items():
      if not np.isin(mask, (0, 1)).all():
        raise ValueError(f'The mask of {name} holds more than 0 and 1.')
    self._shapes = shapes
    self._iterations.append(int(iteration))
    for name, mask in masks.items():
      bits = np.packbits(mask.reshape(-1).astype(bool))
      self._bits.setdefault(name, []).append(bits)

  def mask(self, name: str, index: int) -> np.ndarray:
    """The mask of a layer in one record, uint8 of the layer's shape.

    A negative index counts from the end.

    Raises:
      ValueError: there are no records of this layer.
    """
    if name not in self._shapes:
      raise ValueError(
        f'No records of a layer named {name}; there are records '
        f'of {", ".join(self._shapes) or "no layer"}.'
      )
    shape = self._shapes[name]
    bits = self._bits[name][index]
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape)

  def drop_after(self, iteration: int) -> None:
    """Removes the records later than `iteration`.

    A run that resumes from a checkpoint repeats the iterations after it and
    would record them twice.
    """
    n_kept = int(np.searchsorted(self.iterations, iteration, side='right'))
    del self._iterations[n_kept:]
    for bits in self._bits.values():
      del bits[n_kept:]

  def save(self, path: _Path) -> None:
    """Writes all records; an interruption leaves the former file, or none."""
    arrays: dict[str, Any] = {
      'version': np.array(_VERSION, np.int64),
      'iterations': self.iterations,
    }
    if self.kept_pixels is not None:
      arrays[_KEPT_PIXELS] = np.asarray(self.kept_pixels, bool)
    for name, shape in self._shapes.items():
      n_bytes = -(-math.prod(shape) // 8)
      bits = np.array(self._bits[name], np.uint8).reshape(len(self), n_bytes)
      arrays[layer_names.mask_of(name)] = bits
      arrays[name + _SHAPE] = np.array(shape, np.int64)
    # If numpy wrote the file itself, a full disk would also print a traceback.
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    with files.replaced(os.fspath(path)) as temporary:
      pathlib.Path(temporary).write_bytes(content.getvalue())

  @classmethod
  def load(cls, path: _Path) -> MaskRecords:
    """The records that `save` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged or does not hold mask records.
    """
    arrays = _read_npz(path)
    records = cls()
    try:
      records._fill(arrays)
    except ValueError as error:
      raise ValueError(f'{path}: not a file of mask records: {error}') from error
    return records

  def _fill(self, arrays: dict[str, np.ndarray]) -> None:
    """Uses the arrays of a file, or raises ValueError."""
    for key in ('version', 'iterations'):
      if key not in arrays:
        raise ValueError(f'expected an array named {key}, found none.')
    if arrays['version'].tolist() != _VERSION:
      raise ValueError(f'expected version {_VERSION}, found {arrays["version"]}.')
    iterations = arrays['iterations']
    if not _is_integer_list(iterations) or (np.diff(iterations) <= 0).any():
      raise ValueError('expected a list of ascending iterations.')
    self._iterations = iterations.tolist()
    kept = self.kept_pixels = arrays.get(_KEPT_PIXELS)
    if kept is not None and (kept.ndim != 1 or kept.dtype != bool):
      raise ValueError(
        f'expected {_KEPT_PIXELS} to be a list of bool, found {kept.dtype} of shape {kept.shape}.'
      )
    for key in arrays:
      name = layer_names.layer_of_mask(key)
      if name is None:
        continue
      if name + _SHAPE not in arrays:
        raise ValueError(f'expected {name + _SHAPE} beside {key}, found none.')
      if not _is_integer_list(arrays[name + _SHAPE]):
        raise ValueError(f'expected {name + _SHAPE} to be a list of sizes.')
      shape = tuple(arrays[name + _SHAPE].tolist())
      expected = (len(iterations), -(-math.prod(shape) // 8))
      if arrays[key].shape != expected or arrays[key].dtype != np.uint8:
        raise ValueError(
          f'expected {key} to be uint8 of shape {expected}, found '
          f'{arrays[key].dtype} of shape {arrays[key].shape}.'
        )
      self._shapes[name] = shape
      self._bits[name] = list(arrays[key])
    self._check_rows(self._shapes)

  def _check_rows(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless the first layer has one row per kept pixel."""
    if self.kept_pixels is None or not shapes:
      return
    n_kept = np.count_nonzero(self.kept_pixels)
    name, shape = next(iter(shapes.items()))
    if shape[:1] != (n_kept,):
      raise ValueError(
        f'expected {name} to have {n_kept} rows, one for each '
        f'of {_KEPT_PIXELS}, found the shape {shape}.'
      )


def resume_mask_records(
  path: _Path, iteration: int, kept_pixels: Optional[np.ndarray] = None
) -> MaskRecords:
  """The records of a run that resumes at `iteration`; later ones are dropped.

  The file may not exist yet. `kept_pixels` are those of MaskRecords.

  Raises:
    ValueError: the file is damaged or does not hold mask records.
  """
  if not pathlib.Path(path).exists():
    return MaskRecords(kept_pixels)
  records = MaskRecords.load(path)
  # Files of earlier versions lack kept_pixels.
  records.kept_pixels = kept_pixels
  records.drop_after(iteration)
  return records


def _is_integer_list(array: np.ndarray) -> bool:
  """Whether an array is one-dimensional and holds integers."""
  return array.ndim == 1 and np.issubdtype(array.dtype, np.integer)


def _read_npz(path: _Path) -> dict[str, np.ndarray]:
  """All arrays of an `.npz` file."""
  with open(path, 'rb') as file:
    is_zip = zipfile.is_zipfile(file)
  if not is_zip:
    raise ValueError(
      f'{path}: expected mask records in .npz format, found a file that is '
      'truncated or of another format.'
    )
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return {key: arrays[key] for key in arrays.files}
  except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
    raise ValueError(
      f'{path}: expected mask records in .npz format, found a damaged or foreign file ({error}).'
    ) from error

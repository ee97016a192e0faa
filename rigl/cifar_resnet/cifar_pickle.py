"""Unpickles the batches of CIFAR-10's python version, and nothing else.

Unpickling calls the functions that a pickle names. Here the few names needed
for integer arrays stand for functions of this module, and all others are
refused. Numpy's own functions would not be safe: they take sizes and flags from
the file, and a dtype can make numpy treat bytes as addresses of objects.
"""

from __future__ import annotations

import codecs
import io
import pickle
import pickletools
from typing import Any

import numpy as np

from rigl.core import messages


def _dtype(kind: Any, *_: Any) -> np.dtype:
  """A built-in integer dtype of numpy, which a pickle cannot change."""
  dtype = np.dtype(kind)
  if dtype.kind not in 'iu':
    raise pickle.UnpicklingError(f'it holds an array of {dtype}.')
  return np.dtype(dtype.type)


def _reconstruct(*_: Any) -> np.ndarray:
  """An empty array, which the pickle fills later."""
  return np.empty(0, np.uint8)


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
  # A copy, because a pickle may overwrite the bytes later.
  flat = np.frombuffer(bytes(memoryview(content)), dtype)
  return flat.reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
  return _from_buffer(content, dtype, (), 'C')[()]


_STAND_INS = {
  '_codecs.encode': codecs.encode,
  'numpy.dtype': _dtype,
  'numpy.ndarray': None,  # Only an argument of _reconstruct.
  # Numpy 2 renamed core to _core.
  **{
    f'numpy.{core}.{name}': stand_in
    for core in ('core', '_core')
    for name, stand_in in (
      ('multiarray._reconstruct', _reconstruct),
      ('multiarray.scalar', _scalar),
      ('numeric._frombuffer', _from_buffer),
    )
  },
}


class _Unpickler(pickle.Unpickler):
  """Resolves only the names in _STAND_INS."""

  def find_class(self, module_name: str, global_name: str) -> Any:
    """The replacement for a name."""
    name = f'{module_name}.{global_name}'
    if name not in _STAND_INS:
      raise pickle.UnpicklingError(
        f'it names {name[:200]}, which a CIFAR-10 batch does not need; the '
        'file may be malicious. Nothing of it was run.'
      )
    return _STAND_INS[name]


def read_dict(content: bytes, source: str) -> dict[str, Any]:
  """Reads a pickled dict of bytes, text, numbers, lists and integer arrays.

  Args:
    content: the file, written by Python 3 or, like the originals, Python 2.
    source: name of the file, for error messages.

  Returns:
    The dict, with keys as text. Strings written by Python 2 are bytes.

  Raises:
    ValueError: the pickle is truncated, damaged, or holds anything else.
  """
  try:
    for opcode, argument, _ in pickletools.genops(content):
      # The unpickler allocates memory for all indices up to this one.
      if opcode.name.endswith('PUT') and (argument or 0) > len(content):
        raise ValueError(f'it has no object number {argument}.')
    batch = _Unpickler(io.BytesIO(content), encoding='bytes').load()
    if not isinstance(batch, dict):
      raise ValueError(f'it holds a {type(batch).__name__}.')
  # A damaged pickle can raise any error.
  except Exception as error:
    raise ValueError(
      f'{source}: expected a complete pickle of a CIFAR-10 batch, found '
      f'{len(content)} bytes that are refused: {messages.reason(error)}'
    ) from error
  return {
    key.decode('latin1') if isinstance(key, bytes) else str(key): value
    for key, value in batch.items()
  }

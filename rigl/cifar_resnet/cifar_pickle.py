"""Unpickles the batches of CIFAR-10's python version, and nothing else.

Unpickling calls what a pickle names. Here the few names that arrays of whole
numbers are made of mean functions of this module, and all others are refused.
Numpy's own functions would be too many: they take sizes and flags from the
file, and a dtype can be told to take bytes for the addresses of objects.
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
  """One of numpy's own integer types, which no pickle can change."""
  dtype = np.dtype(kind)
  if dtype.kind not in 'iu':
    raise pickle.UnpicklingError(f'it holds an array of {dtype}.')
  return np.dtype(dtype.type)


def _reconstruct(*_: Any) -> np.ndarray:
  """An array that is still to be filled."""
  return np.empty(0, np.uint8)


def _from_buffer(content: Any, dtype: Any, shape: Any,
                 order: Any) -> np.ndarray:
  # A copy: what a pickle fills anew may be in use elsewhere.
  flat = np.frombuffer(bytes(memoryview(content)), dtype)
  return flat.reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
  return _from_buffer(content, dtype, (), 'C')[()]


_STAND_INS = {
    '_codecs.encode': codecs.encode,
    'numpy.dtype': _dtype,
    'numpy.ndarray': None,  # Only handed to _reconstruct.
    # Numpy 2 has put an underscore before the name.
    **{f'numpy.{core}.{name}': stand_in for core in ('core', '_core')
       for name, stand_in in (('multiarray._reconstruct', _reconstruct),
                              ('multiarray.scalar', _scalar),
                              ('numeric._frombuffer', _from_buffer))},
}


class _Unpickler(pickle.Unpickler):
  """Knows _STAND_INS only."""

  def find_class(self, module_name: str, global_name: str) -> Any:
    """What stands for a name."""
    name = f'{module_name}.{global_name}'
    if name not in _STAND_INS:
      raise pickle.UnpicklingError(
          f'it names {name[:200]}, which a CIFAR-10 batch does not need; the '
          'file may be malicious. Nothing of it was run.')
    return _STAND_INS[name]


def read_dict(content: bytes, source: str) -> dict[str, Any]:
  """Reads a pickled dict of bytes, text, numbers, lists and integer arrays.

  Args:
    content: the whole file, written by Python 2, as the original ones, or 3.
    source: its name, for error messages.

  Returns:
    The dict, its keys as text. Strings that Python 2 has written are bytes.

  Raises:
    ValueError: the pickle is truncated, damaged, or holds anything else.
  """
  try:
    for opcode, argument, _ in pickletools.genops(content):
      # The unpickler makes room for all numbers up to this one.
      if opcode.name.endswith('PUT') and (argument or 0) > len(content):
        raise ValueError(f'it has no object number {argument}.')
    batch = _Unpickler(io.BytesIO(content), encoding='bytes').load()
    if not isinstance(batch, dict):
      raise ValueError(f'it holds a {type(batch).__name__}.')
  # No list of errors is promised for what is damaged.
  except Exception as error:
    raise ValueError(
        f'{source}: expected a complete pickle of a CIFAR-10 batch, found '
        f'{len(content)} bytes that are refused: {messages.reason(error)}'
        ) from error
  return {key.decode('latin1') if isinstance(key, bytes) else str(key): value
          for key, value in batch.items()}

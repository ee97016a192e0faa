"""The packages of the extra `inference`, loaded at first use.

Raises ValueError if one is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any


def _load(module: str, package: str, what: str) -> Any:
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ValueError(
      f'{what} needs the package {package}, which is not installed. '
      f'Install it with pip install {package}.'
    ) from error


def litert_schema() -> Any:
  """The classes of the .tflite format."""
  return _load('ai_edge_litert.schema_py_generated', 'ai-edge-litert', 'Reading .tflite files')


def litert() -> Any:
  """The module of LiteRT's interpreter."""
  return _load('ai_edge_litert.interpreter', 'ai-edge-litert', 'Running .tflite files')


def has_numba() -> bool:
  """Whether the engine of this library can run."""
  return importlib.util.find_spec('numba') is not None


def numba() -> Any:
  """The compiler of the engine of this library."""
  return _load('numba', 'numba', "engine='rigl'")

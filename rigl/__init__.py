"""Sparse training of neural networks with RigL and related methods.

Importing this package does not import TensorFlow; the sub-packages do when they
need it. The method is described in "Rigging the Lottery: Making All Tickets
Winners", https://arxiv.org/abs/1911.11134.
"""

from typing import Any

__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
  # It imports Keras and a backend, which take seconds to load.
  if name == 'keras':
    import rigl.keras
    return rigl.keras
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

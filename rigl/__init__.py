"""Sparse training of neural networks with RigL and related methods.

Importing this package does not import TensorFlow; the sub-packages do when they
need it. The method is described in "Rigging the Lottery: Making All Tickets
Winners", https://arxiv.org/abs/1911.11134.
"""

import importlib
from typing import Any

__version__ = '0.1.0'


# They take seconds to load, or what they import does.
_LOADED_AT_FIRST_USE = (
    'checkpoints', 'cifar_resnet', 'imagenet_resnet', 'keras', 'mnist')


def __getattr__(name: str) -> Any:
  if name in _LOADED_AT_FIRST_USE:
    return importlib.import_module(f'rigl.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

"""Sparse training of neural networks with RigL and related methods.

Importing this package does not import TensorFlow; the sub-packages do when they
need it. The method is described in "Rigging the Lottery: Making All Tickets
Winners", https://arxiv.org/abs/1911.11134.
"""

import importlib
from typing import Any

__version__ = '0.2.0'


# Loaded at first use: they take seconds to load, or what they import does.
__all__ = [
  'checkpoints',
  'cifar_resnet',
  'imagenet_resnet',
  'inference',
  'keras',
  'micronet',
  'mnist',
  'model_pruning',
  'sparse_optimizers',
  'sparse_utils',
]


def __getattr__(name: str) -> Any:
  if name in __all__:
    return importlib.import_module(f'rigl.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})

"""Sparse training of any Keras 3 model, by optimizers that wrap another one.

    optimizer = rigl.keras.RigL(
        keras.optimizers.SGD(0.1, momentum=0.9), sparsity=0.9, end_step=25_000)
    model.compile(optimizer, loss)

See docs/keras.md.
"""

from rigl.keras.layers import layer_sparsities
from rigl.keras.logger import SparsityLogger
from rigl.keras.optimizers import DNW, SET, SNFS, SNIP, GradualPruning, RigL, Scratch, Static
from rigl.keras.reports import sparsity_of, summary
from rigl.keras.sparse_optimizer import SparseOptimizer

__all__ = [
  'DNW',
  'SET',
  'SNFS',
  'SNIP',
  'GradualPruning',
  'RigL',
  'Scratch',
  'SparseOptimizer',
  'SparsityLogger',
  'Static',
  'layer_sparsities',
  'sparsity_of',
  'summary',
]

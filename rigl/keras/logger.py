"""Logs statistics of sparse training after each epoch."""

from __future__ import annotations

from typing import Any, Optional

import keras
import numpy as np

from rigl.core import connections
from rigl.keras.sparse_optimizer import SparseOptimizer


def sparse_optimizers(model: Any) -> list[SparseOptimizer]:
  """The sparse optimizers that a model is compiled with.

  Also those in a LossScaleOptimizer or MultiOptimizer.
  """
  return _sparse_in(getattr(model, 'optimizer', None))


def _sparse_in(optimizer: Any) -> list[SparseOptimizer]:
  if isinstance(optimizer, SparseOptimizer):
    return [optimizer]
  inner = [getattr(optimizer, 'inner_optimizer', None), *getattr(optimizer, 'optimizers', ())]
  return [found for one in inner if one is not None for found in _sparse_in(one)]


class SparsityLogger(keras.callbacks.Callback):
  """Adds statistics of the sparse kernels to the logs of each epoch.

  History and the progress bar show them, and so do CSVLogger, TensorBoard and
  other callbacks that come after this one in the list.

  * sparsity: share of inactive connections in all sparse kernels together.
  * drop_fraction: share of the active connections that a mask update would drop
    now; 0 for methods without. With several optimizers, the largest.
  * moved: share of the active connections that were inactive at the end of the
    last epoch; in the first epoch, at its start, or after its first batch if
    the optimizer is built only then.
  """

  def __init__(self):
    super().__init__()
    self._moves: Optional[connections.Moves] = None

  def on_train_begin(self, logs: Any = None) -> None:
    """Finds the sparse optimizers."""
    self._moves = None
    # A MultiOptimizer may choose its optimizers when it is built.
    if not hasattr(self.model.optimizer, 'optimizers'):
      self._found()

  def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
    """Remembers the initial masks."""
    # Not in on_train_begin, where BackupAndRestore changes the masks.
    self._look()

  def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
    """Remembers the first masks, if none existed at the start of the epoch."""
    self._look()

  def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
    """Adds the statistics to the logs."""
    optimizers = self._found()
    masks = self._masks()
    moved = (self._moves or connections.Moves()).look(masks)
    if logs is not None:
      logs['sparsity'] = connections.sparsity(masks)
      logs['drop_fraction'] = max(map(_drop_fraction, optimizers))
      logs['moved'] = moved

  def _found(self) -> list[SparseOptimizer]:
    """The sparse optimizers of the model.

    Raises:
      ValueError: there is none.
    """
    # On JAX, Keras updates the variables when a callback reads `self.model`.
    model = self.model
    if found := sparse_optimizers(model):
      return found
    kind = type(model.optimizer).__name__
    raise ValueError(
      f'SparsityLogger needs a model that is compiled with a sparse optimizer, got {kind}. Wrap '
      'the optimizer, as in rigl.keras.RigL(optimizer), or leave the callback out.'
    )

  def _look(self) -> None:
    """Remembers the masks as soon as there are any."""
    if self._moves is None and (masks := self._masks()):
      self._moves = connections.Moves()
      self._moves.look(masks)

  def _masks(self) -> dict[tuple[int, str], np.ndarray]:
    """{(number of the optimizer, path): mask}."""
    return {
      (i, path): mask
      for i, optimizer in enumerate(sparse_optimizers(self.model))
      for path, mask in optimizer.get_masks().items()
    }


def _drop_fraction(optimizer: SparseOptimizer) -> float:
  """The share of active connections that a mask update would drop now."""
  method = optimizer.method
  if not hasattr(method, 'drop_fraction_at'):
    return 0.0
  step = int(keras.ops.convert_to_numpy(optimizer.iterations))
  return float(method.drop_fraction_at(np.int64(method.seen_step(step))))

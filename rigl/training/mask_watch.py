"""Measures the masks of a training for its reports."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import numpy as np

from rigl.compat import tf
from rigl.core import connections
from rigl.training import iterations, summaries


class MaskWatch:
  """Fetches the masks after each update, so that no connection is missed.

  A hook calls `begin` and `after_run` in its methods of the same names, and
  `start` once there is a session. Between updates it fetches no masks.

  Attributes:
    masks: {layer: mask variable}.
    updates: tensors to fetch with each iteration, for `after_run`.
    pictures: {tag: tensor}, images of masks for TensorBoard.
  """

  def __init__(self, masks: Sequence[tf.Variable], all_pictures: bool = False):
    """Watches `masks`; TensorBoard shows pictures of all or only of the first."""
    self.masks = summaries.layers_of(masks)
    self.updates: list[tf.Tensor] = []
    self.pictures: dict[str, tf.Tensor] = {}
    self._all_pictures = all_pictures
    self._moves = connections.Moves()
    self._explored = connections.Explored()
    # The initial masks, until a step has used them.
    self._first: Optional[Mapping[str, np.ndarray]] = None
    self._seen: Any = None

  def begin(self) -> None:
    """Adds ops to the graph."""
    if self.masks:
      self.updates = iterations.updates()
    shown = list(self.masks.items())[: None if self._all_pictures else 1]
    self.pictures = {
      f'mask/{layer}': tf.summary.image(f'mask/{layer}', summaries.picture_of(mask), collections=[])
      for layer, mask in shown
    }

  def start(self, session: tf.Session, is_first: bool, state: Optional[Mapping[str, Any]]) -> None:
    """Resumes from a checkpoint, the first one if the training has no iteration yet.

    `state` is the result of `state` at the checkpoint. Without it, connections
    that were active only before count as never active.
    """
    state = state or {}
    self._seen = None
    masks = session.run(self.masks)
    if 'masks' in state:
      self._moves.restore(state['masks'])
    else:
      self._moves.look(masks)
    self._explored.restore(state.get('ever', {}))
    if not is_first and not self._explored:
      self._explored.add(masks)
    # RigL may update the initial masks, and SNIP sets them, before a step has
    # used them: then they do not count.
    self._first = masks if is_first else None

  def after_run(self, session: tf.Session, updates: Sequence[Any], is_step: bool) -> None:
    """Fetches the masks if they may have changed.

    Args:
      session: the session, after an iteration.
      updates: the fetched values of `self.updates`.
      is_step: whether the iteration made a step, with the masks before it.
    """
    if self._first is not None and is_step:
      self._explored.add(self._first)
    self._first = None
    if updates != self._seen:
      self._seen = updates
      self._explored.add(session.run(self.masks))

  def state(self) -> dict[str, Any]:
    """The state for `start`, to save with each checkpoint."""
    return {'masks': self._moves.state(), 'ever': self._explored.state()}

  def row(self, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The values for metrics.jsonl; the next `moved` counts from these masks, {layer: array}."""
    return {
      'sparsity': connections.sparsity(masks),
      'moved': self._moves.look(masks),
      'itop_rate': self._explored.rate,
      'dead_units': connections.dead_units(masks),
    }


def tags(row: Mapping[str, float], masks: Mapping[str, np.ndarray]) -> dict[str, float]:
  """{tag: value} for TensorBoard, of some masks and a row that includes their `MaskWatch.row`."""
  return {
    'global_sparsity': row['sparsity'],
    **{name: row[name] for name in ('moved', 'itop_rate', 'dead_units')},
    **{f'density/{layer}': connections.density({layer: mask}) for layer, mask in masks.items()},
  }

"""Follows the masks of a training and measures them for its reports."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import numpy as np

from rigl.compat import tf
from rigl.core import connections
from rigl.training import iterations, summaries


class MaskWatch:
  """Looks at the masks after each update, so that no connection is missed.

  A hook calls `begin` and `after_run` in its own methods of these names and
  `start` once there is a session. Between updates masks are not fetched.

  Attributes:
    masks: {layer: mask variable}.
    updates: to be fetched with each iteration, for `after_run`.
    pictures: {tag: tensor}, of the masks that TensorBoard shows; to be fetched
      where they are written.
  """

  def __init__(self, masks: Sequence[tf.Variable], all_pictures: bool = False):
    """Watches `masks`.

    Args:
      masks: mask variables.
      all_pictures: whether TensorBoard is to show all of them, not the first
        one alone.
    """
    self.masks = summaries.layers_of(masks)
    self.updates: list[tf.Tensor] = []
    self.pictures: dict[str, tf.Tensor] = {}
    self._all_pictures = all_pictures
    self._moves = connections.Moves()
    self._explored = connections.Explored()
    # Masks that the training starts with, until an iteration has used them.
    self._first: Optional[Mapping[str, np.ndarray]] = None
    self._seen: Any = None

  def begin(self) -> None:
    """Completes the graph."""
    if self.masks:
      self.updates = iterations.updates()
    shown = list(self.masks.items())[:None if self._all_pictures else 1]
    self.pictures = {
        f'mask/{layer}': tf.summary.image(
            f'mask/{layer}', summaries.picture_of(mask), collections=[])
        for layer, mask in shown}

  def start(self, session: tf.Session, is_first: bool,
            state: Optional[Mapping[str, Any]]) -> None:
    """Goes on from the checkpoint of a session.

    Args:
      session: the session.
      is_first: whether there was no iteration yet.
      state: what `state` returned before the checkpoint. Without it
        connections count from here: those that were active only before are
        taken for never active.
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
    # RigL may move the first masks, and SNIP sets them, before a step used
    # them: then they do not count.
    self._first = masks if is_first else None

  def after_run(self, session: tf.Session, updates: Sequence[Any],
                is_step: bool) -> None:
    """Looks at the masks if they may have changed.

    Args:
      session: the session, after an iteration.
      updates: the values of `self.updates` in it.
      is_step: whether it made a step, with the masks of before.
    """
    if self._first is not None and is_step:
      self._explored.add(self._first)
    self._first = None
    if updates != self._seen:
      self._seen = updates
      self._explored.add(session.run(self.masks))

  def state(self) -> dict[str, Any]:
    """What `start` needs, to be saved with a checkpoint."""
    return {'masks': self._moves.state(), 'ever': self._explored.state()}

  def row(self, masks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What metrics.jsonl tells of the masks, which `moved` counts as seen.

    Args:
      masks: {layer: 0/1 array}, as they are now.
    """
    return {'sparsity': connections.sparsity(masks),
            'moved': self._moves.look(masks),
            'itop_rate': self._explored.rate,
            'dead_units': connections.dead_units(masks)}


def tags(row: Mapping[str, float],
         masks: Mapping[str, np.ndarray]) -> dict[str, float]:
  """{tag: value} of what TensorBoard shows of the masks.

  Args:
    row: from `MaskWatch.row`, or one of metrics.jsonl that has it.
    masks: what it was made of.
  """
  return {'global_sparsity': row['sparsity'],
          **{name: row[name] for name in ('moved', 'itop_rate', 'dead_units')},
          **{f'density/{layer}': connections.density({layer: mask})
             for layer, mask in masks.items()}}

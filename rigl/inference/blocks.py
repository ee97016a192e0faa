"""Weights of a few channels at a time, sorted by what they share.

A kernel of `vectors.make_shared_tile` computes a block of channels together. It
loads an input once for all of them that have a weight for it, so the inputs are
sorted by the set of these channels. A set is a number whose bits are channels.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Blocks:
  """What the kernel reads.

  Attributes:
    values: weights; those of one input lie side by side.
    offsets: where the inputs lie, block by block and set by set.
    rows: int64 [blocks, 2 ** channels + 1], of each block where its values
      begin, where the offsets of set 1 begin, and where those of each set end.
    n_values: int64 [blocks], weights of each block.
  """
  values: np.ndarray
  offsets: np.ndarray
  rows: np.ndarray
  n_values: np.ndarray

  @classmethod
  def of(cls, weights: np.ndarray, offsets: np.ndarray, n_channels: int,
         own: np.ndarray | None = None) -> Blocks:
    """Sorts weights.

    Args:
      weights: [channels, inputs], of a number of channels that fills the
        blocks.
      offsets: [inputs], where they lie.
      n_channels: channels of a block.
      own: [channels], where an input of each channel lies that the others do
        not have, whose weight is 1; None if there is none.
    """
    blocks = weights.reshape(-1, n_channels, len(offsets)).transpose(0, 2, 1)
    places = np.tile(offsets, (len(blocks), 1))
    if own is not None:
      ones = np.tile(np.eye(n_channels), (len(blocks), 1, 1))
      blocks = np.concatenate([blocks, ones], 1)
      places = np.concatenate([places, own.reshape(-1, n_channels)], 1)
    sets = (blocks != 0) @ 2 ** np.arange(n_channels)
    order = np.argsort(sets, 1, kind='stable')
    sets = np.take_along_axis(sets, order, 1)
    blocks = np.take_along_axis(blocks, order[..., None], 1)
    places = np.take_along_axis(places, order, 1)
    counts = np.count_nonzero(
        sets[..., None] == np.arange(1, 2 ** n_channels), 1)
    n_values = np.count_nonzero(blocks, (1, 2))
    ends = np.cumsum(counts).reshape(counts.shape)
    rows = np.column_stack([
        np.cumsum(n_values) - n_values, ends[:, 0] - counts[:, 0], ends])
    return cls(blocks[blocks != 0], places[sets > 0], rows, n_values)

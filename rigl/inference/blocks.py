"""Weights of blocks of channels, sorted by the inputs that they share.

A kernel of `vectors.make_shared_tile` computes a block of channels together. It
loads an input once for all channels that have a weight for it, so the inputs
are sorted by the set of these channels. The bits of a number encode such a set.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Blocks:
  """The arrays that the kernel reads.

  Attributes:
    values: weights; those of the same input are consecutive.
    offsets: offsets of the inputs in the arena, by block and set.
    rows: int64 [blocks, 2 ** channels + 1], for each block the start of its
      values, the start of the offsets of set 1, and the end of each set.
    n_values: int64 [blocks], number of weights of each block.
  """

  values: np.ndarray
  offsets: np.ndarray
  rows: np.ndarray
  n_values: np.ndarray

  @classmethod
  def of(
    cls, weights: np.ndarray, offsets: np.ndarray, n_channels: int, own: np.ndarray | None = None
  ) -> Blocks:
    """Sorts weights.

    Args:
      weights: [channels, inputs]; the channels fill whole blocks.
      offsets: [inputs], offsets in the arena.
      n_channels: channels per block.
      own: [channels], offset of an input of weight 1 that only this channel
        has; None without such inputs.
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
    counts = np.count_nonzero(sets[..., None] == np.arange(1, 2**n_channels), 1)
    n_values = np.count_nonzero(blocks, (1, 2))
    ends = np.cumsum(counts).reshape(counts.shape)
    rows = np.column_stack([np.cumsum(n_values) - n_values, ends[:, 0] - counts[:, 0], ends])
    return cls(blocks[blocks != 0], places[sets > 0], rows, n_values)

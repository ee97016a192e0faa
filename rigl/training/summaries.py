"""Scalars that training writes for TensorBoard."""

from __future__ import annotations

from typing import Mapping, Optional

from rigl.compat import tf
from rigl.model_pruning import pruning


def mask_sparsities() -> dict[str, tf.Tensor]:
  """{'pruning/<mask name>/sparsity': scalar} of every mask."""
  return {
      f'pruning/{mask.op.name}/sparsity': tf.nn.zero_fraction(mask)
      for mask in pruning.get_masks()
  }


def add_scalars(scalars: Mapping[str, Optional[tf.Tensor]]) -> None:
  """Adds tf.summary.scalar for each tag whose tensor is not None."""
  with tf.name_scope(None):
    for tag, value in scalars.items():
      if value is not None:
        tf.summary.scalar(tag, value)

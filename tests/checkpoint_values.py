"""The values in checkpoints."""

from __future__ import annotations

import os

import numpy as np

from rigl.compat import tf
from rigl.core import distributions, methods


def of(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """{name: value} of all variables of a checkpoint.

  Args:
    path: its prefix, or the folder whose latest it is.
  """
  reader = tf.train.load_checkpoint(str(path))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_sparsities(values, method, sparsity, custom=None, pruned=None):
  """Every mask has the number of zeros of its method and ERK.

  Args:
    values: {name: value} of the variables of a training.
    method: of the training.
    sparsity: of the whole.
    custom: {layer: sparsity} of the layers with their own.
    pruned: what `prune` has come to in every layer, or None for less than
      `sparsity`.
  """
  masks = {name[: -len('/mask')]: value for name, value in values.items() if name.endswith('/mask')}
  row = methods.METHODS[method]
  assert masks or not row.uses_masks
  wanted = distributions.get_sparsities(
    {name: mask.shape for name, mask in masks.items()}, 'erdos_renyi_kernel', sparsity, custom or {}
  )
  for name, mask in masks.items():
    n_zeros = mask.size - np.count_nonzero(mask)
    if not row.uses_masks:
      assert (mask == 1).all(), name
    elif not row.prunes_gradually:
      assert n_zeros == distributions.get_n_zeros(mask.size, wanted[name]), name
    elif pruned is not None:
      # Rounded, not rounded down.
      assert abs(n_zeros - pruned * mask.size) <= 1, name
    else:
      assert n_zeros < sparsity * mask.size, name

"""Initial masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Optional, Sequence, Union

import numpy as np

from rigl.core import distributions, mask_math, methods, stateless_random
from rigl.keras.kernel_variables import Kernel

MASK_INITS = ('random', 'magnitude')


def first_mask(
  method: methods.Method,
  mask_init: Union[str, Mapping[str, Any]],
  kernel: Kernel,
  values: Optional[np.ndarray],
  seed: int,
) -> np.ndarray:
  """The mask of one kernel, bool [...].

  Weights that already have the wanted number of zeros keep all other weights,
  so that compiling a model again does not destroy it.

  Args:
    method: the method; some start from a dense network.
    mask_init: see SparseOptimizer.
    kernel: its path, its shape and the wanted share of zeros count.
    values: weights [...]; None if they have no values yet.
    seed: seed of a random mask.

  Raises:
    ValueError: the mask depends on weights that have no values yet, or the
      given masks lack this path or have another shape.
  """
  path, shape = kernel.path, tuple(kernel.variable.shape)
  size = math.prod(shape)
  n_zeros = distributions.get_n_zeros(size, kernel.sparsity)
  if not isinstance(mask_init, str):
    return _given_mask(mask_init, path, shape)
  is_sparse = values is not None and 0 < n_zeros <= np.sum(values == 0)
  if not method.inits_masks:
    # Pruned connections stay pruned.
    if values is None or not (is_sparse and method.prunes_gradually):
      return np.ones(shape, bool)
    return np.not_equal(values, 0)
  if mask_init == 'magnitude':
    if values is None:
      raise ValueError(
        f"mask_init 'magnitude' keeps the largest weights, but {path} has "
        'none yet. Build the model first: give it an Input, or call it on a batch.'
      )
    score = np.abs(values.astype('float32'))
  else:
    score = stateless_random.uniform(np.zeros(shape, 'float32'), (seed, 0))
    if is_sparse:
      score = score + (values != 0)
  return mask_math.top_k_mask(score, size - n_zeros)


def _given_mask(given: Mapping[str, Any], path: str, shape: Sequence[int]) -> np.ndarray:
  if path not in given:
    raise ValueError(f'mask_init has no mask for {path}, only for {", ".join(given)}.')
  mask = np.asarray(given[path])
  if mask.shape != tuple(shape):
    raise ValueError(
      f'mask_init of {path} has shape {mask.shape}, but the kernel has {tuple(shape)}.'
    )
  return mask != 0

"""The order of training examples, a function of seed and epoch alone."""

from __future__ import annotations

import numpy as np

from rigl.core import seeding


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
  """The order in which an epoch, counted from 0, visits n examples, a permutation of 0 ... n - 1.

  A resumed training thus finds its place without replaying earlier batches:
  iteration k takes batch `k % n_batches` of epoch `k // n_batches`.
  """
  digest = seeding.stable_seed(f'epoch/{epoch}', 'examples', seed)
  # RandomState, unlike Generator, promises the same stream in every release.
  return np.random.RandomState(digest).permutation(n)

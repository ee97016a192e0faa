"""Weights of blocks of channels are sorted by the sets that share an input."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.inference import blocks


def test_by_hand():
  """Two blocks of two channels: sets 1 = first, 2 = second, 3 = both."""
  weights = np.array([[1, 0, 3, 0], [0, 0, 4, 5], [0, 0, 0, 0], [7, 8, 0, 0]])
  packed = blocks.Blocks.of(weights, np.array([10, 20, 30, 40]), 2)
  # Block 0: set 1 reads 10, set 2 reads 40, set 3 reads 30 for 3 and 4. Block
  # 1: set 2 reads 10 and 20.
  assert packed.offsets.tolist() == [10, 40, 30, 10, 20]
  assert packed.values.tolist() == [1, 5, 3, 4, 7, 8]
  assert packed.rows.tolist() == [[0, 0, 1, 2, 3], [4, 3, 3, 5, 5]]
  assert packed.n_values.tolist() == [4, 2]


def _outputs(packed, arena, n_channels):
  """The computation of the kernel, one weight at a time."""
  outputs = np.zeros((len(packed.rows), n_channels))
  for block, row in enumerate(packed.rows):
    value = row[0]
    for chosen in range(1, 2**n_channels):
      for k in range(row[chosen], row[chosen + 1]):
        for channel in range(n_channels):
          if chosen >> channel & 1:
            outputs[block, channel] += packed.values[value] * arena[packed.offsets[k]]
            value += 1
  return outputs.ravel()


@pytest.mark.parametrize('n_channels', [1, 2, 3])
@pytest.mark.parametrize('density', [0.0, 0.2, 0.7, 1.0])
@pytest.mark.parametrize('has_own', [True, False])
def test_sums_are_those_of_the_matrix(n_channels, density, has_own):
  generator = np.random.default_rng(0)
  weights = generator.normal(size=(6, 11)) * (generator.random((6, 11)) < density)
  arena, places = generator.normal(size=50), generator.permutation(50)
  offsets, own = places[:11], places[11:17] if has_own else None
  packed = blocks.Blocks.of(weights, offsets, n_channels, own)
  wanted = weights @ arena[offsets] + (arena[own] if has_own else 0)
  np.testing.assert_allclose(_outputs(packed, arena, n_channels), wanted)

"""The order of examples."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np

from rigl.core import ordering

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_is_a_permutation_that_differs_by_seed_and_epoch():
  orders = [ordering.epoch_order(100, seed, epoch) for seed in range(3) for epoch in range(3)]
  for order in orders:
    assert sorted(order) == list(range(100))
  assert len({tuple(order) for order in orders}) == len(orders)


def test_does_not_disturb_or_follow_the_global_generator():
  np.random.seed(5)
  expected = np.random.rand()
  np.random.seed(5)
  first = ordering.epoch_order(50, 0, 0)
  assert np.random.rand() == expected
  np.testing.assert_array_equal(first, ordering.epoch_order(50, 0, 0))


def test_is_the_same_in_every_process():
  code = 'from rigl.core import ordering;print(ordering.epoch_order(12, 7, 3).tolist())'
  outputs = [
    subprocess.run(
      [sys.executable, '-c', code],
      env={'PYTHONHASHSEED': salt, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      check=True,
      text=True,
    ).stdout.strip()
    for salt in ('1', '2')
  ]
  # Literals, so that no release reorders the batches of existing runs.
  expected = '[0, 9, 5, 6, 8, 2, 11, 3, 7, 1, 10, 4]'
  assert outputs == [expected, expected]

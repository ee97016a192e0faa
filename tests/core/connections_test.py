"""Sparsity and moves of masks, by hand, and as they come back from a file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rigl.core import connections

FIRST = {'a': np.array([[1, 0, 1], [0, 1, 0]]), 'b': np.array([1, 0, 0, 1])}


def test_sparsity_is_that_of_all_masks_together():
  assert connections.sparsity(FIRST) == pytest.approx(5 / 10)
  assert connections.sparsity({'a': FIRST['a']}) == pytest.approx(3 / 6)
  assert connections.sparsity({}) == 0.


def moved(**rows):
  return {**FIRST, **{name: np.array(row) for name, row in rows.items()}}


@pytest.mark.parametrize('masks, share', [
    (FIRST, 0.),
    (moved(b=[0, 1, 0, 1]), 1 / 5),
    (moved(a=[[0, 1, 0], [1, 0, 1]], b=[0, 1, 1, 0]), 5 / 5),
    # Pruned, none is new; regrown, all that are not there yet.
    (moved(b=[0, 0, 0, 1]), 0.),
    (moved(b=[1, 1, 1, 1]), 2 / 7),
    (moved(a=[[0] * 3] * 2, b=[0] * 4), 0.)])
@pytest.mark.parametrize('is_restored', [False, True])
def test_share_of_connections_that_are_new(masks, share, is_restored):
  moves = connections.Moves()
  assert moves.look(FIRST) == 0.
  if is_restored:
    state = json.loads(json.dumps(moves.state()))
    moves = connections.Moves()
    moves.restore(state)
  assert moves.look(masks) == pytest.approx(share)
  assert moves.look(masks) == 0.


def test_no_masks():
  moves = connections.Moves()
  assert moves.look({}) == moves.look({}) == 0.
  assert moves.state() == {}

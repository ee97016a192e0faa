"""Statistics of masks, by hand, and after saving and restoring."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rigl.core import connections

FIRST = {'a': np.array([[1, 0, 1], [0, 1, 0]]), 'b': np.array([1, 0, 0, 1])}


def test_sparsity_is_that_of_all_masks_together():
  assert connections.sparsity(FIRST) == pytest.approx(5 / 10)
  assert connections.sparsity({'a': FIRST['a']}) == pytest.approx(3 / 6)
  assert connections.sparsity({}) == 0.0


def moved(**rows):
  return {**FIRST, **{name: np.array(row) for name, row in rows.items()}}


@pytest.mark.parametrize(
  'masks, share',
  [
    (FIRST, 0.0),
    (moved(b=[0, 1, 0, 1]), 1 / 5),
    (moved(a=[[0, 1, 0], [1, 0, 1]], b=[0, 1, 1, 0]), 5 / 5),
    # After pruning none is new; after regrowing, all grown ones.
    (moved(b=[0, 0, 0, 1]), 0.0),
    (moved(b=[1, 1, 1, 1]), 2 / 7),
    (moved(a=[[0] * 3] * 2, b=[0] * 4), 0.0),
  ],
)
@pytest.mark.parametrize('is_restored', [False, True])
def test_share_of_connections_that_are_new(masks, share, is_restored):
  moves = connections.Moves()
  assert moves.look(FIRST) == 0.0
  if is_restored:
    state = json.loads(json.dumps(moves.state()))
    moves = connections.Moves()
    moves.restore(state)
  assert moves.look(masks) == pytest.approx(share)
  assert moves.look(masks) == 0.0


def test_no_masks():
  moves = connections.Moves()
  assert moves.look({}) == moves.look({}) == 0.0
  assert moves.state() == {}


def test_density_is_what_sparsity_leaves():
  assert connections.density(FIRST) == pytest.approx(5 / 10)
  assert connections.density({}) == 1.0


@pytest.mark.parametrize(
  'masks, n_dead',
  [
    ({}, 0),
    # Rows are inputs: the second one without connections is no dead unit.
    ({'a': [[1, 0, 1], [0, 0, 0]]}, 1),
    ({'a': [[0, 0], [0, 0]], 'b': [[0, 1, 0]]}, 2 + 2),
    ({'a': [[1, 1], [0, 1]]}, 0),
  ],
)
def test_dead_units_by_hand(masks, n_dead):
  assert connections.dead_units({name: np.array(mask) for name, mask in masks.items()}) == n_dead


@pytest.mark.parametrize('shape', [(7, 5), (3, 3, 2, 6), (4,), (1, 1)])
def test_dead_units_have_no_effect_on_the_output(shape):
  """By the forward pass: units whose output depends on no input."""
  random_state = np.random.RandomState(0)
  for density in (0.0, 0.1, 0.3, 1.0):
    mask = random_state.rand(*shape) < density
    n_units = shape[-1]
    outputs = random_state.rand(50, mask.size // n_units) @ mask.reshape(-1, n_units)
    assert connections.dead_units({'a': mask}) == sum(
      np.ptp(outputs[:, unit]) == 0.0 for unit in range(n_units)
    )


def test_explored_by_hand_and_restored():
  explored = connections.Explored()
  assert not explored and explored.rate == 1.0
  for masks, rate in (
    (FIRST, 5 / 10),
    (moved(b=[0, 1, 0, 1]), 6 / 10),
    (FIRST, 6 / 10),
    (moved(b=[0, 0, 0, 0]), 6 / 10),
    (moved(a=[[1, 1, 1], [1, 1, 1]]), 9 / 10),
  ):
    state = json.loads(json.dumps(explored.state()))
    explored = connections.Explored()
    explored.restore(state)
    explored.add(masks)
    assert explored and explored.rate == pytest.approx(rate)


def test_explored_leaves_what_it_is_given():
  explored = connections.Explored()
  first = {'a': np.array([True, False])}
  explored.add(first)
  explored.add({'a': np.array([False, True])})
  assert first['a'].tolist() == [True, False]

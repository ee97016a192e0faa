"""Tests of the training cost."""

import pytest

from rigl.micronet import training_flops
from rigl.micronet.training_flops import PruningSchedule, pruning_multiple, training_multiple
from tests.micronet import published_rows

ROWS = [row for row in published_rows.ROWS if 'train_x_rigl' in row]
DENSE_FLOPS = {'resnet50': 8202340776.0, 'mobilenet_v1': 1141543864.0}


def test_formulas_by_hand():
  # f_S = 1, f_D = 4.
  for method in ('scratch', 'static', 'snip', 'set'):
    assert training_multiple(method, 1.0, 4.0) == 0.25
  for method in ('momentum', 'dnw'):
    assert training_multiple(method, 1.0, 4.0) == 6 / 12
  # 100 sparse steps of 3, one step with 2 + 4, of 12 each when dense.
  assert training_multiple('rigl', 1.0, 4.0, delta_t=100) == 306 / 1212
  assert training_multiple('baseline', 1.0, 4.0) == 1


@pytest.mark.parametrize('row', ROWS, ids=published_rows.row_id)
def test_published_rigl_multiples(row):
  multiple = training_multiple('rigl', row['flops'], DENSE_FLOPS[row['net']], length=row['length'])
  # The reference data have five decimals.
  assert multiple == pytest.approx(row['train_x_rigl'], abs=5.1e-6)


def test_reference_data_is_complete():
  assert len(ROWS) == 29


@pytest.mark.parametrize('method', training_flops.METHODS[:-1])
class TestEveryMethod:
  def test_dense_costs_one(self, method):
    assert training_multiple(method, 3.0, 3.0) == pytest.approx(1.0)

  def test_linear_in_length(self, method):
    once = training_multiple(method, 1.0, 4.0)
    assert training_multiple(method, 1.0, 4.0, length=5) == pytest.approx(5 * once)

  def test_between_sparse_and_dense(self, method):
    assert 0.25 <= training_multiple(method, 1.0, 4.0) <= 1.0


def test_fewer_updates_bring_rigl_to_the_static_cost():
  costs = [
    training_multiple('rigl', 1.0, 4.0, delta_t=delta_t)
    for delta_t in (1, 10, 100, 1e6, float('inf'))
  ]
  assert costs == sorted(costs, reverse=True)
  assert costs[-1] == 0.25
  assert costs[-2] == pytest.approx(0.25, abs=1e-6)


class TestPruning:
  def test_by_hand(self):
    # Dense for 2 steps, then s(2) = 0, s(4) = 0.8 * (1 - 1/8), then 0.8.
    schedule = PruningSchedule(10, 2, 6, 2)
    total = 2 + 2 + 2 * (1 - 0.7) + 4 * 0.2
    assert pruning_multiple(lambda s: 1 - s, 0.8, schedule) == pytest.approx(total / 10)

  def test_against_a_loop_over_all_steps(self):
    schedule = PruningSchedule(1000, 37, 805, 50)
    sparsity, densities = 0.0, []
    for step in range(1000):
      if step >= 805:
        sparsity = 0.9
      elif step >= 37 and (step - 37) % 50 == 0:
        progress = (step - 37) / (805 - 37)
        sparsity = 0.9 - 0.9 * (1 - progress) ** 3
      densities.append(1 - sparsity)
    assert pruning_multiple(lambda s: 1 - s, 0.9, schedule) == pytest.approx(sum(densities) / 1000)

  def test_phases_fill_the_training(self):
    for schedule in (
      PruningSchedule(100, 0, 100, 7),
      PruningSchedule(100, 99, 100, 1000),
      training_flops.DEFAULT_PRUNING,
    ):
      steps = [n_steps for _, n_steps in schedule.phases(0.9)]
      assert sum(steps) == schedule.n_steps
      assert min(steps) >= 0

  def test_mean_of_the_cube(self):
    # The mean of 1 - (1 - x)^3 is 3/4.
    schedule = PruningSchedule(20_000, 0, 20_000, 1)
    assert pruning_multiple(lambda s: 1 - s, 0.8, schedule) == pytest.approx(
      1 - 0.8 * 0.75, abs=1e-4
    )

  def test_length(self):
    multiples = [pruning_multiple(lambda s: 1 - s, 0.8, length=length) for length in (1, 5)]
    assert multiples[1] == pytest.approx(5 * multiples[0])


class TestErrors:
  def test_unknown_method(self):
    with pytest.raises(ValueError, match="'riggl'.*'rigl'"):
      training_multiple('riggl', 1.0, 4.0)
    with pytest.raises(ValueError, match='pruning_multiple'):
      training_multiple('prune', 1.0, 4.0)

  @pytest.mark.parametrize(
    'kwargs, message',
    [
      ({'delta_t': 0}, 'delta_t must be > 0, got 0'),
      ({'delta_t': float('nan')}, 'delta_t must be > 0, got nan'),
      ({'length': 0}, 'length must be > 0, got 0'),
      ({'length': float('inf')}, 'length must be finite, got inf'),
      ({'f_dense': 0}, 'f_dense must be > 0, got 0'),
      ({'f_sparse': -1}, 'f_sparse must be >= 0, got -1'),
    ],
  )
  def test_impossible_numbers(self, kwargs, message):
    with pytest.raises(ValueError, match=message):
      training_multiple('rigl', **{'f_sparse': 1.0, 'f_dense': 4.0, **kwargs})

  def test_impossible_numbers_of_pruning(self):
    with pytest.raises(ValueError, match='length must be finite, got inf'):
      pruning_multiple(lambda s: 1 - s, 0.8, length=float('inf'))
    with pytest.raises(ValueError, match='f_dense must be > 0, got 0'):
      pruning_multiple(lambda s: 0.0, 0.8)

  @pytest.mark.parametrize('steps', [(10, 5, 5, 1), (10, -1, 5, 1), (10, 0, 11, 1)])
  def test_impossible_schedule(self, steps):
    with pytest.raises(ValueError, match='begin_step < end_step'):
      PruningSchedule(*steps)

  def test_frequency(self):
    with pytest.raises(ValueError, match='frequency must be > 0, got 0'):
      PruningSchedule(10, 0, 5, 0)

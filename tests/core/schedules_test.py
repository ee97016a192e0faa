"""Tests of rigl.core.schedules."""

import itertools
import json
import math
import pathlib

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import schedules

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
REFERENCE = json.loads((GOLDENS / 'schedules.json').read_text())
FRACTIONS = REFERENCE['drop_fraction_by_step']
PRUNING = json.loads((GOLDENS / 'gradual_pruning.json').read_text())

UpdateSchedule = schedules.UpdateSchedule


def _evaluate(build, steps):
  """[steps] values of the scalar that `build(step)` returns."""
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [])
    value = build(step)
    return np.asarray([session.run(value, {step: s}) for s in steps])


def _simulate(schedule, n_iterations, advances_on_update):
  """Update steps of a run by the two comparisons of the definition.

  Args:
    schedule: an UpdateSchedule.
    n_iterations: of the training loop.
    advances_on_update: False as for RigL, where an update takes the place of
      a gradient step; True as for SET, whose updates follow one.

  Returns:
    list of (step at the schedule's test, whether it was an update).
  """
  last, step, history = -schedule.frequency, 0, []
  for _ in range(n_iterations):
    if advances_on_update:
      step += 1
    update = schedule.begin_step <= step and last + schedule.frequency <= step
    if schedule.end_step >= 0 and step > schedule.end_step:
      update = False
    history.append((step, update))
    if update:
      last = step
    elif not advances_on_update:
      step += 1
  return history


def _run_schedule(schedule, n_iterations, advances_on_update):
  """Like _simulate, by the tensors of UpdateSchedule."""
  with tf.Graph().as_default(), tf.Session() as session:
    step_in = tf.placeholder(tf.int64, [])
    last_in = tf.placeholder(tf.int64, [])
    is_update = schedule.is_update_step(step_in, last_in)
    last, step, history = schedule.initial_last_update_step, 0, []
    for _ in range(n_iterations):
      step += advances_on_update
      update = session.run(is_update, {step_in: step, last_in: last})
      history.append((step, bool(update)))
      if update:
        last = step
      elif not advances_on_update:
        step += 1
    return history


def _case_id(case):
  return '-'.join(str(case[k]) for k in ('begin_step', 'end_step', 'frequency', 'anneal'))


@pytest.mark.parametrize('case', FRACTIONS, ids=_case_id)
def test_annealed_drop_fraction_equals_the_reference(case):
  """But for what is no fraction: the reference used it, we do not.

  Beyond 1 it drops more connections than there are (exponential without an
  end), and 0/0 or +-inf at begin == end empties the mask. Here fractions are
  clipped to [0, 1], a power of a negative counts as 0, and begin == end gives
  the initial fraction.
  """
  schedule = UpdateSchedule(case['begin_step'], case['end_step'], case['frequency'])
  expected = np.asarray(case['formula_value'], np.float32)
  if schedule.begin_step == schedule.end_step:
    expected = np.full_like(expected, case['drop_fraction'])
  expected = np.clip(np.nan_to_num(expected, nan=0.0), 0.0, 1.0)
  got = _evaluate(
    lambda step: schedules.annealed_drop_fraction(
      step, case['drop_fraction'], case['anneal'], schedule
    ),
    case['steps'],
  )
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('case', FRACTIONS, ids=_case_id)
def test_update_steps_lie_where_the_reference_has_them(case):
  schedule = UpdateSchedule(case['begin_step'], case['end_step'], case['frequency'])
  long_ago = case['begin_step'] - 10 * case['frequency']
  got = _evaluate(
    lambda step: schedule.is_update_step(step, tf.constant(long_ago, tf.int64)), case['steps']
  )
  assert got.tolist() == case['step_is_inside_begin_end']


def test_cosine_by_hand():
  got = _evaluate(
    lambda step: schedules.annealed_drop_fraction(step, 0.4, 'cosine', UpdateSchedule(0, 8, 1)),
    [0, 2, 4, 6, 8, 9],
  )
  half = math.sqrt(0.5)
  np.testing.assert_allclose(
    got, [0.4, 0.2 * (1 + half), 0.2, 0.2 * (1 - half), 0.0, 0.0], atol=1e-7
  )


def test_without_an_end_nothing_is_annealed_if_begin_is_the_same():
  """begin = end = -1: endless updates with the initial fraction."""
  schedule = UpdateSchedule(-1, -1, 1)
  got = _evaluate(
    lambda step: schedules.annealed_drop_fraction(step, 0.3, 'cosine', schedule), [0, 5, 1000]
  )
  np.testing.assert_allclose(got, 0.3)
  assert _evaluate(
    lambda step: schedule.is_update_step(step, tf.constant(0, tf.int64)), [5, 1000]
  ).all()


def test_exponential_by_hand():
  got = _evaluate(
    lambda step: schedules.annealed_drop_fraction(
      step, 0.8, 'exponential_2', UpdateSchedule(10, 20, 1)
    ),
    [10, 12, 15, 19, 20, 25],
  )
  np.testing.assert_allclose(got[:5], [0.8, 0.512, 0.2, 0.008, 0.0], rtol=1e-5, atol=1e-8)
  assert 0.0 <= got[5] <= 1.0


@pytest.mark.parametrize('anneal', REFERENCE['other_anneal_names'])
def test_unknown_anneal_names_are_rejected(anneal):
  with pytest.raises(ValueError) as error:
    schedules.check_drop_fraction(0.3, anneal)
  assert repr(anneal) in str(error.value)
  for option in schedules.DROP_FRACTION_ANNEALS:
    assert option in str(error.value)
  with pytest.raises(ValueError):
    schedules.annealed_drop_fraction(tf.constant(0), 0.3, anneal, UpdateSchedule(0, 10, 1))


def test_an_anneal_that_is_no_string_is_rejected():
  with pytest.raises(ValueError, match='None'):
    schedules.check_drop_fraction(0.3, None)


@pytest.mark.parametrize(
  'anneal',
  [
    'constant',
    'cosine',
    'exponential',
    'exponential_3',
    'exponential_.3',
    'exponential_3.',
    'exponential_0.5',
  ],
)
@pytest.mark.parametrize('fraction', [0.0, 0.3, 1.0])
def test_valid_drop_fractions(fraction, anneal):
  schedules.check_drop_fraction(fraction, anneal)


@pytest.mark.parametrize('fraction', [-0.1, 1.0001, math.inf, math.nan])
def test_no_fraction(fraction):
  with pytest.raises(ValueError, match=rf'drop_fraction.*{fraction}'):
    schedules.check_drop_fraction(fraction, 'constant')


@pytest.mark.parametrize(
  'steps, name',
  [((0, 7.5, 2), 'end_step'), ((0.0, 7, 2), 'begin_step'), ((0, 7, '2'), 'frequency')],
)
def test_steps_are_integers(steps, name):
  with pytest.raises(ValueError, match=f'{name} must be an integer'):
    UpdateSchedule(*steps)
  UpdateSchedule(np.int64(0), np.int32(7), 2)


@pytest.mark.parametrize(
  'anneal, begin, end, expected',
  [
    ('cosine', 0, -1, True),
    ('exponential_3', 5, -1, True),
    ('cosine', 5, 5, True),
    ('cosine', 5, 6, False),
    ('constant', 0, -1, False),
    ('constant', 5, 5, False),
  ],
)
def test_annealing_needs_an_end_after_the_begin(anneal, begin, end, expected):
  assert schedules.anneals_without_end(anneal, UpdateSchedule(begin, end, 1)) == expected


@pytest.mark.parametrize('frequency', [0, -1])
def test_frequency_must_be_positive(frequency):
  with pytest.raises(ValueError, match=f'frequency.*{frequency}'):
    UpdateSchedule(0, 10, frequency)


def test_end_must_not_lie_before_begin():
  with pytest.raises(ValueError, match=r'end_step \(3\).*begin_step \(4\)'):
    UpdateSchedule(4, 3, 1)
  with pytest.raises(ValueError, match=r'end_step \(0\).*begin_step \(1\)'):
    UpdateSchedule(1, 0, 1)
  UpdateSchedule(4, 4, 1)
  UpdateSchedule(4, -1, 1)


def test_rigl_pattern_by_hand():
  """begin 3, end 7, every 2: 1 where the gradient is applied."""
  history = _run_schedule(UpdateSchedule(3, 7, 2), 11, False)
  assert [int(not update) for _, update in history] == [1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]
  assert [step for step, update in history if update] == [3, 5, 7]


def test_set_pattern_by_hand():
  """Updates follow the gradient step, so step 0 is never seen."""
  history = _run_schedule(UpdateSchedule(0, 7, 3), 9, True)
  assert [step for step, update in history if update] == [1, 4, 7]


def test_no_end_by_hand():
  history = _run_schedule(UpdateSchedule(2, -1, 4), 14, True)
  assert [step for step, update in history if update] == [2, 6, 10, 14]


def test_begin_equals_end_updates_once():
  history = _run_schedule(UpdateSchedule(5, 5, 1), 12, False)
  assert [step for step, update in history if update] == [5]


@pytest.mark.parametrize('advances_on_update', [False, True], ids=['instead of', 'after'])
@pytest.mark.parametrize(
  'begin, end, frequency',
  [
    (0, -1, 1),
    (0, 0, 1),
    (0, 10, 3),
    (1, 10, 3),
    (3, 7, 2),
    (4, -1, 5),
    (10, 12, 100),
    (7, 7, 2),
    (-5, 20, 5),
    (-3, -1, 2),
  ],
)
def test_trajectories_equal_a_simulation(begin, end, frequency, advances_on_update):
  schedule = UpdateSchedule(begin, end, frequency)
  assert _run_schedule(schedule, 40, advances_on_update) == _simulate(
    schedule, 40, advances_on_update
  )


@pytest.mark.parametrize('begin', [-7, -5, -1, 0, 1, 4])
def test_n_updates_through_equals_a_count(begin):
  """In a run whose updates replace gradient steps, as with RigL."""
  for end, frequency in itertools.product([-1, 4, 11], [1, 2, 3, 5, 7]):
    schedule = UpdateSchedule(begin, end, frequency)
    n_updates = 0
    assert schedule.n_updates_through(schedule.initial_last_update_step) == 0
    for step, update in _simulate(schedule, 40, advances_on_update=False):
      if update:
        n_updates += 1
        assert schedule.n_updates_through(step) == n_updates, schedule
    assert n_updates


def test_a_late_start_keeps_its_rhythm():
  """Updates count from the last one, not from multiples."""
  schedule = UpdateSchedule(0, -1, 10)
  got = _evaluate(
    lambda step: schedule.is_update_step(step, tf.constant(7, tf.int64)), [10, 16, 17, 18]
  )
  assert got.tolist() == [False, False, True, True]


def test_is_update_step_takes_steps_of_any_integer_type():
  with tf.Graph().as_default(), tf.Session() as session:
    schedule = UpdateSchedule(0, 10, 2)
    for dtype in (tf.int32, tf.int64):
      assert session.run(schedule.is_update_step(tf.constant(2, dtype), tf.constant(0, dtype)))


def test_gradual_sparsity_equals_the_reference():
  """The flags of the MNIST script: 0 to 0.98 over steps 2,000 to 30,000."""
  case = PRUNING['mnist_default_flags']
  got = _evaluate(
    lambda step: schedules.gradual_sparsity(step, 0.0, 0.98, 2000, 30000, 3.0), case['steps']
  )
  np.testing.assert_allclose(got, case['sparsity'], rtol=1e-5, atol=1e-7)


def test_gradual_sparsity_by_hand():
  got = _evaluate(
    lambda step: schedules.gradual_sparsity(step, 0.2, 0.8, 10, 20, 1.0), [0, 10, 15, 18, 20, 99]
  )
  np.testing.assert_allclose(got, [0.2, 0.2, 0.5, 0.68, 0.8, 0.8], rtol=1e-6)


@pytest.mark.parametrize('begin, end', [(5, 5), (5, 4), (0, -1)])
def test_gradual_sparsity_needs_some_steps(begin, end):
  with pytest.raises(ValueError, match=rf'\({end}\).*\({begin}\)'):
    schedules.gradual_sparsity(tf.constant(0), 0.0, 0.5, begin, end, 3.0)

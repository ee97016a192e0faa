"""Single steps and step trajectories measured on the 2020 implementation."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from rigl.compat import tf
from tests import one_layer, sparse_net

GOLDENS = pathlib.Path(__file__).parent / 'goldens'


def _load(name):
  return json.loads((GOLDENS / f'{name}.json').read_text())


UPDATES = {case['name']: case for case in _load('mask_updates')['cases']}
TRACES = _load('schedules')['training_loop_traces']

# There the reference moved more connections than the layer has, or none at
# all after 0/0. Here the fraction stays in [0, 1], and begin == end updates
# once with the initial fraction.
FRACTION_DIFFERS = {
  'rigl end_step -1 exponential_1 at step 4',
  'rigl end_step -1 exponential_1 at step 9',
  'rigl begin_step == end_step with cosine: nan',
  'rigl begin_step == end_step with exponential_1: nan',
}


def _run_case(case):
  given = case['in']
  with tf.Graph().as_default():
    layer = one_layer.OneLayer(
      given['weights'],
      given['dense_gradient'],
      case['method'],
      case['inner_optimizer'],
      case['hyper'],
    )
    values = {
      'mask': given['mask'],
      'weights': given['weights'],
      'global_step': given['global_step'],
      **{f'slot/{k}': v for k, v in given.get('slots', {}).items() if np.shape(v)},
    }
    for key in ('last_mask_update_step', 'ema'):
      if key in given:
        values[key] = given[key]
    fetches = layer.state()
    with sparse_net.quick_session() as session:
      session.run(tf.global_variables_initializer())
      layer.load(session, values)
      fraction = (
        layer.optimizer.drop_fraction
        if case['method'] in sparse_net.DYNAMIC_METHODS
        else tf.constant(0.0)
      )
      report = session.run([layer.train_op, fraction])
      result = session.run(fetches)
      if case['method'] == 'snip':
        result['is_snipped'] = session.run(layer.optimizer.is_snipped)
  result['drop_fraction'] = report[1]
  return result


def _assert_equals_reference(result, expected):
  for key, value in expected.items():
    if key == 'slots':
      for name, slot in value.items():
        if np.shape(slot):
          np.testing.assert_allclose(result[f'slot/{name}'], slot, rtol=2e-6, atol=1e-7)
    elif key == 'mask':
      np.testing.assert_array_equal(result['mask'], value)
    elif key in result:
      np.testing.assert_allclose(result[key], value, rtol=2e-6, atol=1e-7, err_msg=key)


@pytest.mark.parametrize(
  'name', [n for n, c in UPDATES.items() if 'out' in c and n not in FRACTION_DIFFERS]
)
def test_one_step_equals_the_reference(name):
  case = UPDATES[name]
  _assert_equals_reference(_run_case(case), case['out'])


@pytest.mark.parametrize('name', sorted(FRACTION_DIFFERS))
def test_drop_fraction_stays_a_fraction(name):
  case = UPDATES[name]
  result = _run_case(case)
  assert 0.0 <= result['drop_fraction'] <= 1.0
  assert np.sum(result['mask']) == np.sum(case['in']['mask'])


@pytest.mark.parametrize(
  'name', [n for n, c in UPDATES.items() if 'kept_flat_indices' in c['derived'] and 'out' not in c]
)
def test_random_growth_keeps_what_the_reference_keeps(name):
  """SET: what is grown is drawn, what is kept and trained is not."""
  case = UPDATES[name]
  result = _run_case(case)
  old = np.ravel(case['in']['mask']).astype(bool)
  new = np.ravel(result['mask']).astype(bool)
  kept = np.zeros_like(old)
  kept[case['derived']['kept_flat_indices']] = True
  assert new[kept].all()
  assert new.sum() == case['derived']['n_ones_after']
  trained = case['after_gradient_step_before_mask_update']
  fresh = new & ~old
  for key, value in [('weights', trained['weights'])] + [
    (f'slot/{k}', v) for k, v in trained['slots'].items() if np.shape(v)
  ]:
    got = np.ravel(result[key])
    np.testing.assert_allclose(got[~fresh], np.ravel(value)[~fresh], rtol=2e-6, atol=1e-7)
    assert not got[fresh].any()


@pytest.mark.parametrize('name', [n for n in UPDATES if 'five active weights exactly zero' in n])
def test_an_inactive_connection_is_never_kept(name):
  """The reference let inactive weights tie with active zeros. We do not: only
  n_prune connections may enter, and they are initialised."""
  case = UPDATES[name]
  result = _run_case(case)
  old = np.ravel(case['in']['mask']).astype(bool)
  new = np.ravel(result['mask']).astype(bool)
  entered = new & ~old
  assert entered.sum() <= case['derived']['n_prune']
  assert new.sum() == old.sum()
  assert not np.ravel(result['weights'])[entered].any()


def _assert_row(row, before, after, drop_fraction, initial_fraction):
  """One iteration did what a row of the reference says.

  Args:
    row: {column: value}.
    before: state of the layer.
    after: state of the layer.
    drop_fraction: reported by the method, or None.
    initial_fraction: of the schedule, or None.
  """
  assert before['global_step'] == row['global_step_before']
  assert after['global_step'] == row['global_step_after']
  # New connections start at zero without any training.
  stayed = (before['mask'] > 0) & (after['mask'] > 0)
  trained = (before['weights'] != after['weights'])[stayed].any()
  assert trained == row['gradient_steps_applied']
  moved = (before['mask'] != after['mask']).any()
  if 'mask_changed' in row:
    assert moved == row['mask_changed']
    return
  assert after['last_mask_update_step'] == row['last_mask_update_step_after']
  assert moved <= row['mask_update']
  expected = float(row['drop_fraction'])
  # begin == end: the reference has 0/0 where we have the initial one.
  if np.isnan(expected):
    expected = initial_fraction
  np.testing.assert_allclose(drop_fraction, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  'trace',
  TRACES,
  ids=lambda t: '-'.join(str(v) for k, v in t.items() if k not in ('columns', 'rows')),
)
def test_training_loop(trace):
  """Which iterations train, which move masks, and where the steps stand."""
  method = trace['method']
  rng = np.random.RandomState(0)
  hyper = sparse_net.hyper_of(
    method,
    {
      key: trace.get(column)
      for key, column in (
        ('begin_step', 'begin_step'),
        ('end_step', 'end_step'),
        ('frequency', 'frequency'),
        ('drop_fraction', 'drop_fraction'),
        ('drop_fraction_anneal', 'anneal'),
      )
    },
  )
  is_dynamic = method in sparse_net.DYNAMIC_METHODS
  n_moved = 0
  with tf.Graph().as_default():
    layer = one_layer.OneLayer(
      rng.randn(6, 5).astype('f'),
      rng.randn(6, 5),
      method,
      {'type': 'sgd', 'learning_rate': 0.8},
      hyper,
    )
    fetches = layer.state()
    fraction = layer.optimizer.drop_fraction if is_dynamic else tf.constant(0.0)
    with sparse_net.quick_session() as session:
      session.run(tf.global_variables_initializer())
      layer.load(session, {'global_step': trace.get('first_global_step', 0)})
      if is_dynamic:
        layer.load(session, {'mask': rng.rand(6, 5) < 0.5})
      after = session.run(fetches)
      for values in trace['rows']:
        before = after
        _, got_fraction = session.run([layer.train_op, fraction])
        after = session.run(fetches)
        n_moved += (before['mask'] != after['mask']).any()
        _assert_row(
          dict(zip(trace['columns'], values)),
          before,
          after,
          got_fraction,
          trace.get('drop_fraction'),
        )
  if is_dynamic:
    # The fraction is the last column.
    drops = any(float(row[-1]) != 0.0 for row in trace['rows'])
    assert (n_moved > 0) == (drops and method != 'static')

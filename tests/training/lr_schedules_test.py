"""Learning rates: by hand and against reference data."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.training import lr_schedules


def rates(steps, *args, dtype=np.int64):
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(dtype, [])
    rate = lr_schedules.step_decay(step, *args)
    assert rate.dtype == tf.float32 and rate.shape.as_list() == []
    return [session.run(rate, {step: s}) for s in steps]


def test_boundary_itself_has_the_rate_before():
  np.testing.assert_allclose(
    rates([0, 9, 10, 11, 14, 15, 16, 1000], 0.2, [10, 15], 2.0),
    [0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05],
  )


def test_against_a_count_of_boundaries():
  boundaries = [3, 4, 17, 30]
  steps = range(40)
  expected = [0.7 / 3.0 ** sum(b < s for b in boundaries) for s in steps]
  np.testing.assert_allclose(rates(steps, 0.7, boundaries, 3.0), expected, rtol=1e-6)


@pytest.mark.parametrize('dtype', [np.int32, np.int64])
def test_step_of_any_integer_type(dtype):
  np.testing.assert_allclose(rates([5, 6], 1.0, [5], 4.0, dtype=dtype), [1.0, 0.25])


def test_step_beyond_int32():
  np.testing.assert_allclose(rates([3 * 10**9, 3 * 10**9 + 1], 1.0, [3 * 10**9], 10.0), [1.0, 0.1])


# --- Over epochs -------------------------------------------------------------


def at(epochs, function):
  with tf.Graph().as_default(), tf.Session() as session:
    epoch = tf.placeholder(tf.float32, [])
    rate = function(epoch)
    assert rate.dtype == tf.float32 and rate.shape.as_list() == []
    return [session.run(rate, {epoch: e}) for e in epochs]


def test_epochs_before_a_step():
  np.testing.assert_allclose(
    at([0, 5, 7], lambda step: lr_schedules.epoch_of(tf.cast(step, tf.int64), 100, 20)),
    [0.0, 1.0, 1.4],
  )


def test_staircase_without_warm_up():
  schedule = [(1.0, 0), (0.1, 30), (0.5, 70)]
  np.testing.assert_allclose(
    at([0, 29.9, 30, 69.9, 70, 1000], lambda epoch: lr_schedules.epoch_decay(epoch, 0.4, schedule)),
    [0.4, 0.4, 0.04, 0.04, 0.2, 0.2],
  )


def test_warm_up_is_linear():
  schedule = [(1.0, 8), (0.1, 40)]
  np.testing.assert_allclose(
    at([0, 2, 6, 8, 39, 40], lambda epoch: lr_schedules.epoch_decay(epoch, 2.0, schedule)),
    [0.0, 0.5, 1.5, 2.0, 2.0, 0.2],
    rtol=1e-6,
  )


def test_scaled():
  assert lr_schedules.scaled([(1.0, 8), (0.1, 40)], 2.5) == [(1.0, 20.0), (0.1, 100.0)]


def test_scaled_steps():
  # 2.5 is exact and 0.29 is not: 28.999999999999996.
  assert lr_schedules.scaled_steps('max_steps', 3, 2.5) == 7
  assert lr_schedules.scaled_steps('max_steps', 100, 0.29) == 28
  assert lr_schedules.scaled_steps('max_steps', 10, 0.1) == 1


@pytest.mark.parametrize(
  'multiplier, message',
  [
    (0.1, 'max_steps 9 times training_steps_multiplier 0.1 is less than a st'),
    (1e308, 'max_steps 9 times training_steps_multiplier 1e.308 must be fin'),
  ],
)
def test_no_training_of_so_many_steps(multiplier, message):
  with pytest.raises(ValueError, match=message):
    lr_schedules.scaled_steps('max_steps', 9, multiplier)


def test_restarts_by_formula():

  def expected(epoch):
    peak, length = 0.4, 2.0
    while epoch >= length:
      epoch, peak, length = epoch - length, peak * 0.5, length * 1.5
    return peak * 0.5 * (1 + np.cos(np.pi * epoch / length))

  epochs = [0.0, 0.5, 1.9, 2.1, 4.9, 5.1, 9.0, 20.0]
  np.testing.assert_allclose(
    at(epochs, lambda epoch: lr_schedules.warm_restarts(epoch, 0.4, 2.0, 1.5, 0.5)),
    [expected(epoch) for epoch in epochs],
    atol=2e-6,
  )

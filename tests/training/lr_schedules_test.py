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
      rates([0, 9, 10, 11, 14, 15, 16, 1000], 0.2, [10, 15], 2.),
      [0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])


def test_against_a_count_of_boundaries():
  boundaries = [3, 4, 17, 30]
  steps = range(40)
  expected = [0.7 / 3.**sum(b < s for b in boundaries) for s in steps]
  np.testing.assert_allclose(
      rates(steps, 0.7, boundaries, 3.), expected, rtol=1e-6)


@pytest.mark.parametrize('dtype', [np.int32, np.int64])
def test_step_of_any_integer_type(dtype):
  np.testing.assert_allclose(
      rates([5, 6], 1., [5], 4., dtype=dtype), [1., 0.25])


def test_step_beyond_int32():
  np.testing.assert_allclose(
      rates([3 * 10**9, 3 * 10**9 + 1], 1., [3 * 10**9], 10.), [1., 0.1])

"""Tests of rigl.core.scores."""

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import scores
from tests import execution_modes

DTYPES = [np.float32, np.float64, tf.bfloat16.as_numpy_dtype]
MASK = [1.0, 0.0, 1.0, 1.0, 0.0]
WEIGHTS = [-2.0, 3.0, 0.5, -0.0, -4.0]
GRADIENT = [0.25, -1.0, -8.0, 5.0, 0.0]


def _run(function, *arrays):
  return execution_modes.run(execution_modes.GRAPH, lambda *tensors: [function(*tensors)], *arrays)[
    0
  ]


@pytest.mark.parametrize('dtype', DTYPES, ids=lambda d: np.dtype(d).name)
def test_magnitude_by_hand(dtype):
  got = _run(scores.magnitude, np.asarray(MASK, dtype), np.asarray(WEIGHTS, dtype))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, [2.0, 0.0, 0.5, 0.0, 0.0])


def test_mask_and_weights_may_differ_in_type():
  got = _run(scores.magnitude, np.asarray(MASK, np.float32), np.asarray(WEIGHTS, np.float64))
  np.testing.assert_array_equal(got, [2.0, 0.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize('dtype', DTYPES, ids=lambda d: np.dtype(d).name)
def test_gradient_magnitude_by_hand(dtype):
  got = _run(scores.gradient_magnitude, np.asarray(GRADIENT, dtype))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, [0.25, 1.0, 8.0, 5.0, 0.0])


@pytest.mark.parametrize('dtype', DTYPES, ids=lambda d: np.dtype(d).name)
def test_connection_sensitivity_by_hand(dtype):
  """|gradient * weight| is 0 at a zero weight, for any gradient."""
  got = _run(scores.connection_sensitivity, np.asarray(WEIGHTS, dtype), np.asarray(GRADIENT, dtype))
  assert got.dtype == np.float32
  np.testing.assert_array_equal(got, [0.5, 3.0, 4.0, 0.0, 0.0])

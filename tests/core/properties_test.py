"""Properties of the core and of counting, on whatever hypothesis thinks of.

Scores here may be NaN and infinite; elsewhere they are compared with a
reference.
"""

from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rigl.compat import tf2
from rigl.core import distributions, mask_math, schedules
from rigl.micronet import counting

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def updates(draw):
  """(mask, drop scores, grow scores, drop fraction)."""
  shape = draw(SHAPES)
  density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
  mask = (
    draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0])))
    if density == 0.5
    else (np.random.RandomState(draw(st.integers(0, 99))).uniform(size=shape) < density).astype(
      np.float32
    )
  )
  scores = hnp.arrays(np.float32, shape, elements=ANY_FLOAT)
  fraction = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0, width=32)))
  return mask, draw(scores), draw(scores), fraction


def run(update):
  mask, drop, grow, fraction = map(tf2.constant, update)
  return [
    t.numpy() for t in mask_math.drop_and_grow(mask, drop, grow, tf2.cast(fraction, tf2.float32))
  ]


@hypothesis.given(update=updates())
def test_update_keeps_the_number_of_connections(update):
  mask, _, _, fraction = update
  new_mask, kept, grown, new = run(update)
  assert np.isin(new_mask, (0.0, 1.0)).all()
  assert new_mask.sum() == mask.sum()
  assert not (kept & grown).any()
  assert not (kept & (mask == 0)).any()
  assert (new == (grown & (mask == 0))).all()
  n_dropped = int(np.float32(mask.sum()) * np.float32(fraction))
  assert grown.sum() == n_dropped
  if fraction == 0.0:
    np.testing.assert_array_equal(new_mask, mask)


@hypothesis.given(update=updates())
def test_nan_is_grown_only_if_nothing_else_is_left(update):
  _, _, grow, _ = update
  _, kept, grown, _ = run(update)
  left_out = ~kept & ~grown
  if (grown & np.isnan(grow)).any():
    assert not (left_out & (grow > -np.inf)).any()


@hypothesis.given(
  begin=st.integers(0, 50),
  length=st.integers(1, 100),
  step=st.integers(0, 200),
  fraction=st.floats(0.0, 1.0, width=32),
  anneal=st.sampled_from(['constant', 'cosine', 'exponential_3']),
)
def test_drop_fraction_stays_between_zero_and_the_first(begin, length, step, fraction, anneal):
  value = schedules.annealed_drop_fraction(
    tf2.constant(step), fraction, anneal, schedules.UpdateSchedule(begin, begin + length, 1)
  ).numpy()
  assert 0.0 <= value <= 1.0
  if begin <= step:
    assert value <= fraction * (1.0 + 1e-6)


@hypothesis.given(begin=st.integers(0, 20), frequency=st.integers(1, 7), n_steps=st.integers(0, 60))
def test_number_of_updates_is_counted_right(begin, frequency, n_steps):
  schedule = schedules.UpdateSchedule(begin, -1, frequency)
  last, count = schedule.initial_last_update_step, 0
  for step in range(n_steps):
    if step >= begin and last + frequency <= step:
      last, count = step, count + 1
  assert schedule.n_updates_through(last) == count


@hypothesis.given(size=st.integers(1, 10**7), sparsity=st.floats(0.0, 1.0, exclude_max=True))
def test_zeros_of_a_layer(size, sparsity):
  n_zeros = distributions.get_n_zeros(size, sparsity)
  assert 0 <= n_zeros <= size
  assert abs(n_zeros - size * sparsity) <= 1


@hypothesis.given(
  kernel=st.integers(1, 5),
  n_in=st.integers(1, 20),
  n_out=st.integers(1, 20),
  size=st.integers(5, 16),
  sparsities=st.tuples(*[st.floats(0.0, 1.0, width=16)] * 2),
)
def test_counts_grow_with_density(kernel, n_in, n_out, size, sparsities):
  op = counting.Conv2D(size, (kernel, kernel, n_in, n_out), (1, 1), 'same', True, 'relu')
  low, high = sorted(sparsities)
  sparser = counting.count_ops(op, high, 32)
  denser = counting.count_ops(op, low, 32)
  # Only sparse layers store a mask.
  first = 0 if low > 0.0 else 1
  assert all(0 <= s <= d for s, d in zip(sparser[first:], denser[first:]))

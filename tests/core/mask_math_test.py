"""Tests of rigl.core.mask_math."""

import functools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rigl.compat import tf
from rigl.core import arrays, mask_math, rows
from tests import execution_modes
from tests.reference import drop_and_grow as reference

BFLOAT16 = tf.bfloat16.as_numpy_dtype
DTYPES = {'float32': np.float32, 'bfloat16': BFLOAT16, 'float64': np.float64}
NAN, INF = np.nan, np.inf

# name: (scores, n, eligible or None, selected)
TOP_N = {
  'the highest': ([1.0, 5.0, 3.0, 4.0], 2, None, [0, 1, 0, 1]),
  'ties go to the lower index': ([2.0, 1.0, 2.0, 2.0, 1.0], 2, None, [1, 0, 1, 0, 0]),
  'ties below a clear winner': ([1.0, 1.0, 9.0, 1.0], 2, None, [1, 0, 1, 0]),
  'all equal': ([7.0, 7.0, 7.0, 7.0], 3, None, [1, 1, 1, 0]),
  'ties count in C order': ([[0.0, 1.0], [1.0, 1.0]], 2, None, [[0, 1], [1, 0]]),
  '-0.0 equals 0.0': ([-0.0, 0.0, -0.0, 0.0], 3, None, [1, 1, 1, 0]),
  '0.0 before -0.0 by index only': ([-1.0, -0.0, 0.0], 1, None, [0, 1, 0]),
  'negative': ([-3.0, -1.0, -2.0, -4.0], 2, None, [0, 1, 1, 0]),
  'mixed signs': ([-3.0, 2.0, -0.5, 0.0], 3, None, [0, 1, 1, 1]),
  'NaN comes last': ([NAN, -1e30, NAN, 0.0], 2, None, [0, 1, 0, 1]),
  'NaN ranks with -inf': ([-INF, NAN, -INF, NAN], 2, None, [1, 1, 0, 0]),
  'NaN is selected when nothing else is left': ([NAN, 1.0, NAN], 2, None, [1, 1, 0]),
  'only NaN': ([NAN, NAN], 1, None, [1, 0]),
  'NaN of either sign': ([-NAN, 1.0, -1e30, NAN, -INF], 3, None, [1, 1, 1, 0, 0]),
  'infinities': ([INF, -INF, 3.4e38, -3.4e38, INF], 3, None, [1, 0, 1, 0, 1]),
  '-inf is selected last': ([-INF, -3.4e38, -INF], 2, None, [1, 1, 0]),
  '-inf comes after the lowest float': ([-INF, np.finfo(np.float32).min], 1, None, [0, 1]),
  'n = 0': ([1.0, 2.0, 3.0], 0, None, [0, 0, 0]),
  'n = 0 of equal scores': ([1.0, 1.0, 1.0], 0, None, [0, 0, 0]),
  'n < 0': ([1.0, 2.0, 3.0], -1, None, [0, 0, 0]),
  'n < 0 of negative scores': ([-1.0, -2.0, -3.0], -1, None, [0, 0, 0]),
  'n < 0 of none': ([1.0, 2.0], -1, [0, 0], [0, 0]),
  'n = size': ([1.0, 2.0, 3.0], 3, None, [1, 1, 1]),
  'n > size': ([1.0, 2.0, 3.0], 7, None, [1, 1, 1]),
  'n > eligible': ([1.0, 2.0, 3.0, 4.0], 3, [1, 0, 1, 0], [1, 0, 1, 0]),
  'n = eligible': ([4.0, 9.0, 2.0, 1.0], 2, [0, 0, 1, 1], [0, 0, 1, 1]),
  'none eligible': ([1.0, 2.0, 3.0], 2, [0, 0, 0], [0, 0, 0]),
  'not eligible however high': ([INF, 1.0, 2.0, 3.0], 2, [0, 1, 1, 1], [0, 0, 1, 1]),
  'eligible -inf and NaN': ([5.0, -INF, NAN, 6.0], 2, [0, 1, 1, 0], [0, 1, 1, 0]),
  'ties among the eligible': ([1.0, 1.0, 1.0, 1.0], 2, [0, 1, 0, 1], [0, 1, 0, 1]),
  'one element': ([3.0], 1, None, [1]),
  'one element, n = 0': ([3.0], 0, None, [0]),
  'scalar': (3.0, 1, None, 1),
  'empty': ([], 2, None, []),
  'empty with a shape': (np.zeros([2, 0, 3]), 1, None, np.zeros([2, 0, 3])),
  'neighbouring floats': (
    [1.0, np.nextafter(np.float32(1), np.float32(2)), 1.0],
    1,
    None,
    [0, 1, 0],
  ),
  'smallest normal floats': ([1.2e-38, -1.2e-38, 0.0, 1.3e-38], 2, None, [1, 0, 0, 1]),
  # Denormals, which arithmetic may flush to zero, are ordered exactly.
  'denormals': ([0.0, 2e-40, 1e-40, -1e-40, 1e-45], 3, None, [0, 1, 1, 0, 1]),
  'negative denormals': ([-2e-40, -1e-40, -3e-40], 1, None, [0, 1, 0]),
}

# name: (mask, score_drop, score_grow, fraction, mask after, new connections)
DROP_AND_GROW = {
  'half of four': (
    [1, 1, 1, 1, 0, 0],
    [4.0, 1.0, 3.0, 2.0, 9.0, 9.0],
    [0.0, 0.0, 0.0, 0.0, 1.0, 2.0],
    0.5,
    [1, 0, 1, 0, 1, 1],
    [0, 0, 0, 0, 1, 1],
  ),
  'fraction 0': (
    [1, 0, 1, 0],
    [1.0, 2.0, 0.0, 3.0],
    [0.0, 9.0, 0.0, 9.0],
    0.0,
    [1, 0, 1, 0],
    [0, 0, 0, 0],
  ),
  'fraction 1: growth alone decides': (
    [1, 1, 0, 0],
    [9.0, 9.0, 0.0, 0.0],
    [0.0, 2.0, 3.0, 1.0],
    1.0,
    [0, 1, 1, 0],
    [0, 0, 1, 0],
  ),
  'a dropped connection may come back': (
    [1, 1, 1, 0],
    [3.0, 2.0, 1.0, 0.0],
    [0.0, 0.0, 5.0, 4.0],
    0.4,
    [1, 1, 1, 0],
    [0, 0, 0, 0],
  ),
  'inactive is never kept': (
    [1, 0, 0, 1],
    [0.0, 9.0, 9.0, 0.0],
    [0.0, 0.0, 0.0, 0.0],
    0.0,
    [1, 0, 0, 1],
    [0, 0, 0, 0],
  ),
  'ties of the drop': (
    [1, 1, 1, 1, 0],
    [1.0, 1.0, 1.0, 1.0, 1.0],
    [0.0, 0.0, 0.0, 0.0, 1.0],
    0.25,
    [1, 1, 1, 0, 1],
    [0, 0, 0, 0, 1],
  ),
  'ties of the growth': (
    [0, 1, 1, 0, 0],
    [0.0, 5.0, 1.0, 0.0, 0.0],
    [0.0, 0.0, 0.0, 0.0, 0.0],
    0.5,
    [1, 1, 0, 0, 0],
    [1, 0, 0, 0, 0],
  ),
  'truncation: 3 * 0.6 drops one': (
    [1, 1, 1, 0],
    [3.0, 2.0, 1.0, 0.0],
    [0.0, 0.0, 0.0, 1.0],
    0.6,
    [1, 1, 0, 1],
    [0, 0, 0, 1],
  ),
  'a kept connection is not grown again': (
    [1, 1, 0],
    [9.0, 1.0, 0.0],
    [9.0, 0.0, 1.0],
    0.5,
    [1, 0, 1],
    [0, 0, 1],
  ),
  'nothing active': ([0, 0, 0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], 0.5, [0, 0, 0], [0, 0, 0]),
  'all active': ([1, 1, 1], [1.0, 2.0, 3.0], [3.0, 2.0, 1.0], 0.7, [1, 1, 1], [0, 0, 0]),
  'NaN gradients grow last': (
    [1, 1, 0, 0],
    [1.0, 2.0, 0.0, 0.0],
    [0.0, 0.0, NAN, -1.0],
    0.5,
    [1, 1, 0, 0],
    [0, 0, 0, 0],
  ),
  'fraction above 1': ([1, 1, 0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0], 2.0, [0, 1, 1], [0, 0, 1]),
  'negative fraction': ([1, 1, 0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0], -1.0, [1, 1, 0], [0, 0, 0]),
  'empty': ([], [], [], 0.5, [], []),
}

# (n_ones, fraction, dropped); float64 would give 28 and 62 in the first two.
N_TO_DROP = [
  (50, 0.58, 29),
  (90, 0.7, 63),
  (10, 0.3, 3),
  (3, 0.6, 1),
  (1, 0.99, 0),
  (1, 1.0, 1),
  (0, 0.5, 0),
  (7, 0.0, 0),
  (7, -0.1, 0),
  (7, 1.5, 7),
  (7, NAN, 0),
  (16777216, 0.5, 8388608),
]


class _Session:
  """A session on functions of placeholders of unknown shape, by type."""

  def __init__(self, dtype):
    self._graph = tf.Graph()
    self._dtype = dtype
    with self._graph.as_default():
      self.scores = tf.placeholder(dtype)
      self.other_scores = tf.placeholder(dtype)
      self.flags = tf.placeholder(tf.bool)
      self.n = tf.placeholder(tf.int32, [])
      self.fraction = tf.placeholder(tf.float32, [])
      self.top_n = mask_math.top_k_mask(self.scores, self.n)
      self.top_n_eligible = mask_math.top_k_mask(self.scores, self.n, self.flags)
      self.update = mask_math.drop_and_grow(
        tf.cast(self.flags, dtype), self.scores, self.other_scores, self.fraction
      )
      self.run = tf.Session().run


@functools.lru_cache(maxsize=None)
def _session(dtype_name):
  return _Session(tf.as_dtype(dtype_name))


PADDED_SIZE = 8


def _padded(values, fill):
  """Flat and longer, so that cases of any shape run as one batch."""
  flat = np.ravel(np.asarray(values, np.float32))
  return np.concatenate([flat, np.full(PADDED_SIZE - flat.size, fill, 'f')])


def _batch(cases, *columns):
  """[n_cases, PADDED_SIZE] per column, (function of a case, fill value)."""
  return [np.stack([_padded(get(case), fill) for case in cases]) for get, fill in columns]


@pytest.mark.parametrize('name', TOP_N)
def test_top_k_mask_by_hand(name):
  scores, n, eligible, expected = TOP_N[name]
  session = _session('float32')
  fetch = session.top_n if eligible is None else session.top_n_eligible
  selected = session.run(
    fetch,
    {session.scores: scores, session.n: n, session.flags: False if eligible is None else eligible},
  )
  assert selected.dtype == bool
  assert selected.shape == np.shape(expected)
  np.testing.assert_array_equal(selected, np.asarray(expected, bool))


@pytest.mark.parametrize('mode', execution_modes.MODES)
def test_top_k_mask_is_the_same_in_all_modes(mode):
  """The cases by hand again, padded with positions that are not eligible."""
  scores, eligible = _batch(
    TOP_N.values(),
    (lambda case: case[0], INF),
    (lambda case: np.ones_like(case[0]) if case[2] is None else case[2], 0.0),
  )
  numbers = np.asarray([case[1] for case in TOP_N.values()], np.int32)

  def select(*batch):
    return [tf.map_fn(lambda case: mask_math.top_k_mask(*case), batch, fn_output_signature=tf.bool)]

  selected = execution_modes.run(mode, select, scores, numbers, eligible.astype(bool))[0]
  for name, got in zip(TOP_N, selected):
    np.testing.assert_array_equal(got, _padded(TOP_N[name][3], 0.0).astype(bool), err_msg=name)


@pytest.mark.parametrize('name', TOP_N)
def test_the_reference_agrees_with_the_hand(name):
  scores, n, eligible, expected = TOP_N[name]
  np.testing.assert_array_equal(
    reference.top_n(np.asarray(scores), n, eligible), np.asarray(expected, bool)
  )


@pytest.mark.parametrize('name', DROP_AND_GROW)
def test_drop_and_grow_by_hand(name):
  old, score_drop, score_grow, fraction, expected, new = DROP_AND_GROW[name]
  session = _session('float32')
  update = session.run(
    session.update,
    {
      session.flags: np.asarray(old, bool),
      session.scores: score_drop,
      session.other_scores: score_grow,
      session.fraction: fraction,
    },
  )
  np.testing.assert_array_equal(update.mask, expected)
  np.testing.assert_array_equal(update.new_connections, np.asarray(new, bool))
  np.testing.assert_array_equal(update.kept | update.grown, np.asarray(expected, bool))
  assert not (update.kept & update.grown).any()
  assert not (update.kept & (np.asarray(old) == 0)).any()


@pytest.mark.parametrize('mode', execution_modes.MODES)
def test_drop_and_grow_is_the_same_in_all_modes(mode):
  """The cases by hand again, padded with positions that grow last."""
  cases = DROP_AND_GROW.values()
  columns = _batch(
    cases, (lambda case: case[0], 0.0), (lambda case: case[1], 9.0), (lambda case: case[2], -INF)
  )
  fractions = np.asarray([case[3] for case in cases], np.float32)

  def update(*batch):
    signature = mask_math.MaskUpdate(tf.float32, tf.bool, tf.bool, tf.bool)
    return list(
      tf.map_fn(lambda case: mask_math.drop_and_grow(*case), batch, fn_output_signature=signature)
    )

  masks, kept, grown, new = execution_modes.run(mode, update, *columns, fractions)
  assert masks.dtype == np.float32
  np.testing.assert_array_equal(kept | grown, masks == 1.0)
  for i, (name, case) in enumerate(DROP_AND_GROW.items()):
    np.testing.assert_array_equal(masks[i], _padded(case[4], 0.0), name)
    np.testing.assert_array_equal(new[i], _padded(case[5], 0.0).astype(bool), name)


@pytest.mark.parametrize('name', DROP_AND_GROW)
def test_the_reference_agrees_with_the_hand_on_updates(name):
  mask, score_drop, score_grow, fraction, expected, new = DROP_AND_GROW[name]
  update = reference.drop_and_grow(mask, score_drop, score_grow, fraction)
  np.testing.assert_array_equal(update.mask, np.asarray(expected, bool))
  np.testing.assert_array_equal(update.new_connections, np.asarray(new, bool))


@pytest.mark.parametrize('mode', execution_modes.MODES)
def test_n_to_drop_by_hand(mode):
  dropped = execution_modes.run(
    mode,
    lambda ones, fractions: [mask_math.n_to_drop(ones, fractions)],
    np.asarray([case[0] for case in N_TO_DROP], np.int32),
    np.asarray([case[1] for case in N_TO_DROP], np.float32),
  )
  assert dropped[0].tolist() == [case[2] for case in N_TO_DROP]


@pytest.mark.parametrize('mode', execution_modes.MODES)
def test_all_modes_agree_with_the_reference_on_a_layer(mode):
  """Many ties, as the scores have 41 values for 3,000 positions."""
  rng = np.random.RandomState(0)
  shape = (5, 6, 10, 10)
  score_drop = rng.randint(-20, 21, shape).astype(np.float32)
  score_grow = rng.randint(-20, 21, shape).astype(np.float32)
  mask = (rng.rand(*shape) < 0.3).astype(np.float32)
  outputs = execution_modes.run(
    mode,
    lambda *tensors: mask_math.drop_and_grow(*tensors),
    mask,
    score_drop,
    score_grow,
    np.float32(0.37),
  )
  expected = reference.drop_and_grow(mask, score_drop, score_grow, 0.37)
  for output, field, value in zip(outputs, expected._fields, expected):
    np.testing.assert_array_equal(output, value, err_msg=field)


@st.composite
def _scores(draw, dtype_name, n_arrays=1):
  """Arrays of one shape; half of the time of few values, so that many tie.

  Denormals have tests of their own: a cast from float64 may flush them.
  """
  shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
  few = st.sampled_from([-INF, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, INF, NAN])
  many = st.floats(width=32, allow_subnormal=False)
  arrays = [
    draw(hnp.arrays(np.float32, shape, elements=draw(st.sampled_from([few, many]))))
    for _ in range(n_arrays)
  ]
  with np.errstate(over='ignore', invalid='ignore'):
    return [array.astype(DTYPES[dtype_name]) for array in arrays]


@pytest.mark.parametrize('dtype_name', DTYPES)
@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_top_k_mask_equals_the_reference(dtype_name, data):
  (scores,) = data.draw(_scores(dtype_name))
  n = data.draw(st.integers(-1, scores.size + 2))
  eligible = data.draw(hnp.arrays(bool, scores.shape))
  session = _session(dtype_name)
  selected, selected_eligible = session.run(
    [session.top_n, session.top_n_eligible],
    {session.scores: scores, session.n: n, session.flags: eligible},
  )
  np.testing.assert_array_equal(selected, reference.top_n(scores, n))
  np.testing.assert_array_equal(selected_eligible, reference.top_n(scores, n, eligible))


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
def test_layers_selected_together_do_not_mix(mode):
  scores, n, eligible, selected = zip(*TOP_N.values())
  scores = [np.array(s, 'f') for s in scores]
  eligible = [
    np.ones(s.shape, bool) if e is None else np.array(e, bool) for s, e in zip(scores, eligible)
  ]

  def select(n, *tensors):
    return mask_math.top_k_masks(tensors[: len(scores)], n, tensors[len(scores) :])

  found = execution_modes.run(mode, select, np.array(n, 'i'), *scores, *eligible)
  for got, name, expected in zip(found, TOP_N, selected):
    np.testing.assert_array_equal(got, np.array(expected, bool), name)


@pytest.mark.parametrize('dtype_name', DTYPES)
@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_drop_and_grow_equals_the_reference(dtype_name, data):
  score_drop, score_grow = data.draw(_scores(dtype_name, n_arrays=2))
  mask = data.draw(hnp.arrays(bool, score_drop.shape))
  fraction = data.draw(st.floats(-0.25, 1.25, width=32))
  session = _session(dtype_name)
  update = session.run(
    session.update,
    {
      session.flags: mask,
      session.scores: score_drop,
      session.other_scores: score_grow,
      session.fraction: fraction,
    },
  )
  expected = reference.drop_and_grow(mask, score_drop, score_grow, fraction)
  assert update.mask.dtype == DTYPES[dtype_name]
  assert update.mask.astype(bool).sum() == mask.sum()
  for field, value in expected._asdict().items():
    np.testing.assert_array_equal(getattr(update, field).astype(bool), value, err_msg=field)


@pytest.mark.parametrize('dtype_name', DTYPES)
@pytest.mark.parametrize('n', [0, 1, 777, 50000, 99999, 100000])
def test_top_k_mask_of_a_large_layer(dtype_name, n):
  scores = np.random.RandomState(n).randn(100, 1000).astype(DTYPES[dtype_name])
  session = _session(dtype_name)
  selected = session.run(session.top_n, {session.scores: scores, session.n: n})
  np.testing.assert_array_equal(selected, reference.top_n(scores, n))


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
def test_joined_layers_are_updated_each_on_its_own(mode):
  """Of an odd number, of one, and of more weights than a row has, whose scores tie."""
  rng = np.random.RandomState(2)
  values = np.asarray([-INF, -1.0, -0.0, 0.0, 0.5, 1.0, INF, NAN], 'f')
  layers = [
    ((rng.rand(*shape) < 0.4).astype('f'), *rng.choice(values, (2, *shape)))
    for shape in [(3, 5), (1,), (2, 4099)]
  ]

  def update(*tensors):
    masks, drop, grow = tensors[::3], tensors[1::3], tensors[2::3]
    found = rows.Rows(arrays.of(masks[0]), [mask.shape for mask in masks])
    moved = mask_math.drop_and_grow_joined(
      found,
      found.join([mask > 0 for mask in masks], 'bool'),
      found.join(drop, 'float32'),
      found.join(grow, 'float32'),
      0.37,
    )
    return [part for matrix in moved for part in found.split(matrix)]

  found = execution_modes.run(mode, update, *[part for layer in layers for part in layer])
  expected = zip(*[reference.drop_and_grow(*layer, 0.37) for layer in layers])
  for got, wanted in zip(found, [part for field in expected for part in field], strict=True):
    np.testing.assert_array_equal(got, wanted)


@functools.cache
def _layer_of_many_parts():
  """[(mask, score_drop, score_grow, fraction)] and what the reference makes of them."""
  rng = np.random.RandomState(1)
  size = 250_003
  values = np.asarray([-INF, -1.0, -0.0, 0.0, 1e-40, 0.5, 1.0, INF, NAN], 'f')
  ties = rng.choice(values, size)
  distinct = rng.randn(size).astype('f')
  mask = (rng.rand(size) < 0.3).astype('f')
  scores = [(ties, distinct), (distinct, ties)]
  return (
    [(mask, drop, grow, np.float32(0.37)) for drop, grow in scores],
    [reference.drop_and_grow(mask, drop, grow, 0.37) for drop, grow in scores],
  )


@pytest.mark.parametrize('mode', execution_modes.MODES)
def test_a_layer_cut_into_parts_is_the_same_in_all_modes(mode):
  """Ties and all kinds of numbers in four parts, the last one longer."""
  cases, wanted = _layer_of_many_parts()
  found = execution_modes.run_each(mode, mask_math.drop_and_grow, cases)
  for outputs, expected in zip(found, wanted, strict=True):
    for output, field, value in zip(outputs, expected._fields, expected):
      np.testing.assert_array_equal(output, value, err_msg=field)


@pytest.mark.parametrize(
  'dtype',
  [tf.float32, tf.bfloat16, tf.float16, tf.float64, tf.int32, tf.uint8],
  ids=lambda dtype: dtype.name,
)
def test_the_mask_keeps_its_type(dtype):
  old = np.asarray([1, 1, 0, 0]).astype(dtype.as_numpy_dtype)
  new = execution_modes.run(
    execution_modes.GRAPH,
    lambda mask: mask_math.drop_and_grow(
      mask, tf.constant([2.0, 1.0, 0.0, 0.0]), tf.constant([0.0, 0.0, 1.0, 2.0]), 0.5
    )[:1],
    old,
  )[0]
  assert new.dtype == old.dtype
  np.testing.assert_array_equal(new.astype(int), [1, 0, 0, 1])


@pytest.mark.parametrize('shape', [[3, 4], [1], [2, 3, 4, 5], [], [None, 4], None])
def test_static_shapes_are_preserved(shape):
  with tf.Graph().as_default():
    scores = tf.placeholder(tf.float32, shape)
    mask = tf.placeholder(tf.float32, shape)
    selected = mask_math.top_k_mask(scores, 2)
    update = mask_math.drop_and_grow(mask, scores, scores, 0.5)
    for tensor in (selected, *update):
      if shape is None:
        assert tensor.shape.rank is None
      else:
        assert tensor.shape.as_list() == shape


def test_scores_are_compared_as_float32():
  """1 + 1e-9 is 1 in float32, so the lower index wins the tie."""
  selected = execution_modes.run(
    execution_modes.GRAPH,
    lambda s: [mask_math.top_k_mask(s, 1)],
    np.asarray([1.0, 1.0 + 1e-9], np.float64),
  )[0]
  np.testing.assert_array_equal(selected, [True, False])


def test_n_may_be_a_tensor():
  selected = execution_modes.run(
    execution_modes.GRAPH,
    lambda s, n: [mask_math.top_k_mask(s, n)],
    np.asarray([1.0, 3.0, 2.0], np.float32),
    np.int32(2),
  )[0]
  np.testing.assert_array_equal(selected, [False, True, True])


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
def test_every_library_selects_and_moves_alike(mode):
  """Scores of all kinds: tied, infinite, NaN, of either sign and zero."""
  rng = np.random.RandomState(0)
  special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, 1.0, 1.0], 'f')

  def select(scores, other, mask, n, fraction):
    return [
      mask_math.top_k_mask(scores, n),
      mask_math.top_k_mask(scores, n, mask > 0.0),
      *mask_math.drop_and_grow(mask, scores, other, fraction),
    ]

  cases, expected = [], []
  for n, fraction in ((0, 0.0), (1, 0.25), (17, 0.58), (40, 1.0), (99, 0.075)):
    scores, other = (
      np.where(rng.rand(5, 8) < 0.5, rng.choice(special, [5, 8]), rng.randn(5, 8)).astype('f')
      for _ in range(2)
    )
    mask = (rng.rand(5, 8) < 0.5).astype('f')
    cases.append((scores, other, mask, np.int32(n), np.float32(fraction)))
    expected.append(
      [
        reference.top_n(scores, n),
        reference.top_n(scores, n, mask > 0.0),
        *reference.drop_and_grow(mask, scores, other, fraction),
      ]
    )
  for got, wanted in zip(execution_modes.run_each(mode, select, cases), expected):
    for one, other_one in zip(got, wanted):
      np.testing.assert_array_equal(one, other_one)

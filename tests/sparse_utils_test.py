"""Tests of rigl.sparse_utils, the facade over rigl.core.distributions."""

import inspect
import math

import numpy as np
import pytest

from rigl import sparse_utils, str_sparsities
from rigl.compat import tf
from rigl.core import distributions

SHAPES = {'block1/conv': (3, 3, 16, 32), 'block2/conv': (1, 1, 32, 64), 'head': (64, 10)}
CUSTOM = {'head': 0.25}

# The parameters, with defaults, that code of the 2020 repository relies on.
SIGNATURES = {
  'mask_extract_name_fn': ['mask_name'],
  'get_n_zeros': ['size', 'sparsity'],
  'calculate_sparsity': ['masks'],
  'get_mask_random_numpy': ['mask_shape', 'sparsity', 'random_state=None'],
  'get_mask_random': ['mask', 'sparsity', 'dtype', 'random_state=None'],
  'get_sparsities_erdos_renyi': [
    'all_masks',
    'default_sparsity',
    'custom_sparsity_map',
    'include_kernel',
    'extract_name_fn=mask_extract_name_fn',
    'erk_power_scale=1.0',
  ],
  'get_sparsities_uniform': [
    'all_masks',
    'default_sparsity',
    'custom_sparsity_map',
    'extract_name_fn=mask_extract_name_fn',
  ],
  'get_sparsities_str': ['all_masks', 'default_sparsity'],
  'get_sparsities': [
    'all_masks',
    'method',
    'default_sparsity',
    'custom_sparsity_map',
    'extract_name_fn=mask_extract_name_fn',
    'erk_power_scale=1.0',
  ],
  'get_mask_init_fn': [
    'all_masks',
    'method',
    'default_sparsity',
    'custom_sparsity_map',
    'mask_fn=get_mask_random',
    'erk_power_scale=1.0',
    'extract_name_fn=mask_extract_name_fn',
  ],
}

pytestmark = pytest.mark.usefixtures('graph')


class KerasLikeWeight:
  """All that a weight of a Keras layer has in common with a variable here."""

  def __init__(self, name, shape):
    self.name = name
    self.shape = tf.TensorShape(shape)


@pytest.fixture(name='session')
def _session():
  with tf.Session() as session:
    yield session


def _masks(dtype=tf.float32, shapes=None):
  return [
    tf.get_variable(f'{layer}/mask', shape, dtype, tf.ones_initializer(), trainable=False)
    for layer, shape in (shapes or SHAPES).items()
  ]


def _keras_masks():
  return [KerasLikeWeight(f'{layer}/mask:0', shape) for layer, shape in SHAPES.items()]


@pytest.mark.parametrize('name', SIGNATURES)
def test_signatures(name):
  parameters = inspect.signature(getattr(sparse_utils, name)).parameters
  got = [
    p.name if p.default is p.empty else f'{p.name}={getattr(p.default, "__name__", p.default)}'
    for p in parameters.values()
  ]
  assert got == SIGNATURES[name]


@pytest.mark.parametrize(
  'name, layer',
  [
    ('a/mask:0', 'a'),
    ('a/b/mask:0', 'a/b'),
    ('a/mask/mask:0', 'a/mask'),
    ('mask:0', ''),
    ('mask', ''),
    ('a/mask', 'a'),
    ('a/mask/mask', 'a/mask'),
    ('resnet_model/initial_conv/mask:0', 'resnet_model/initial_conv'),
  ],
)
def test_mask_extract_name_fn(name, layer):
  assert sparse_utils.mask_extract_name_fn(name) == layer


@pytest.mark.parametrize(
  'name', ['a/weights', 'a/weights:0', 'a/mask/weights', 'a/mask:', 'a/mask:x', 'a/my_mask:0', '']
)
def test_names_that_are_not_of_masks(name):
  with pytest.raises(ValueError) as error:
    sparse_utils.mask_extract_name_fn(name)
  assert repr(name) in str(error.value)


# --- Sparsities --------------------------------------------------------------


@pytest.mark.parametrize('make_masks', [_masks, _keras_masks])
@pytest.mark.parametrize('custom', [None, {}, CUSTOM])
@pytest.mark.parametrize('method', ['random', 'erdos_renyi', 'erdos_renyi_kernel'])
def test_sparsities_are_those_of_the_distribution(method, custom, make_masks):
  got = sparse_utils.get_sparsities(make_masks(), method, 0.8, custom)
  expected = distributions.get_sparsities(SHAPES, method, 0.8, custom)
  assert got == {f'{layer}/mask:0': s for layer, s in expected.items()}
  assert list(got) == [f'{layer}/mask:0' for layer in SHAPES]


def test_erk_power_scale_is_passed_on():
  masks = _masks()
  flat = sparse_utils.get_sparsities(masks, 'erdos_renyi_kernel', 0.8, None, erk_power_scale=0.0)
  assert len({round(s, 6) for s in flat.values()}) == 1
  assert flat != sparse_utils.get_sparsities(masks, 'erdos_renyi_kernel', 0.8, None)
  assert flat == sparse_utils.get_sparsities_erdos_renyi(
    masks, 0.8, None, include_kernel=True, erk_power_scale=0.0
  )


def test_one_function_per_distribution():
  masks = _masks()
  for method, get in [
    ('random', lambda: sparse_utils.get_sparsities_uniform(masks, 0.8, CUSTOM)),
    ('erdos_renyi', lambda: sparse_utils.get_sparsities_erdos_renyi(masks, 0.8, CUSTOM, False)),
    (
      'erdos_renyi_kernel',
      lambda: sparse_utils.get_sparsities_erdos_renyi(masks, 0.8, CUSTOM, True),
    ),
  ]:
    assert get() == sparse_utils.get_sparsities(masks, method, 0.8, CUSTOM)


def test_another_extract_name_fn():
  """Keras names its mask as it likes; the map then uses the same names."""
  masks = [
    KerasLikeWeight('dense/kernel_mask:0', (4, 5)),
    KerasLikeWeight('dense_1/kernel_mask:0', (5, 6)),
  ]
  got = sparse_utils.get_sparsities(
    masks, 'random', 0.5, {'dense_1': 0.9}, extract_name_fn=lambda name: name.split('/')[0]
  )
  assert got == {'dense/kernel_mask:0': 0.5, 'dense_1/kernel_mask:0': 0.9}
  with pytest.raises(ValueError, match='dense/kernel_mask:0'):
    sparse_utils.get_sparsities(masks, 'random', 0.5, None)


def test_str_is_the_table_of_its_own_network():
  masks = [KerasLikeWeight(f'{name}/mask:0', (3, 3, 4, 5)) for name in str_sparsities.LAYER_NAMES]
  sparsities = sparse_utils.get_sparsities_str(masks, 0.9023)
  assert set(sparsities) == {mask.name for mask in masks}
  assert len(set(sparsities.values())) > 10
  for names in (masks, reversed(masks)):
    assert sparse_utils.get_sparsities(list(names), 'str', 0.9023, None) == sparsities


def test_str_needs_its_own_network():
  with pytest.raises(ValueError):
    sparse_utils.get_sparsities_str(_masks(), 0.9)
  with pytest.raises(ValueError):
    sparse_utils.get_sparsities(_masks(), 'str', 0.9, None)


@pytest.mark.parametrize(
  'method, sparsity, custom, message',
  [
    ('erk', 0.8, None, "'erk' is not one of random, erdos_renyi"),
    ('random', 0.8, {'head/mask:0': 0.5}, "'head/mask:0'.*'head'"),
    ('erdos_renyi', 1.1, None, r'\[0, 1\], got 1.1'),
    ('erdos_renyi_kernel', 0.8, {'head': math.nan}, "'head'.*got nan"),
  ],
)
def test_what_the_distributions_reject_is_rejected(method, sparsity, custom, message):
  with pytest.raises(ValueError, match=message):
    sparse_utils.get_sparsities(_masks(), method, sparsity, custom)


def test_two_masks_of_one_layer_name_are_an_error():
  """Merged, one of them would have no sparsity."""
  masks = [
    KerasLikeWeight('cell/kernel_mask:0', (4, 5)),
    KerasLikeWeight('cell/recurrent_mask:0', (5, 5)),
  ]
  for get in (
    sparse_utils.get_sparsities_uniform,
    lambda *args, **kwargs: sparse_utils.get_mask_init_fn(args[0], 'random', *args[1:], **kwargs),
  ):
    with pytest.raises(ValueError, match=("cell/kernel_mask:0 and cell/recurrent_mask:0.*'cell'")):
      get(masks, 0.5, None, extract_name_fn=lambda name: name.split('/')[0])


# --- Masks -------------------------------------------------------------------


def test_random_masks_have_the_exact_number_of_zeros():
  mask = sparse_utils.get_mask_random_numpy((10, 2, 5), 0.29)
  assert mask.shape == (10, 2, 5)
  assert np.isin(mask, (0, 1)).all()
  assert (mask == 0).sum() == sparse_utils.get_n_zeros(100, 0.29) == 28


def test_random_masks_follow_the_generator():

  def draw(random_state):
    return sparse_utils.get_mask_random_numpy((20, 20), 0.5, random_state)

  first = draw(np.random.RandomState(1))
  np.testing.assert_array_equal(first, draw(np.random.RandomState(1)))
  assert (first != draw(np.random.RandomState(2))).any()
  # Without one it is numpy's global generator, which a script seeds.
  state = np.random.get_state()
  try:
    np.random.seed(1)
    np.testing.assert_array_equal(first, draw(None))
  finally:
    np.random.set_state(state)


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16, tf.int32])
def test_get_mask_random(session, dtype):
  (mask,) = _masks(shapes={'a': (4, 5)})
  tensor = sparse_utils.get_mask_random(mask, 0.25, dtype, np.random.RandomState(3))
  assert tensor.dtype == dtype
  np.testing.assert_array_equal(
    session.run(tensor).astype(float),
    sparse_utils.get_mask_random_numpy((4, 5), 0.25, np.random.RandomState(3)),
  )


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16])
def test_mask_init_fn_assigns_masks_of_each_layers_sparsity(session, dtype):
  masks = _masks(dtype)
  sparsities = sparse_utils.get_sparsities(masks, 'erdos_renyi_kernel', 0.8, CUSTOM)
  init = sparse_utils.get_mask_init_fn(masks, 'erdos_renyi_kernel', 0.8, CUSTOM)
  session.run(tf.global_variables_initializer())
  session.run(init)
  for mask, value in zip(masks, session.run(masks)):
    assert value.dtype == dtype.as_numpy_dtype
    assert (value == 0).sum() == sparse_utils.get_n_zeros(value.size, sparsities[mask.name])


def test_mask_init_fn_draws_by_the_seed_of_the_graph():
  drawn = []
  for seed in (None, 0, 1, 1):
    with tf.Graph().as_default(), tf.Session() as session:
      if seed is not None:
        tf.set_random_seed(seed)
      masks = _masks()
      init = sparse_utils.get_mask_init_fn(masks, 'random', 0.5, {})
      session.run(tf.global_variables_initializer())
      session.run(init)
      drawn.append(np.concatenate([m.ravel() for m in session.run(masks)]))
  np.testing.assert_array_equal(drawn[0], drawn[1])
  np.testing.assert_array_equal(drawn[2], drawn[3])
  assert (drawn[0] != drawn[2]).any()


def test_mask_init_fn_takes_the_function_and_its_arguments(session):
  masks = _masks()
  calls = []

  def mask_fn(mask, sparsity, dtype):
    calls.append((mask.name, sparsity, dtype))
    return tf.zeros(mask.shape, dtype)

  init = sparse_utils.get_mask_init_fn(
    masks, 'random', 0.5, CUSTOM, mask_fn=mask_fn, extract_name_fn=sparse_utils.mask_extract_name_fn
  )
  session.run(tf.global_variables_initializer())
  session.run(init)
  assert calls == [
    ('block1/conv/mask:0', 0.5, tf.float32),
    ('block2/conv/mask:0', 0.5, tf.float32),
    ('head/mask:0', 0.25, tf.float32),
  ]
  assert not any(value.any() for value in session.run(masks))


def test_mask_init_fn_rejects_what_get_sparsities_rejects():
  masks = _masks()
  with pytest.raises(ValueError, match='nowhere'):
    sparse_utils.get_mask_init_fn(masks, 'random', 0.5, {'nowhere': 0.5})
  with pytest.raises(ValueError, match='unknown'):
    sparse_utils.get_mask_init_fn(masks, 'unknown', 0.5, None)


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16, tf.int32])
def test_calculate_sparsity_by_hand(session, dtype):
  """3 of 4 and 1 of 6 are zero: 40 % together, not the mean of both."""
  first, second = _masks(dtype, {'a': (2, 2), 'b': (6,)})
  session.run(tf.global_variables_initializer())
  first.load([[0, 0], [0, 1]], session)
  second.load([1, 1, 0, 1, 1, 1], session)
  sparsity = session.run(sparse_utils.calculate_sparsity([first, second]))
  assert sparsity.dtype == np.float32
  np.testing.assert_allclose(sparsity, 0.4, rtol=1e-6)
  assert session.run(sparse_utils.calculate_sparsity([first])) == 0.75


def test_calculate_sparsity_counts_exactly(session):
  """A float32 sum of ones stops at 2 ** 24."""
  mask = np.ones(2**24 + 5, np.uint8)
  mask[-2:] = 0
  placeholder = tf.placeholder(tf.uint8, mask.shape)
  sparsity = session.run(sparse_utils.calculate_sparsity([placeholder]), {placeholder: mask})
  np.testing.assert_allclose(sparsity, 2.0 / mask.size, rtol=1e-6)


def test_calculate_sparsity_of_no_masks(session):
  assert session.run(sparse_utils.calculate_sparsity([])) == 0.0

"""Invariants of the optimizers that move masks while they train."""

import functools
import itertools

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import methods
from tests import combinations, sparse_net
from tests.reference import drop_and_grow as reference

SHAPES = {'matrix': (6, 5), 'kernel': (3, 3, 2, 4)}
DTYPES = (tf.float32, tf.bfloat16, tf.float64)
LAYERS = {
  'one': sparse_net.LayerSpec((1,)),
  'float32_mask': sparse_net.LayerSpec((7,), tf.bfloat16, tf.float32),
  **{
    f'{name}_{dtype.name}': sparse_net.LayerSpec(shape, dtype)
    for (name, shape), dtype in itertools.product(SHAPES.items(), DTYPES)
  },
}
FEW_LAYERS = {'a': sparse_net.LayerSpec((6, 5)), 'b': sparse_net.LayerSpec((3, 3, 2, 4))}

HYPER = sparse_net.SCHEDULE
EVERY_STEP = {**HYPER, 'begin_step': 0, 'end_step': -1, 'frequency': 1}
# The noise on drop scores has a standard deviation of 1e-5.
NOISE_MARGIN = 2e-4


def _bytes(array, where=None):
  """What makes arrays bit-equal, the sign of zeros included."""
  return (array if where is None else array[where]).tobytes()


def _layer(state, name):
  """The parts of a state that belong to one layer, as the reference's type."""
  prefix = f'{name}/weights/'
  return reference.Layer(
    state[f'{name}/mask'],
    state[f'{name}/weights'],
    {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)},
  )


def _check_mask_update(method, trained, gradient, ema, after, slot_starts):
  """Checks one update of one layer; all arguments are of that layer.

  Args:
    method: name.
    trained: Layer after the gradient step, if there is one, before the update.
    gradient: dense gradient of this step.
    ema: its moving average, for SNFS.
    after: Layer after the update.
    slot_starts: {slot name: initial value}.
  """
  old, new = trained.mask.astype(bool), after.mask.astype(bool)
  n_ones = old.sum()
  n_prune = reference.n_to_drop(n_ones, HYPER['drop_fraction'])
  assert after.mask.dtype == trained.mask.dtype
  assert np.isin(after.mask.astype(float), (0.0, 1.0)).all()
  assert new.sum() == n_ones
  # Whatever was not active before was grown, and only n_prune were grown.
  assert (new & ~old).sum() <= n_prune

  scores = np.abs(trained.mask.astype('f') * trained.weights.astype('f'))
  ranked = np.sort(scores[old])[::-1]
  n_keep = n_ones - n_prune
  if n_keep:
    assert new[old & (scores > ranked[n_keep - 1] + NOISE_MARGIN)].all()
  if method == 'static':
    assert _bytes(after.mask) == _bytes(trained.mask)
    changed = np.zeros_like(old)
    for a, b in zip(
      (after.weights, *after.slots.values()), (trained.weights, *trained.slots.values())
    ):
      changed |= a != b
    # At most, since a value may happen to be the initial one already.
    assert not (changed & ~old).any() and changed.sum() <= n_prune
    fresh = changed
  else:
    fresh = new & ~old
  assert not after.weights[fresh].any()
  assert _bytes(after.weights, ~fresh) == _bytes(trained.weights, ~fresh)
  assert set(after.slots) == set(slot_starts)
  for name, start in slot_starts.items():
    slot = after.slots[name]
    assert (slot[fresh] == slot.dtype.type(start)).all()
    assert _bytes(slot, ~fresh) == _bytes(trained.slots[name], ~fresh)

  is_clear = n_keep in (0, n_ones) or (ranked[n_keep - 1] - ranked[n_keep] > NOISE_MARGIN)
  if is_clear and method != 'set':
    score_grow = {'rigl': gradient, 'momentum': ema, 'static': trained.mask}
    expected = reference.update_layer(
      trained,
      np.abs(score_grow[method].astype('f')),
      HYPER['drop_fraction'],
      0.0,
      slot_starts,
      method == 'static',
    )
    assert _bytes(after.mask) == _bytes(expected.mask)
    assert _bytes(after.weights) == _bytes(expected.weights)
    for name, slot in expected.slots.items():
      assert _bytes(after.slots[name]) == _bytes(slot)
  return is_clear


@functools.lru_cache(maxsize=None)
def _bare_net(inner):
  """The same layers, trained by the inner optimizer alone."""
  return sparse_net.SparseNet(LAYERS, inner)


def _is_update_step(step, last):
  return HYPER['begin_step'] <= step <= HYPER['end_step'] and last + HYPER['frequency'] <= step


@pytest.mark.parametrize(
  'method, inner', combinations.thinned(sparse_net.DYNAMIC_METHODS, sparse_net.INNER_OPTIMIZERS)
)
def test_invariants(method, inner):
  """20 steps of layers of all shapes and types, next to the bare optimizer."""
  rng = np.random.RandomState(1)
  skips_gradient = methods.METHODS[method].replaces_step
  moved = set()
  n_updates = n_clear = 0
  bare = _bare_net(inner)
  with sparse_net.SparseNet(LAYERS, inner, method, HYPER) as net:
    extra = {'last_mask_update_step'}
    if method == 'momentum':
      extra |= {f'{name}/dense_gradient_ema' for name in LAYERS}
    assert set(net.variables) == set(bare.variables) | extra
    after = net.state()
    for _ in range(20):
      before, gradients = after, net.random_gradients(rng)
      net.step(gradients)
      after = net.state()
      bare.load(before)
      bare.step(gradients)
      trained = bare.state()
      step = trained['global_step'] - skips_gradient
      is_update = _is_update_step(step, before['last_mask_update_step'])
      n_updates += is_update
      if is_update and skips_gradient:
        trained = before
      assert after['last_mask_update_step'] == (
        step if is_update else before['last_mask_update_step']
      )
      for key in bare.variables:
        if not (is_update and key.split('/')[0] in LAYERS):
          assert _bytes(after[key]) == _bytes(trained[key]), key
      if not is_update:
        continue
      for name in LAYERS:
        n_clear += _check_mask_update(
          method,
          _layer(trained, name),
          gradients[name],
          after.get(f'{name}/dense_gradient_ema'),
          _layer(after, name),
          sparse_net.SLOT_STARTS[inner],
        )
        if _bytes(before[f'{name}/mask']) != _bytes(after[f'{name}/mask']):
          moved.add(name)
  assert n_updates == 4
  assert n_clear >= 20
  assert moved == (set() if method == 'static' else set(LAYERS) - {'one'})


@pytest.mark.parametrize(
  'grow_init, expected',
  [
    ('grad_scale', lambda g: g),
    ('grad_scale_4', lambda g: g / 4),
    ('grad_sign_8', lambda g: np.sign(g) / 8),
  ],
)
def test_rigl_grows_by_the_gradient(grow_init, expected):
  with sparse_net.SparseNet(
    FEW_LAYERS, 'sgd', 'rigl', {**EVERY_STEP, 'grow_init': grow_init}
  ) as net:
    before = net.state()
    gradients = net.random_gradients(np.random.RandomState(1))
    net.step(gradients)
    after = net.state()
  for name, gradient in gradients.items():
    new = (after[f'{name}/mask'] > 0) & (before[f'{name}/mask'] == 0)
    assert new.any()
    np.testing.assert_array_equal(after[f'{name}/weights'][new], expected(gradient)[new])


@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
def test_new_connections_hold_values_of_the_initial_distribution(method):
  with sparse_net.SparseNet(
    FEW_LAYERS, 'momentum', method, {**EVERY_STEP, 'grow_init': 'initial_dist_2'}
  ) as net:
    initial = net.state()
    for _ in range(3):
      before = net.state()
      net.step(net.random_gradients(np.random.RandomState(1)))
      after = net.state()
      for name in FEW_LAYERS:
        new = after[f'{name}/mask'] != before[f'{name}/mask']
        new &= after[f'{name}/mask'] > 0
        assert np.isin(after[f'{name}/weights'][new], initial[f'{name}/weights'] / 2).all()


@pytest.mark.parametrize('inner', ['momentum', 'rmsprop'])
def test_initial_acc_scale_adds_the_gradient_to_new_slots(inner):
  with sparse_net.SparseNet(
    FEW_LAYERS, inner, 'rigl', {**EVERY_STEP, 'initial_acc_scale': 0.25}
  ) as net:
    before = net.state()
    gradients = net.random_gradients(np.random.RandomState(1))
    net.step(gradients)
    after = net.state()
  for name, gradient in gradients.items():
    new = (after[f'{name}/mask'] > 0) & (before[f'{name}/mask'] == 0)
    assert new.any()
    for slot, start in sparse_net.SLOT_STARTS[inner].items():
      key = f'{name}/weights/{slot}'
      np.testing.assert_array_equal(after[key][new], start + np.float32(0.25) * gradient[new])
      assert _bytes(after[key], ~new) == _bytes(before[key], ~new)


def test_layers_of_one_shape_draw_numbers_of_their_own():
  same = {'a': sparse_net.LayerSpec((20, 20)), 'b': sparse_net.LayerSpec((20, 20))}
  with sparse_net.SparseNet(same, 'sgd', 'set', EVERY_STEP) as net:
    state = net.state()
    for part in ('mask', 'weights'):
      state[f'b/{part}'] = state[f'a/{part}']
    net.load(state)
    gradient = net.random_gradients(np.random.RandomState(1))['a']
    net.step({'a': gradient, 'b': gradient})
    after = net.state()
  assert (after['a/mask'] != after['b/mask']).mean() > 0.1


def test_a_layer_draws_other_numbers_at_each_step():
  """From the same state, two steps grow different connections."""
  with sparse_net.SparseNet(FEW_LAYERS, 'sgd', 'set', EVERY_STEP) as net:
    state = net.state()
    zeros = {name: np.zeros(spec.shape) for name, spec in FEW_LAYERS.items()}
    masks = []
    for step in (0, 1, 0):
      net.load({**state, 'global_step': step})
      net.step(zeros)
      masks.append(net.state()['b/mask'])
  assert (masks[0] != masks[1]).any()
  assert (masks[0] == masks[2]).all()


def test_the_seed_offset_changes_what_is_grown():
  masks = []
  for seed in (0, 1, 0):
    with sparse_net.SparseNet(
      FEW_LAYERS, 'sgd', 'set', {**EVERY_STEP, 'stateless_seed_offset': seed}
    ) as net:
      net.step(net.random_gradients(np.random.RandomState(1)))
      masks.append(net.state()['b/mask'])
  assert (masks[0] != masks[1]).any()
  assert (masks[0] == masks[2]).all()


def test_the_noise_alone_chooses_among_equal_drop_scores():
  """By the seed, and not the connections of lower index."""
  kept = []
  for seed in (0, 1, 0):
    with sparse_net.SparseNet(
      FEW_LAYERS, 'sgd', 'rigl', {**EVERY_STEP, 'stateless_seed_offset': seed}
    ) as net:
      before = net.state()
      old = before['b/mask'].astype(bool)
      weights = np.where(old, 0.0, before['b/weights'])
      # What is dropped does not come back.
      gradient = np.where(old, 0.0, 1.0 + np.arange(old.size).reshape(old.shape))
      net.load({**before, 'b/weights': weights})
      net.step({'a': np.zeros(FEW_LAYERS['a'].shape), 'b': gradient})
      kept.append(net.state()['b/mask'].astype(bool) & old)
  by_index = reference.drop_and_grow(
    old, np.zeros(old.shape), gradient, EVERY_STEP['drop_fraction']
  ).kept
  assert kept[0].sum() == by_index.sum() < old.sum()
  assert (kept[0] != kept[1]).any()
  assert (kept[0] == kept[2]).all()
  for some in kept:
    assert (some != by_index).any()


@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
@pytest.mark.parametrize('fraction', [0.0, 1.0])
def test_extreme_drop_fractions(method, fraction):
  """0 is the identity; with 1 the grow score alone decides."""
  with sparse_net.SparseNet(
    FEW_LAYERS, 'sgd', method, {**EVERY_STEP, 'drop_fraction': fraction}
  ) as net:
    before = net.state()
    gradients = net.random_gradients(np.random.RandomState(1))
    net.step(gradients)
    after = net.state()
  for name, gradient in gradients.items():
    old, new = before[f'{name}/mask'], after[f'{name}/mask']
    assert new.sum() == old.sum()
    if fraction == 0.0 or method == 'static':
      np.testing.assert_array_equal(new, old)
    elif method in ('rigl', 'momentum'):
      np.testing.assert_array_equal(
        new.astype(bool), reference.top_n(np.abs(gradient), int(old.sum()))
      )
    else:
      assert (new != old).any()


def test_snfs_averages_the_dense_gradient():
  with sparse_net.SparseNet(FEW_LAYERS, 'sgd', 'momentum', {**HYPER, 'momentum': 0.8}) as net:
    rng = np.random.RandomState(1)
    expected = dict.fromkeys(FEW_LAYERS, 0.0)
    for _ in range(6):
      gradients = net.random_gradients(rng)
      net.step(gradients)
      state = net.state()
      for name, gradient in gradients.items():
        expected[name] = 0.8 * expected[name] + 0.2 * gradient
        np.testing.assert_allclose(
          state[f'{name}/dense_gradient_ema'], expected[name], rtol=1e-5, atol=1e-6
        )

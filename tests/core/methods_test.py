"""The table of methods and their attributes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from rigl.core import arrays, methods, scores, seeding, stateless_random
from rigl.micronet import training_flops
from tests import combinations, execution_modes
from tests.reference import methods as oracle

# The capabilities that are set, by algorithm. A method that is new in the table
# fails the tests until it has a row here.
MASKS = {'uses_masks': True}
DYNAMIC = {**MASKS, 'inits_masks': True, 'is_dynamic': True, 'when': 'on_schedule'}
EXPECTED = {
  'baseline': {'when': 'never'},
  'scratch': {**MASKS, 'inits_masks': True, 'when': 'never'},
  'set': DYNAMIC,
  'momentum': {**DYNAMIC, 'gradient': 'dense'},
  'rigl': {
    **DYNAMIC,
    'gradient': 'dense',
    'replaces_step': True,
    'allows_gradient_grow_init': True,
  },
  'static': {**DYNAMIC, 'restarts_regrown': True},
  'snip': {**MASKS, 'gradient': 'applied', 'when': 'once', 'replaces_step': True},
  'dnw': {**MASKS, 'gradient': 'dense', 'when': 'always', 'trains_all_weights': True},
  'prune': {**MASKS, 'when': 'on_schedule', 'prunes_gradually': True},
}
TEXTS = ('description', 'paper')


def test_all_methods_are_expected_ones():
  assert set(methods.METHODS) == set(EXPECTED)


def test_the_cost_of_training_is_known_of_all_methods():
  assert set(training_flops.METHODS) == set(methods.METHODS)


@pytest.mark.parametrize('name', methods.METHODS)
def test_capabilities(name):
  method = methods.METHODS[name]
  fields = {field.name for field in dataclasses.fields(method)}
  capabilities = {
    key: getattr(method, key)
    for key in dir(method)
    if not key.startswith('_') and key not in fields and key not in TEXTS
  }
  assert {
    key: value for key, value in capabilities.items() if isinstance(value, (bool, str)) and value
  } == EXPECTED[name]


@pytest.mark.parametrize('name', methods.METHODS)
def test_description_fits_a_help_text_and_papers_are_links(name):
  method = methods.METHODS[name]
  assert method.description.strip() == method.description != ''
  assert '\n' not in method.description
  if name not in ('baseline', 'scratch'):
    assert method.paper.startswith('https://')


@pytest.mark.parametrize('name', methods.METHODS)
def test_a_method_cannot_be_changed(name):
  method = methods.METHODS[name]()
  with pytest.raises(dataclasses.FrozenInstanceError):
    method.seed = 1


# --- Updates ------------------------------------------------------------------

END_STEP, FRACTION, DECAY, SPARSITY = 20, 0.6, 0.25, 0.7


def make(name):
  """The method, without the noise that breaks ties."""
  method = methods.METHODS[name]
  if method.is_dynamic:
    return method(
      end_step=END_STEP,
      drop_fraction=FRACTION,
      drop_fraction_anneal='cosine',
      grow_init='random_uniform',
      noise_std=0.0,
    )
  if method.prunes_gradually:
    return method(target_sparsity=SPARSITY, ramp_end_step=END_STEP, threshold_decay=DECAY)
  return method()


def seed(purpose):
  return seeding.stable_seed('layer', purpose), 7


def random_layer(shape, rng):
  mask = (rng.rand(*shape) < 0.4).astype('f')
  weights, gradient, average = rng.randn(3, *shape).astype('f')
  # Scores that tie, as of connections that were just grown.
  weights.flat[:3] = gradient.flat[3:6] = 0.0
  drawn = np.asarray(stateless_random.uniform(mask, seed('grow')))
  return oracle.Layer(mask, weights, gradient, average, drawn, 0.3, SPARSITY)


@pytest.mark.parametrize(
  'mode, name, shape',
  combinations.thinned(execution_modes.EVERYWHERE, methods.METHODS, [(6, 5), (3, 3, 2, 4)]),
)
def test_update_equals_the_reference(mode, name, shape):
  method = make(name)
  layer = random_layer(shape, np.random.RandomState(len(shape)))
  steps = (0, 13)

  def update(mask, weights, gradient, average, step):
    state = {'momentum': average, 'prune': np.float32(layer.threshold)}.get(name)
    [update] = method.update(
      [methods.Layer(mask, weights, seed, lambda: gradient, state, layer.sparsity)], step
    )
    return [part for part in update if part is not None]

  found = execution_modes.run_each(
    mode, update, [(*layer[:4], np.array(step, np.int64)) for step in steps]
  )
  for step, got in zip(steps, found):
    expected = oracle.updated(name, layer, step, END_STEP, FRACTION, DECAY)
    np.testing.assert_array_equal(got[0], expected.mask)
    assert got[0].dtype == layer.mask.dtype
    if expected.restarted is not None:
      np.testing.assert_array_equal(got[1], expected.restarted)
    if expected.threshold is not None:
      np.testing.assert_allclose(got[-1], expected.threshold, rtol=1e-6)


class OwnScores(methods.RigL):
  """Scores that are not marked as elementwise, which those they override are."""

  def drop_score(self, layer):
    return abs(layer.weights - arrays.of(layer.weights).mean(layer.weights))

  def grow_score(self, layer):
    return abs(layer.gradient() - arrays.of(layer.weights).mean(layer.gradient()))


class OwnState(methods.SNFS):
  """A state of one number for a layer, and a marked score that does not use it."""

  @scores.elementwise
  def grow_score(self, layer):
    return -layer.weights


JOINED = [methods.RigL, methods.SNFS, methods.Static, methods.SET, OwnScores, OwnState]


@functools.cache
def layers_of(method_class):
  """[(mask, weights, gradient, state)]."""
  rng = np.random.RandomState(0)
  layers = [random_layer(shape, rng)[:4] for shape in [(6, 5), (3, 3, 2, 4)]]
  return [(*layer[:3], np.float32(0.5)) if method_class is OwnState else layer for layer in layers]


def update_all(method_class, *tensors):
  updates = method_class().update(
    [
      methods.Layer(mask, weights, seed, lambda gradient=gradient: gradient, state)
      for mask, weights, gradient, state in zip(*[iter(tensors)] * 4)
    ],
    5,
  )
  return [part for moved in updates for part in (moved.mask, moved.restarted)]


@functools.cache
def updates_alone(method_class):
  """In a graph, where layers are never joined."""
  update = functools.partial(update_all, method_class)
  return [
    part
    for layer in layers_of(method_class)
    for part in execution_modes.run(execution_modes.GRAPH, update, *layer)
  ]


@pytest.mark.parametrize(
  'mode, method_class', combinations.thinned(execution_modes.EVERYWHERE, JOINED)
)
def test_layers_together_are_updated_as_each_alone(mode, method_class):
  """Noise included, whether scores are computed on all layers at once or not."""
  together = execution_modes.run(
    mode,
    functools.partial(update_all, method_class),
    *[part for layer in layers_of(method_class) for part in layer],
  )
  for found, expected in zip(together, updates_alone(method_class), strict=True):
    np.testing.assert_array_equal(found, expected)


def own_method(base, name, score, is_marked=True):
  return type('Own', (base,), {name: scores.elementwise(score) if is_marked else score})


def two_layers(state_shape=()):
  """Layers of different sparsity, without a gradient."""
  rng = np.random.RandomState(0)
  return [
    methods.Layer(
      rng.randint(0, 2, shape).astype('float32'),
      rng.randn(*shape).astype('float32'),
      seed,
      lambda: None,
      np.zeros(state_shape, 'float32'),
      sparsity,
    )
    for shape, sparsity in [((6, 5), 0.5), ((4, 3), 0.7)]
  ]


@pytest.mark.parametrize(
  'score',
  [
    lambda _, layer: stateless_random.uniform(layer.mask, layer.seed('drop')),
    lambda _, layer: layer.weights * layer.sparsity,
    lambda _, layer: layer.weights - layer.initial_value(),
  ],
  ids=['seed', 'sparsity', 'initial_value'],
)
def test_a_marked_score_cannot_use_what_differs_between_layers(score, request):
  with pytest.raises(AttributeError, match=rf'no {request.node.callspec.id}\. Define .* without'):
    own_method(methods.SET, 'drop_score', score)().update(two_layers(), 5)


@pytest.mark.parametrize(
  'method_class, message',
  [
    (methods.SNFS, r'layer\.state, .* shape \(1, 5\), not .* mask, \(6, 5\)'),
    (methods.RigL, r'layer\.gradient\(\), .* is None, not .* \(6, 5\)'),
    (own_method(methods.SET, 'grow_score', lambda *_: 0.0, is_marked=False), 'is 0.0, not'),
    (
      own_method(methods.SET, 'drop_score', lambda _, layer: layer.weights.T, is_marked=False),
      r'shape \(5, 6\), not .* \(6, 5\)',
    ),
  ],
)
def test_what_has_another_shape_than_the_mask_is_no_score(method_class, message):
  with pytest.raises(ValueError, match=message):
    method_class().update(two_layers(state_shape=(1, 5)), 5)


@pytest.mark.parametrize('dtype', ['float64', 'float16', 'int32', 'bool'])
def test_a_marked_score_may_have_any_type(dtype):
  def ranks(_, layer):
    return (10 * layer.weights).astype(dtype)

  marked, other = (
    own_method(methods.SET, 'drop_score', ranks, is_marked)().update(two_layers(), 5)
    for is_marked in (True, False)
  )
  for found, expected in zip(marked, other, strict=True):
    np.testing.assert_array_equal(found.mask, expected.mask)


@pytest.mark.parametrize(
  'name, expected',
  [
    # Not one; at the start only; from begin to end, 3 apart; always.
    ('scratch', []),
    ('snip', [0]),
    ('rigl', [2, 5, 8]),
    ('set', [2, 5, 8]),
    ('prune', [3, 6, 9]),
    ('dnw', list(range(12))),
  ],
)
def test_steps_of_updates(name, expected):
  settings = (
    {} if name in ('scratch', 'snip', 'dnw') else {'begin_step': 2, 'end_step': 10, 'frequency': 3}
  )
  method = methods.METHODS[name](**settings)
  last, found = method.initial_last_update_step, []
  for step in range(12):
    if bool(method.is_update(np.int64(step), np.int64(last))):
      found.append(step)
      last = step
  assert found == expected


@pytest.mark.parametrize(
  'name, seen',
  [('rigl', 4), ('snip', 4), ('prune', 4), ('set', 5), ('momentum', 5), ('static', 5), ('dnw', 5)],
)
def test_methods_that_train_first_see_the_step_after(name, seen):
  assert int(methods.METHODS[name]().seen_step(np.int64(4))) == seen


def test_average_of_snfs_by_hand():
  method = methods.SNFS(momentum=0.75)
  state = method.first_state(np.ones([1], 'f'))
  for gradient, expected in ((4.0, 1.0), (8.0, 2.75)):
    state = method.next_state(state, np.array([gradient], 'f'))
    np.testing.assert_allclose(np.asarray(state), [expected])


def test_slots_of_rigl_start_at_the_scaled_gradient():
  layer = methods.Layer(None, None, gradient=lambda: np.array([2.0, -4.0], 'f'))
  start = np.array([0.5, 0.5], 'f')
  for scale, expected in ((0.0, [0.5, 0.5]), (0.25, [1.0, -0.5])):
    got = methods.RigL(initial_acc_scale=scale).new_slot(layer, start)
    np.testing.assert_allclose(np.asarray(got), expected)


@pytest.mark.parametrize(
  'wrong, words',
  [
    ({'drop_fraction': 1.5}, 'drop_fraction'),
    ({'drop_fraction_anneal': 'linear'}, 'constant, cosine'),
    ({'frequency': 0}, 'frequency'),
    ({'grow_init': 'ones'}, 'zeros'),
    ({'begin_step': 5, 'end_step': 3}, 'end_step'),
  ],
)
@pytest.mark.parametrize(
  'name', [name for name, method in methods.METHODS.items() if method.is_dynamic]
)
def test_wrong_hyperparameters_are_named(name, wrong, words):
  with pytest.raises(ValueError, match=words):
    methods.METHODS[name](**wrong)


def test_only_rigl_grows_by_the_gradient_at_once():
  assert methods.RigL(grow_init='grad_sign').grow_init == 'grad_sign'
  with pytest.raises(ValueError, match='grad_sign'):
    methods.SET(grow_init='grad_sign')

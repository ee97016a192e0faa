"""Invariants of every step, for all optimizers and backends."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

import rigl.keras as sparse
from rigl.core import grow_init
from tests import combinations
from tests.keras import small

WRAPPERS = ('LossScaleOptimizer', 'MultiOptimizer', 'Optimizer')
OPTIMIZERS = [
  name
  for name, value in sorted(vars(keras.optimizers).items())
  if inspect.isclass(value)
  and issubclass(value, keras.optimizers.Optimizer)
  and name not in WRAPPERS
]


def check_training(model, optimizer, compiled_with=None, checks_slots=True, **settings):
  """Trains and checks the zeros of weights and slots, and their numbers."""
  small.compiled(model, compiled_with or optimizer, **settings)
  x, labels = small.data(6)
  model.fit(x, labels, batch_size=32, verbose=0)
  counts = [mask.sum() for mask in small.masks(optimizer)]
  model.fit(x, labels, batch_size=32, verbose=0)
  small.check_zeros(model, optimizer)
  assert [mask.sum() for mask in small.masks(optimizer)] == counts
  assert counts
  for kernel in optimizer.kernels:
    mask = small.values([kernel.mask])[0]
    assert 0 < mask.sum() < mask.size
    if optimizer.method.trains_all_weights or not checks_slots:
      continue
    for slot in kernel.slots:
      value, start = small.values([slot.variable, slot.first_value()])
      np.testing.assert_array_equal(value[~mask], start[~mask])
  assert all(
    np.all(np.isfinite(v.astype('float32'))) for v in small.values(model.trainable_variables)
  )


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_all_optimizers_of_keras(name):
  # It divides 0 by 0 where whole rows and columns have no gradient, as those
  # of units that are off.
  settings = {'epsilon_1': 1e-12} if name == 'Adafactor' else {}
  inner = getattr(keras.optimizers, name)(learning_rate=0.01, **settings)
  # It makes its velocities anew at each step, from sums over whole rows.
  check_training(
    small.network(), small.optimizer('rigl', inner, frequency=3), checks_slots=name != 'Adafactor'
  )


@pytest.mark.parametrize(
  'settings, method',
  combinations.thinned(
    [
      {'use_ema': True},
      {'use_ema': True, 'ema_overwrite_frequency': 4},
      {'weight_decay': 0.01},
      {'clipnorm': 0.1},
      {'global_clipnorm': 0.1},
      {'clipvalue': 0.01},
      {'gradient_accumulation_steps': 3},
    ],
    ['rigl', 'set'],
  ),
)
def test_all_settings_of_an_optimizer(settings, method):
  check_training(small.network(), small.optimizer(method, small.sgd(**settings), frequency=3))


@pytest.mark.parametrize(
  'dtype, method',
  combinations.thinned(
    ['mixed_bfloat16', 'mixed_float16', 'float16', 'bfloat16'], ['rigl', 'dnw', 'momentum']
  ),
)
def test_all_types(dtype, method):
  before = keras.config.dtype_policy()
  keras.config.set_dtype_policy(dtype)
  try:
    model = small.network()
    optimizer = small.optimizer(method, small.sgd(learning_rate=0.01))
    check_training(model, optimizer)
  finally:
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
  'grow_init', [name for name in grow_init.GROW_INITS if name != 'initial_dist']
)
def test_all_values_of_new_connections(grow_init):
  check_training(small.network(), small.optimizer('rigl', grow_init=grow_init, frequency=2))


@pytest.mark.parametrize(
  'constraint',
  [keras.constraints.MaxNorm(0.5), keras.constraints.UnitNorm(), keras.constraints.NonNeg()],
  ids=lambda c: type(c).__name__,
)
def test_constraints(constraint):
  model = keras.Sequential(
    [keras.Input((12,)), keras.layers.Dense(8, kernel_constraint=constraint), keras.layers.Dense(5)]
  )
  check_training(model, small.optimizer('rigl', frequency=3))


def test_a_part_of_a_multi_optimizer():
  model = small.network()
  optimizer = small.optimizer('rigl', frequency=3)
  around = keras.optimizers.MultiOptimizer(
    keras.optimizers.OptimizerMap(optimizer, {'.*bias': keras.optimizers.Adam()})
  )
  check_training(model, optimizer, around)


def test_around_a_multi_optimizer():
  inner = keras.optimizers.MultiOptimizer(
    keras.optimizers.OptimizerMap(small.sgd(), {'.*kernel': keras.optimizers.Adam()})
  )
  optimizer = small.optimizer('rigl', inner, frequency=3)
  check_training(small.network(), optimizer)
  # Those of Adam are found, although it is made inside.
  assert [len(kernel.slots) for kernel in optimizer.kernels] == [2, 2, 2]


# {name: (layers, how many kernels of theirs and of the last layer are sparse)}.
LAYERS = {
  'convolutions': (
    lambda: [
      keras.Input((8, 8, 3)),
      keras.layers.Conv2D(8, 3),
      keras.layers.SeparableConv2D(8, 3),
      keras.layers.DepthwiseConv2D(3),
      keras.layers.Flatten(),
    ],
    3,
  ),
  'lstm': (lambda: [keras.Input((7,)), keras.layers.Embedding(50, 8), keras.layers.LSTM(8)], 3),
  'gru': (
    lambda: [keras.Input((7, 6)), keras.layers.Conv1DTranspose(8, 3), keras.layers.GRU(8)],
    4,
  ),
  'einsum': (
    lambda: [
      keras.Input((7, 6)),
      keras.layers.EinsumDense('abc,cde->abde', (7, 2, 4)),
      keras.layers.Flatten(),
    ],
    2,
  ),
}


@pytest.mark.parametrize('name, method', combinations.thinned(LAYERS, ['rigl', 'snip']))
def test_all_layers(name, method):
  layers, n_sparse = LAYERS[name]
  model = keras.Sequential([*layers(), keras.layers.Dense(5)])
  optimizer = small.optimizer(method, keras.optimizers.Adam())
  small.compiled(model, optimizer)
  rng = np.random.RandomState(0)
  x = rng.randint(0, 50, (64, *model.input_shape[1:])).astype('float32')
  model.fit(x, rng.randint(0, 5, 64).astype('int32'), batch_size=8, verbose=0)
  assert len(optimizer.kernels) == n_sparse
  for kernel in optimizer.kernels:
    mask, value = small.values([kernel.mask, kernel.variable])
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(value[~mask], 0)


@pytest.mark.parametrize('method', small.METHODS)
def test_an_embedding_that_a_function_chooses(method):
  """Its gradient is an IndexedSlices in TensorFlow."""
  model = keras.Sequential(
    [
      keras.Input((6,), dtype='int32'),
      keras.layers.Embedding(50, 8, name='tokens'),
      keras.layers.Flatten(),
      keras.layers.Dense(5),
    ]
  )
  settings = {'frequency': 2, 'end_step': 8} if method in (*small.DYNAMIC, 'prune') else {}
  optimizer = small.optimizer(
    method, distribution='uniform', filters=lambda v: 'tokens' in v.path, **settings
  )
  small.compiled(model, optimizer)
  rng = np.random.RandomState(0)
  x, labels = (rng.randint(0, n, shape).astype('int32') for n, shape in ((50, (96, 6)), (5, 96)))
  model.fit(x, labels, batch_size=8, verbose=0)
  [mask] = small.masks(optimizer)
  assert mask.shape == (50, 8) and mask.mean() == pytest.approx(1 - small.SPARSITY, abs=0.01)
  np.testing.assert_array_equal(small.kernels(model)[0][~mask], 0)


@pytest.mark.parametrize('chosen', ['names', 'variables'])
def test_weights_excluded_from_decay(chosen):
  model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(5)])
  kernel, bias = model.trainable_variables
  bias.assign(np.ones(5))
  optimizer = small.optimizer('scratch', keras.optimizers.AdamW(0.1, weight_decay=0.5))
  optimizer.exclude_from_weight_decay(
    **({'var_names': ['bias']} if chosen == 'names' else {'var_list': [bias]})
  )
  optimizer.build([kernel, bias])
  [before] = small.kernels(model)
  optimizer.apply([np.zeros(v.shape, 'float32') for v in (kernel, bias)], [kernel, bias])
  np.testing.assert_array_equal(small.values([bias])[0], 1.0)
  np.testing.assert_allclose(small.kernels(model)[0], 0.95 * before, rtol=1e-6)


def test_a_kernel_that_the_loss_does_not_depend_on_stays():
  inputs = keras.Input((12,))
  used, unused = keras.layers.Dense(5), keras.layers.Dense(6)
  model = keras.Model(inputs, [used(inputs), unused(inputs)])
  optimizer = small.optimizer('rigl', frequency=2, distribution='uniform')
  optimizer.build(model.trainable_variables)
  before = small.kernels(model)
  grads = [keras.ops.ones_like(v.value) for v in model.trainable_variables]
  grads[2:] = [None, None]
  with pytest.warns(UserWarning, match='Gradients do not exist'):
    for _ in range(3):
      optimizer.apply(grads, model.trainable_variables)
  after = small.kernels(model)
  assert np.any(after[0] != before[0])
  np.testing.assert_array_equal(after[1], before[1])


# --- One update ---------------------------------------------------------------


def one_update(optimizer_class, weights, gradient, mask, **settings):
  """(mask, weights) after an update of one kernel."""
  model = keras.Sequential(
    [keras.Input((weights.shape[0],)), keras.layers.Dense(weights.shape[1], use_bias=False)]
  )
  path = model.trainable_variables[0].path
  model.set_weights([weights * mask])
  optimizer = optimizer_class(
    small.sgd(learning_rate=0.0),
    sparsity=0.5,
    mask_init={path: mask},
    noise_std=0.0,
    drop_fraction=0.5,
    frequency=1,
    **settings,
  )
  optimizer.build(model.trainable_variables)
  optimizer.apply([keras.ops.convert_to_tensor(gradient)], model.trainable_variables)
  return small.masks(optimizer)[0], small.kernels(model)[0]


def test_rigl_by_hand():
  weights = np.array([[4.0, 3.0, 2.0, 1.0], [9.0, 9.0, 9.0, 9.0]], 'f')
  mask = np.array([[1, 1, 1, 1], [0, 0, 0, 0]])
  gradient = np.array([[0.0, 0.0, 0.0, 5.0], [-7.0, 6.0, 0.0, 1.0]], 'f')
  # Of the four the two smallest go, and -7 and 6 come.
  got, new = one_update(sparse.RigL, weights, gradient, mask)
  np.testing.assert_array_equal(got, [[1, 1, 0, 0], [1, 1, 0, 0]])
  np.testing.assert_array_equal(new, [[4, 3, 0, 0], [0, 0, 0, 0]])
  got, new = one_update(sparse.RigL, weights, gradient, mask, grow_init='grad_sign_2')
  np.testing.assert_array_equal(new, [[4, 3, 0, 0], [-0.5, 0.5, 0, 0]])


@pytest.mark.parametrize('seed', range(3))
def test_dropped_are_the_smallest_and_grown_have_the_largest_gradient(seed):
  rng = np.random.RandomState(seed)
  weights, gradient = rng.randn(2, 20, 30).astype('f')
  mask = rng.rand(20, 30) < 0.4
  got, _ = one_update(sparse.RigL, weights, gradient, mask)
  n_drop = mask.sum() // 2
  smallest = np.sort(np.abs(weights)[mask])[n_drop]
  kept = mask & (np.abs(weights) >= smallest)
  assert np.all(got[kept]) and kept.sum() == mask.sum() - n_drop
  # A connection that was dropped may come back at once.
  grown = got & ~kept
  assert grown.sum() == n_drop
  assert np.abs(gradient)[grown].min() >= np.abs(gradient)[~got].max()

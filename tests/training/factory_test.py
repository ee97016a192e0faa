"""Optimizers made from configs: class, arguments, behaviour."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rigl import sparse_optimizers
from rigl.compat import tf
from rigl.core import distributions, methods
from rigl.model_pruning import layers, pruning, sparse_layers
from rigl.training import factory, stop_at_nan
from rigl.training.config import SparsityConfig
from tests import sparse_net

CUSTOM_MAP = {'b': 0.5, 'c': 0.0}

# Every value differs from every default.
FIELDS = {
  'end_sparsity': 0.75,
  'mask_init_method': 'erdos_renyi_kernel',
  'erk_power_scale': 0.5,
  'drop_fraction': 0.4,
  'drop_fraction_anneal': 'exponential_3',
  'grow_init': 'random_normal_7',
  's_momentum': 0.6,
  'rigl_acc_scale': 0.25,
  'maskupdate_begin_step': 2,
  'maskupdate_end_step': 44,
  'maskupdate_frequency': 5,
  'pruning_begin_step': 3,
  'pruning_end_step': 33,
  'pruning_frequency': 4,
  'threshold_decay': 0.125,
  'seed': 17,
}

DYNAMIC = {
  'begin_step': 2,
  'end_step': 44,
  'frequency': 5,
  'drop_fraction': 0.4,
  'drop_fraction_anneal': 'exponential_3',
  'grow_init': 'random_normal_7',
}

# The expected method of each config.
EXPECTED = {
  'baseline': methods.Dense(),
  'scratch': methods.Scratch(),
  'set': methods.SET(**DYNAMIC),
  'static': methods.Static(**DYNAMIC),
  'momentum': methods.SNFS(**DYNAMIC, momentum=0.6),
  'rigl': methods.RigL(**DYNAMIC, initial_acc_scale=0.25),
  'snip': methods.SNIP(),
  'dnw': methods.DNW(),
  'prune': methods.GradualPruning(
    begin_step=3,
    end_step=33,
    frequency=4,
    target_sparsity=0.75,
    ramp_begin_step=3,
    ramp_end_step=33,
    threshold_decay=0.125,
  ),
}


pytestmark = pytest.mark.usefixtures('graph')


def config_of(method, **fields):
  return SparsityConfig(**{**FIELDS, 'training_method': method, **fields})


def build(method, custom_map=CUSTOM_MAP, scopes='abc', pruning_hparams='', **fields):
  """Three layers and the train op; returns (train op, optimizer, config)."""
  config = config_of(method, **fields)
  outputs = tf.constant(np.random.RandomState(0).normal(size=[8, 10]).astype(np.float32))
  for scope, n_units in zip(scopes, (20, 12, 4)):
    if config.method.uses_masks:
      outputs = layers.masked_fully_connected(outputs, n_units, scope=scope)
    else:
      outputs = sparse_layers.sparse_fully_connected(
        outputs, n_units, name=scope, dense_names=('weights', 'biases')
      )
  loss = tf.reduce_mean(tf.square(outputs - 1.0))
  optimizer = factory.make_optimizer(
    config,
    tf.train.MomentumOptimizer(0.05, 0.9),
    custom_sparsity_map=custom_map,
    pruning_hparams=pruning_hparams,
  )
  train_op = factory.make_train_op(
    optimizer, loss, tf.train.get_or_create_global_step(), not_finite=stop_at_nan.NotFiniteHook('')
  )
  return train_op, optimizer, config


def run(train_op, n_runs):
  """Runs the op; returns the sparsity of each layer."""
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(n_runs):
      session.run(train_op)
    masks = session.run(pruning.get_masks())
    step = session.run(tf.train.get_global_step())
  return [1.0 - mask.mean() for mask in masks], step


# --- make_inner_optimizer ----------------------------------------------------


INNER_CLASSES = {
  'sgd': tf.train.GradientDescentOptimizer,
  'momentum': tf.train.MomentumOptimizer,
  'adam': tf.train.AdamOptimizer,
  'rmsprop': tf.train.RMSPropOptimizer,
  'adagrad': tf.train.AdagradOptimizer,
}


@pytest.mark.parametrize('name', factory.INNER_OPTIMIZERS)
def test_inner_optimizer_class(name):
  inner = factory.make_inner_optimizer(name, 0.1, 0.9, True)
  assert type(inner) is INNER_CLASSES[name]


def steps_of(name, use_nesterov, n_steps=3):
  """Values of a weight whose gradient is 1, from 0."""
  weight = tf.get_variable(f'{name}_{use_nesterov}', [], initializer=tf.zeros_initializer())
  train_op = factory.make_inner_optimizer(name, tf.constant(0.1), 0.5, use_nesterov).minimize(
    weight
  )
  values = []
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(n_steps):
      session.run(train_op)
      values.append(session.run(weight))
  return values


@pytest.mark.parametrize(
  'name, use_nesterov, expected',
  [
    ('sgd', False, [-0.1, -0.2, -0.3]),
    # Velocities 1, 1.5, 1.75.
    ('momentum', False, [-0.1, -0.25, -0.425]),
    # Moves by gradient + 0.5 * velocity: 1.5, 1.75, 1.875.
    ('momentum', True, [-0.15, -0.325, -0.5125]),
    ('adam', False, [-0.1, -0.2, -0.3]),
    # Accumulators 1.1, 2.1, 3.1.
    ('adagrad', False, [-0.0953463, -0.1643528, -0.2211490]),
    # Mean squares 1.0, 1.0, 1.0; velocities as above.
    ('rmsprop', False, [-0.1, -0.25, -0.425]),
  ],
)
def test_inner_optimizer_by_hand(name, use_nesterov, expected):
  np.testing.assert_allclose(steps_of(name, use_nesterov), expected, rtol=1e-5)


def test_unknown_inner_optimizer_is_named():
  with pytest.raises(ValueError, match="optimizer 'lion'") as error:
    factory.make_inner_optimizer('lion', 0.1, 0.9, True)
  for name in factory.INNER_OPTIMIZERS:
    assert name in str(error.value)


# --- make_optimizer ----------------------------------------------------------


def test_every_method_is_expected():
  assert set(EXPECTED) == set(methods.METHODS)


@pytest.mark.parametrize('name', methods.METHODS)
def test_method_gets_every_hyperparameter(name):
  assert config_of(name).make_method() == EXPECTED[name]


@pytest.mark.parametrize('name', ['set', 'static', 'momentum', 'rigl'])
def test_method_is_told_all_it_can_be_told(name):
  """A new field of a method is either a setting or listed here."""
  default = methods.METHODS[name]()
  made = config_of(name).make_method()
  assert {
    field.name
    for field in dataclasses.fields(made)
    if getattr(made, field.name) == getattr(default, field.name)
  } == {'noise_std'}


@pytest.mark.parametrize('name', methods.METHODS)
def test_optimizer_moves_masks_by_the_method(name):
  inner = tf.train.MomentumOptimizer(0.1, 0.9)
  optimizer = factory.make_optimizer(config_of(name), inner)
  if name in ('baseline', 'scratch'):
    assert optimizer is inner
  elif name == 'prune':
    assert isinstance(optimizer, sparse_optimizers.GradualPruningOptimizer)
  else:
    assert optimizer.method == EXPECTED[name]


@pytest.mark.parametrize('name', ['snip', 'dnw'])
@pytest.mark.parametrize(
  'mask_init_method, power_scale', [('random', 1.0), ('erdos_renyi_kernel', 0.5)]
)
def test_masks_set_at_once_have_the_sparsities_of_the_config(name, mask_init_method, power_scale):
  custom = {'b': 0.5}
  train_op, _, config = build(
    name, custom, mask_init_method=mask_init_method, erk_power_scale=power_scale
  )
  shapes = {'a': (10, 20), 'b': (20, 12), 'c': (12, 4)}
  expected = distributions.get_sparsities(
    shapes, mask_init_method, config.end_sparsity, custom, power_scale
  )
  sparsities, _ = run(train_op, 1)
  for (layer, shape), sparsity in zip(shapes.items(), sparsities):
    size = shape[0] * shape[1]
    assert round(sparsity * size) == distributions.get_n_zeros(size, expected[layer]), layer


@pytest.mark.parametrize('name', ['snip', 'dnw'])
def test_unknown_layer_in_the_custom_map_is_named(name):
  with pytest.raises(ValueError, match='no_layer'):
    build(name, {'no_layer': 0.5})


@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_builds_and_steps(name):
  train_op, _, config = build(name)
  sparsities, step = run(train_op, 4)
  assert step == (3 if config.method.replaces_step else 4)
  assert len(sparsities) == (3 if config.method.uses_masks else 0)
  # Only gradual pruning has a counter of its own.
  assert config.method.prunes_gradually == any(
    v.op.name.startswith('model_pruning/') for v in tf.global_variables()
  )


@pytest.mark.parametrize(
  'name',
  [
    name for name, method in methods.METHODS.items() if method.uses_masks and not method.inits_masks
  ],
)
def test_methods_that_make_their_masks_can_make_them_dense(name):
  train_op, _, _ = build(
    name,
    end_sparsity=0.0,
    custom_map={'b': 0.0, 'c': 0.0},
    pruning_begin_step=0,
    pruning_end_step=2,
    pruning_frequency=1,
  )
  sparsities, _ = run(train_op, 3)
  assert not any(sparsities)


# --- Gradual pruning ---------------------------------------------------------


def test_pruning_hparams_hold_the_config():
  hparams = factory.pruning_hparams_of(config_of('prune'), CUSTOM_MAP)
  assert hparams == pruning.PruningHParams(
    begin_pruning_step=3,
    end_pruning_step=33,
    pruning_frequency=4,
    threshold_decay=0.125,
    initial_sparsity=0.0,
    target_sparsity=0.75,
    sparsity_function_begin_step=3,
    sparsity_function_end_step=33,
    weight_sparsity_map=('^b/:0.5', '^c/:0.0'),
  )
  assert factory.pruning_hparams_of(config_of('prune')).weight_sparsity_map == ()


def test_hparams_of_the_user_win_over_the_config():
  train_op, _, _ = build(
    'prune',
    None,
    pruning_begin_step=1,
    pruning_end_step=6,
    pruning_frequency=1,
    threshold_decay=0.0,
    pruning_hparams='target_sparsity=0.25,sparsity_function_end_step=3',
  )
  np.testing.assert_allclose(run(train_op, 4)[0], [0.25] * 3, atol=0.01)


def test_unknown_hparam_is_named():
  with pytest.raises(ValueError, match='no_such_hparam'):
    build('prune', pruning_hparams='no_such_hparam=1')


def test_gradual_pruning_reaches_the_sparsity_of_each_layer():
  train_op, _, _ = build(
    'prune', pruning_begin_step=1, pruning_end_step=6, pruning_frequency=1, threshold_decay=0.0
  )
  sparsities, step = run(train_op, 8)
  assert step == 8
  np.testing.assert_allclose(sparsities, [0.75, 0.5, 0.0])


def test_gradual_pruning_goes_by_the_step_before_the_gradient():
  train_op, _, _ = build(
    'prune',
    None,
    pruning_begin_step=0,
    pruning_end_step=3,
    pruning_frequency=1,
    threshold_decay=0.0,
  )
  n_zeros = []
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(5):
      session.run(train_op)
      n_zeros.append(np.sum(session.run(pruning.get_masks()[0]) == 0.0))
  # Layer a has 200 weights; the first run begins at step 0 of 3, and the last
  # update before it counts as one at step 0.
  assert n_zeros == [round(200 * 0.75 * (1 - (1 - t / 3) ** 3)) for t in (0, 1, 2, 3, 3)]


def test_custom_map_of_pruning_means_whole_names():
  """The entry of `b` says nothing about `b2`, or about `a.b` and `a_b`."""
  train_op, _, _ = build(
    'prune',
    {'b': 0.0},
    scopes=('b', 'b2', 'x_b'),
    pruning_begin_step=0,
    pruning_end_step=1,
    pruning_frequency=1,
    threshold_decay=0.0,
  )
  np.testing.assert_allclose(run(train_op, 2)[0], [0.0, 0.75, 0.75], atol=0.01)


def test_custom_map_of_pruning_takes_names_literally():
  train_op, _, _ = build(
    'prune',
    {'x.b': 0.0},
    scopes=('x.b', 'x_b', 'c'),
    pruning_begin_step=0,
    pruning_end_step=1,
    pruning_frequency=1,
    threshold_decay=0.0,
  )
  np.testing.assert_allclose(run(train_op, 2)[0], [0.0, 0.75, 0.75], atol=0.01)


@pytest.mark.parametrize(
  'method, total_steps, hparams, words',
  [
    ('prune', 34, '', []),
    (
      'prune',
      33,
      '',
      [
        'prune reaches end_sparsity=0.75 in the training step '
        'after step 33, but training ends at step 33.'
      ],
    ),
    ('prune', 33, 'sparsity_function_end_step=32', []),
    (
      'prune',
      33,
      'target_sparsity=0.5,sparsity_function_end_step=40',
      [
        'prune reaches end_sparsity=0.5 in the training step after step 40, but '
        'training ends at step 33.'
      ],
    ),
    ('rigl', 1, '', []),
  ],
)
def test_pruning_that_does_not_get_to_its_end_is_warned_of(
  method, total_steps, hparams, words, monkeypatch
):
  found = []
  monkeypatch.setattr(factory.logging, 'warning', lambda text, *values: found.append(text % values))
  factory.warn_of_late_pruning(config_of(method), total_steps, hparams)
  assert found == words


@pytest.mark.parametrize(
  'inner, scale, is_warned',
  [
    (tf.train.AdamOptimizer(), 0.5, True),
    (tf.train.AdamOptimizer(), 0.0, False),
    (tf.train.MomentumOptimizer(0.1, 0.9), 0.5, False),
  ],
)
def test_slots_that_must_not_become_negative_are_warned_of(inner, scale, is_warned, monkeypatch):
  said = []
  monkeypatch.setattr(factory.logging, 'warning', lambda text, *values: said.append(text % values))
  factory.make_optimizer(SparsityConfig(training_method='rigl', rigl_acc_scale=scale), inner)
  assert [text.split()[0] for text in said] == (['rigl_acc_scale=0.5'] if is_warned else [])

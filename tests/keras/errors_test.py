"""Errors name the wrong argument, the options and a remedy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import rigl.keras as sparse
from tests.keras import small


class NotOfKeras:
  pass


def built_sgd():
  inner = small.sgd()
  inner.build(small.network().trainable_variables)
  return inner


@pytest.mark.parametrize(
  'inner, words',
  [
    (lambda: 'adam', r"keras.optimizers.get\('adam'\)"),
    (NotOfKeras, 'optimizer of Keras 3.*NotOfKeras'),
    (lambda: keras.optimizers.Adam, r'the class Adam. Call it: Adam\(\)'),
    (
      lambda: keras.optimizers.LossScaleOptimizer(small.sgd()),
      r'other way round.*LossScaleOptimizer\(RigL',
    ),
    (built_sgd, 'not built yet.*from_config'),
    (lambda: sparse.SET(small.sgd()), r'dense networks, got SET.*RigL\(keras'),
  ],
  ids=['name', 'other', 'class', 'scaled', 'built', 'sparse'],
)
def test_inner_optimizers_that_cannot_be_wrapped(inner, words):
  with pytest.raises(ValueError, match=words):
    sparse.RigL(inner())


@pytest.mark.parametrize(
  'settings, words',
  [
    ({'sparsity': 1.5}, r'sparsity must be in \[0, 1\], got 1.5'),
    ({'sparsity': {'dense': -1.0}}, r"sparsity of 'dense' must be in \[0, 1\]"),
    ({'custom_sparsities': {'dense': 2.0}}, r"sparsities of 'dense' must be in \[0, 1\]"),
    ({'sparsity': {0: 0.5}}, r'sparsity must be \{name.*got \{0: 0.5\}'),
    ({'custom_sparsities': {0: 0.5}}, r'sparsities must be \{name.*got \{0: 0.5\}'),
    ({'custom_sparsities': ['a']}, r"sparsities must be \{name.*got \['a'\]"),
    ({'filters': 3}, 'filters must be a regular expression, a list.*function.*got 3'),
    ({'filters': ['a', 3]}, r"filters must be.*got \['a', 3\]"),
    ({'distribution': 'str'}, 'uniform, erdos_renyi, erdos_renyi_kernel'),
    ({'sparsity': {'a': 0.5}, 'custom_sparsities': {'b': 0.5}}, 'one number'),
    ({'mask_init': 'ones'}, 'random, magnitude'),
    ({'seed': 0.5}, 'seed must be an integer'),
    ({'frequency': 0}, 'frequency'),
    ({'drop_fraction': 2.0}, 'drop_fraction'),
    ({'grow_init': 'initial_dist'}, 'does not keep.*zeros, random_normal'),
  ],
)
def test_values_out_of_range(settings, words):
  with pytest.raises(ValueError, match=words):
    sparse.RigL(small.sgd(), **settings)


@pytest.mark.parametrize('method', small.METHODS)
def test_unknown_arguments_list_the_known(method):
  with pytest.raises(
    TypeError, match=("'sparcity'.*takes.*sparsity, distr.* Did you mean sparsity.$")
  ):
    small.METHODS[method](small.sgd(), sparcity=0.5)


@pytest.mark.parametrize('argument', ['use_ema', 'learning_rate', 'gradient_accumulation_steps'])
def test_arguments_of_the_inner_optimizer(argument):
  with pytest.raises(TypeError, match=f"'{argument}'.*inner optimizer its own"):
    sparse.RigL(small.sgd(), **{argument: 1})


@pytest.mark.parametrize('method', ['snip', 'dnw', 'prune'])
def test_largest_weights_of_a_method_that_starts_dense(method):
  with pytest.raises(ValueError, match='magnitude.*no effect on .*starts dense'):
    small.optimizer(method, mask_init='magnitude')


@pytest.mark.parametrize(
  'settings, words',
  [
    ({'sparsity': {'no_such': 0.5}}, "'no_such'.*none.*dense.*/kernel"),
    ({'custom_sparsities': {'no_such': 0.5}}, 'custom_sparsities names'),
    ({'sparsity': {'ense': 0.5}}, r"'ense', which matches none.*write 'ense\.\*'"),
    ({'sparsity': {'bias': 0.5}}, "'bias', which matches none.*need a function as filters"),
    ({'filters': 'no_such'}, "filters names 'no_such'.*none.*dense.*/kernel"),
    ({'filters': ['kernel', 'no_such']}, "filters names 'no_such'"),
    ({'filters': '*'}, r"filters has '\*'.*nor a regular expression"),
    ({'sparsity': {'*': 0.5}}, r"sparsity has '\*'"),
    (
      {'custom_sparsities': {'kernel': 0.5, '.*': 0.0}},
      r"custom_sparsities of '.\*' has no effect.*kernel",
    ),
    ({'mask_init': {'other': np.ones(3)}}, 'no mask for .*/kernel, only for o'),
  ],
)
def test_what_matches_no_kernel(settings, words):
  optimizer = sparse.RigL(small.sgd(), **settings)
  with pytest.raises(ValueError, match=words):
    optimizer.build(small.network().trainable_variables)


def test_a_given_mask_of_another_shape():
  variables = small.network().trainable_variables
  optimizer = sparse.RigL(small.sgd(), mask_init={v.path: np.ones((3, 3)) for v in variables})
  with pytest.raises(ValueError, match=r'has shape \(3, 3\).*\(12, 24\)'):
    optimizer.build(variables)


def test_a_model_without_kernels():
  model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
  with pytest.raises(ValueError, match='no kernel.*last two dimensions is 1'):
    sparse.RigL(small.sgd()).build(model.trainable_variables)


def test_schedules_that_cannot_be():
  for method, words in (
    ('prune', r'end_step \(5\) must be > begin_step'),
    ('rigl', r'end_step \(5\) must not lie before'),
  ):
    with pytest.raises(ValueError, match=words):
      small.optimizer(method, begin_step=10, end_step=5)


def test_variables_that_came_later():
  model, other = small.network(), small.network()
  optimizer = small.optimizer('rigl')
  model.layers[0].trainable = False
  small.compiled(model, optimizer)
  x, labels = small.data(1)
  model.fit(x, labels, verbose=0)
  model.layers[0].trainable = True
  small.compiled(model, optimizer)
  # On JAX, Keras itself raises first.
  words = (
    'without .*/kernel.*new optimizer' if (keras.backend.backend() != 'jax') else 'with 4 variables'
  )
  with pytest.raises(ValueError, match=f'built {words}'):
    model.fit(x, labels, verbose=0)
  with pytest.raises(ValueError, match='built without'):
    optimizer.build(other.trainable_variables)


def test_a_gradient_too_few():
  optimizer = small.optimizer('rigl')
  variables = small.network().trainable_variables
  with pytest.raises(ValueError, match=f'got 1 gradients for {len(variables)} variables'):
    optimizer.apply([np.zeros(variables[0].shape, 'float32')], variables)


def test_gradients_before_build():
  with pytest.raises(ValueError, match=r'build\(model.trainable_variables\)'):
    small.optimizer('rigl').apply([1.0])


@pytest.mark.skipif(
  keras.backend.backend() != 'tensorflow', reason='elsewhere weights always have a value'
)
def test_magnitudes_of_weights_that_there_are_not_yet():
  model = small.compiled(
    small.network(has_input=False), small.optimizer('rigl', mask_init='magnitude')
  )
  x, labels = small.data(1)
  with pytest.raises(ValueError, match="'magnitude'.*Build the model first"):
    model.train_on_batch(x, labels)


def test_cosine_without_an_end_warns(caplog):
  sparse.RigL(small.sgd(), drop_fraction_anneal='cosine', end_step=-1)
  assert 'needs an end' in caplog.text.replace('\n', ' ')


def test_backends_that_cannot_train_are_named(monkeypatch):
  from rigl.keras import backends

  monkeypatch.setattr(keras.backend, 'backend', lambda: 'numpy')
  backends.current.cache_clear()
  try:
    with pytest.raises(ValueError, match="tensorflow, jax, torch, not on 'nu"):
      small.optimizer('rigl')
  finally:
    backends.current.cache_clear()


def test_help_shows_the_hyperparameters():
  import inspect

  assert {'sparsity', 'frequency', 'drop_fraction', 'initial_acc_scale'} <= set(
    inspect.signature(sparse.RigL).parameters
  )
  pruning = inspect.signature(sparse.GradualPruning).parameters
  assert 'initial_sparsity' in pruning and 'target_sparsity' not in pruning

"""The table of methods: each row and what it claims about its optimizer."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from rigl import sparse_optimizers, sparse_optimizers_base
from rigl.micronet import training_flops
from rigl.training import methods
from rigl.training.config import SparsityConfig

# Optimizer class and the capabilities that are True, by algorithm. A method
# that is new in the table fails the tests until it has a row here.
EXPECTED = {
    'baseline': (None, set()),
    'scratch': (None, {'uses_masks', 'inits_masks'}),
    'set': (sparse_optimizers.SparseSETOptimizer,
            {'uses_masks', 'inits_masks', 'is_dynamic'}),
    'momentum': (sparse_optimizers.SparseMomentumOptimizer,
                 {'uses_masks', 'inits_masks', 'is_dynamic',
                  'uses_dense_gradient'}),
    'rigl': (sparse_optimizers.SparseRigLOptimizer,
             {'uses_masks', 'inits_masks', 'is_dynamic',
              'uses_dense_gradient', 'allows_gradient_grow_init',
              'skips_gradient_on_update'}),
    'static': (sparse_optimizers.SparseStaticOptimizer,
               {'uses_masks', 'inits_masks', 'is_dynamic'}),
    'snip': (sparse_optimizers.SparseSnipOptimizer,
             {'uses_masks', 'uses_dense_gradient'}),
    'dnw': (sparse_optimizers.SparseDNWOptimizer,
            {'uses_masks', 'uses_dense_gradient'}),
    'prune': (None, {'uses_masks', 'prunes_gradually'}),
}


def test_all_methods_are_expected_ones():
  assert set(methods.METHODS) == set(EXPECTED)


def test_the_cost_of_training_is_known_of_all_methods():
  assert set(training_flops.METHODS) == set(methods.METHODS)


@pytest.mark.parametrize('name', methods.METHODS)
def test_row(name):
  method = methods.METHODS[name]
  optimizer_class, capabilities = EXPECTED[name]
  assert method.optimizer_class is optimizer_class
  assert {
      field.name for field in dataclasses.fields(method)
      if getattr(method, field.name) is True} == capabilities


@pytest.mark.parametrize('name', methods.METHODS)
def test_row_agrees_with_its_class(name):
  method = methods.METHODS[name]
  optimizer_class = method.optimizer_class or object
  assert method.is_dynamic == issubclass(
      optimizer_class, sparse_optimizers_base.SparseSETOptimizerBase)
  assert method.uses_dense_gradient == issubclass(
      optimizer_class, sparse_optimizers_base.DenseGradientMixin)
  assert method.skips_gradient_on_update == issubclass(
      optimizer_class, sparse_optimizers_base.SparseRigLOptimizerBase)
  if method.optimizer_class is None:
    assert not method.hyperparameters
    return
  parameters = inspect.signature(optimizer_class).parameters
  if 'args' not in parameters:
    assert set(method.hyperparameters) <= set(parameters)
    assert method.uses_dense_gradient == ('use_tpu' in parameters)


@pytest.mark.parametrize('name', methods.METHODS)
def test_hyperparameters_are_fields_of_the_config(name):
  fields = {field.name for field in dataclasses.fields(SparsityConfig)}
  assert set(methods.METHODS[name].hyperparameters.values()) <= fields


def test_methods_of_one_hyperparameter_each():
  assert methods.METHODS['rigl'].hyperparameters == {
      'initial_acc_scale': 'rigl_acc_scale'}
  assert methods.METHODS['momentum'].hyperparameters == {
      'momentum': 's_momentum'}


@pytest.mark.parametrize('name', methods.METHODS)
def test_description_fits_a_help_text_and_papers_are_links(name):
  method = methods.METHODS[name]
  assert method.description.strip() == method.description != ''
  assert '\n' not in method.description
  if name not in ('baseline', 'scratch'):
    assert method.paper.startswith('https://')


def test_rows_cannot_be_changed():
  with pytest.raises(dataclasses.FrozenInstanceError):
    methods.METHODS['rigl'].is_dynamic = False

"""The table of methods: each row and what it claims about its optimizer."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from rigl import sparse_optimizers
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
                  'uses_gradient'}),
    'rigl': (sparse_optimizers.SparseRigLOptimizer,
             {'uses_masks', 'inits_masks', 'is_dynamic',
              'uses_gradient', 'allows_gradient_grow_init',
              'skips_gradient_on_update'}),
    'static': (sparse_optimizers.SparseStaticOptimizer,
               {'uses_masks', 'inits_masks', 'is_dynamic'}),
    'snip': (sparse_optimizers.SparseSnipOptimizer,
             {'uses_masks', 'uses_gradient'}),
    'dnw': (sparse_optimizers.SparseDNWOptimizer,
            {'uses_masks', 'uses_gradient'}),
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
  assert {name for name in dir(method)
          if getattr(method, name) is True} == capabilities


def test_a_row_takes_from_its_class_what_the_method_can_do():
  row = methods.Method(
      'a RigL', optimizer=sparse_optimizers.SparseRigLOptimizer)
  assert (row.is_dynamic and row.uses_gradient and
          row.allows_gradient_grow_init and row.skips_gradient_on_update)


@pytest.mark.parametrize('name', methods.METHODS)
def test_optimizer_class_takes_its_hyperparameters(name):
  method = methods.METHODS[name]
  if method.optimizer_class is None:
    assert not method.hyperparameters
    return
  parameters = inspect.signature(method.optimizer_class).parameters
  assert set(method.hyperparameters) <= set(parameters)


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

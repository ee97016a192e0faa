"""SparsityConfig: every field is checked, and scaled() scales what it should."""

from __future__ import annotations

import dataclasses
import math

import pytest

from rigl.core import distributions, methods
from rigl.training.config import SparsityConfig

NAN = math.nan

# (fields, words that the message must hold). The first field is the one whose
# check is tested.
BAD = [
  ({'training_method': 'lottery'}, ['training_method', "'lottery'", *methods.METHODS]),
  ({'training_method': ''}, ['training_method', "''"]),
  *[
    ({'end_sparsity': value}, ['end_sparsity', '[0, 1)', str(value)])
    for value in (-0.1, 1.0, 1.5, NAN)
  ],
  ({'mask_init_method': 'gauss'}, ['mask_init_method', "'gauss'", *distributions.DISTRIBUTIONS]),
  *[({'erk_power_scale': value}, ['erk_power_scale', str(value)]) for value in (-1.0, NAN)],
  *[
    ({'drop_fraction': value}, ['drop_fraction', '[0, 1]', str(value)])
    for value in (-0.1, 1.1, NAN)
  ],
  *[
    (
      {'drop_fraction_anneal': value},
      ['drop_fraction_anneal', repr(value), 'constant', 'cosine', 'exponential'],
    )
    for value in ('linear', '', 'exponential_', 'cosine_2', 'Cosine')
  ],
  ({'grow_init': 'ones'}, ['grow_init', "'ones'", 'zeros', 'initial_dist']),
  ({'grow_init': 'random_normal_0'}, ['random_normal_0', 'zero']),
  *[
    ({'grow_init': 'grad_scale', 'training_method': method}, ['grow_init', "'grad_scale'", 'zeros'])
    for method in ('set', 'static', 'momentum')
  ],
  *[({'s_momentum': value}, ['s_momentum', '[0, 1)', str(value)]) for value in (-0.1, 1.0, NAN)],
  ({'rigl_acc_scale': NAN}, ['rigl_acc_scale', 'nan']),
  ({'maskupdate_begin_step': -1}, ['maskupdate_begin_step', '-1']),
  (
    {'maskupdate_end_step': 9, 'maskupdate_begin_step': 10},
    ['maskupdate_end_step=9', 'maskupdate_begin_step=10'],
  ),
  *[({'maskupdate_frequency': value}, [f'maskupdate_frequency={value}', '0']) for value in (0, -5)],
  ({'pruning_begin_step': -1}, ['pruning_begin_step', '-1']),
  *[
    (
      {'pruning_end_step': end, 'pruning_begin_step': 70, 'training_method': 'prune'},
      ['70', str(end), 'end', 'begin'],
    )
    for end in (70, 69, -1)
  ],
  *[({'pruning_frequency': value}, ['pruning_frequency', str(value)]) for value in (0, -5)],
  *[
    ({'threshold_decay': value}, ['threshold_decay', '[0, 1)', str(value)])
    for value in (-0.1, 1.0, NAN)
  ],
  ({'seed': -1}, ['seed', '-1']),
]

# Combinations that mean nothing: an annealing falls towards an end.
BAD_ANNEALS = [
  (
    {
      'training_method': method,
      'drop_fraction_anneal': anneal,
      'maskupdate_begin_step': 5,
      'maskupdate_end_step': end,
    }
  )
  for method, row in methods.METHODS.items()
  if row.is_dynamic
  for anneal in ('cosine', 'exponential_3')
  for end in (-1, 5)
]

NOT_DEFAULT = {
  'training_method': 'rigl',
  'end_sparsity': 0.1 + 0.2,
  'mask_init_method': 'erdos_renyi_kernel',
  'erk_power_scale': 0.5,
  'drop_fraction': 1 / 3,
  'drop_fraction_anneal': 'exponential_2.5',
  'grow_init': 'grad_sign_10',
  's_momentum': 0.75,
  'rigl_acc_scale': 1e-7,
  'maskupdate_begin_step': 7,
  'maskupdate_end_step': 101,
  'maskupdate_frequency': 3,
  'pruning_begin_step': 11,
  'pruning_end_step': 31,
  'pruning_frequency': 13,
  'threshold_decay': 0.25,
  'seed': 4,
}


def _field_names():
  return {field.name for field in dataclasses.fields(SparsityConfig)}


@pytest.mark.parametrize(
  'fields, words',
  BAD,
  ids=lambda value: '-'.join(map(str, value.items())) if isinstance(value, dict) else '',
)
def test_bad_value_is_named(fields, words):
  with pytest.raises(ValueError) as error:
    SparsityConfig(**fields)
  for word in words:
    assert word in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('fields', BAD_ANNEALS)
def test_annealing_without_an_end_is_refused(fields):
  with pytest.raises(ValueError, match='drop_fraction_anneal') as error:
    SparsityConfig(**fields)
  assert fields['drop_fraction_anneal'] in str(error.value)
  assert str(fields['maskupdate_end_step']) in str(error.value)
  assert 'constant' in str(error.value)
  # Nothing anneals here, so nothing needs an end.
  SparsityConfig(**{**fields, 'drop_fraction_anneal': 'constant'})
  SparsityConfig(**{**fields, 'training_method': 'snip'})


def test_every_field_is_in_the_tables():
  assert {next(iter(fields)) for fields, _ in BAD} == _field_names()
  assert set(NOT_DEFAULT) == _field_names()
  defaults = dataclasses.asdict(SparsityConfig())
  assert not [name for name in defaults if defaults[name] == NOT_DEFAULT[name]]


@pytest.mark.parametrize(
  'fields',
  [
    {'end_sparsity': 0.0},
    {'end_sparsity': 0.9999},
    {'drop_fraction': 0.0},
    {'drop_fraction': 1.0},
    {'s_momentum': 0.0},
    {'threshold_decay': 0.0},
    {'erk_power_scale': 0.0},
    {'maskupdate_end_step': -1},
    {'maskupdate_begin_step': 10, 'maskupdate_end_step': 10},
    {'maskupdate_frequency': 1},
    {'pruning_frequency': 1},
    {'grow_init': 'grad_scale_2', 'training_method': 'rigl'},
    # Only `prune` has a pruning schedule.
    {'pruning_begin_step': 9, 'pruning_end_step': 3, 'training_method': 'rigl'},
    NOT_DEFAULT,
  ],
)
def test_values_at_the_edge_are_accepted_and_kept(fields):
  config = SparsityConfig(**fields)
  for name, value in fields.items():
    assert getattr(config, name) == value


def test_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    SparsityConfig().end_sparsity = 0.5


class OwnPruning(methods.GradualPruning):
  """Its update would be ignored, since pruning in graphs has one of its own."""


def test_a_method_that_is_added_later(monkeypatch):
  with pytest.raises(ValueError, match="'own' is not one of"):
    SparsityConfig(training_method='own')
  monkeypatch.setitem(methods.METHODS, 'own', methods.RigL)
  assert SparsityConfig(training_method='own').method is methods.RigL
  monkeypatch.setitem(methods.METHODS, 'own', OwnPruning)
  with pytest.raises(ValueError, match="'own' derives from GradualPruning.*rigl.keras"):
    SparsityConfig(training_method='own')


@pytest.mark.parametrize('method', methods.METHODS)
def test_method_is_the_row_of_the_table(method):
  config = SparsityConfig(training_method=method)
  assert config.method is methods.METHODS[method]


def test_update_schedule_holds_the_three_hyperparameters():
  schedule = SparsityConfig(**NOT_DEFAULT).update_schedule
  assert (schedule.begin_step, schedule.end_step, schedule.frequency) == (7, 101, 3)


def test_scaled_changes_begins_and_ends_and_nothing_else():
  config = SparsityConfig(**NOT_DEFAULT)
  assert config.scaled(1.5) == dataclasses.replace(
    config,
    maskupdate_begin_step=10,
    maskupdate_end_step=151,
    pruning_begin_step=16,
    pruning_end_step=46,
  )
  assert config.scaled(5) == dataclasses.replace(
    config,
    maskupdate_begin_step=35,
    maskupdate_end_step=505,
    pruning_begin_step=55,
    pruning_end_step=155,
  )
  assert config == SparsityConfig(**NOT_DEFAULT)


def test_scaled_by_one_is_the_same():
  config = SparsityConfig(**NOT_DEFAULT)
  assert config.scaled(1.0) == config


@pytest.mark.parametrize('multiplier', [0.1, 0.5, 1.0, 3.0])
def test_scaled_keeps_no_end(multiplier):
  config = SparsityConfig(maskupdate_begin_step=4, maskupdate_end_step=-1)
  assert config.scaled(multiplier).maskupdate_end_step == -1


@pytest.mark.parametrize('multiplier', [0.0, -2.0])
def test_scaled_refuses_what_is_not_positive(multiplier):
  with pytest.raises(ValueError, match='training_steps_multiplier') as error:
    SparsityConfig().scaled(multiplier)
  assert str(multiplier) in str(error.value)


def test_scaled_config_is_checked_like_any_other():
  config = SparsityConfig(training_method='prune', pruning_begin_step=1, pruning_end_step=2)
  with pytest.raises(ValueError, match='training_steps_multiplier=0.1.*begin'):
    config.scaled(0.1)

"""Aliases, and errors for wrong names: by flag, by gin, from Python."""

from __future__ import annotations

import pathlib

import pytest
from absl import flags

from rigl.cifar_resnet import resnet_train_eval
from rigl.core import distributions, methods
from rigl.imagenet_resnet import imagenet_train_eval
from rigl.mnist import mnist_train_eval
from rigl.training.config import DISTRIBUTION_ALIASES, METHOD_ALIASES
from tests import script_flags

SCRIPTS = {'mnist': mnist_train_eval, 'cifar': resnet_train_eval, 'imagenet': imagenet_train_eval}


def by_flag(script, **values):
  argv = [f'--{name}={value}' for name, value in values.items()]
  with script_flags.parsed(argv):
    return SCRIPTS[script].experiment_from_flags().unscaled


def by_gin(script, **values):
  return by_flag(
    script,
    gin_bindings='\n'.join(f'SparsityConfig.{name} = {value!r}' for name, value in values.items()),
  )


def from_python(script, **values):
  return SCRIPTS[script].SCHEMA.hyperparameters(values)[0]


WAYS = [by_flag, by_gin, from_python]


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
  'setting, name, meant',
  [
    *(('training_method', *pair) for pair in METHOD_ALIASES.items()),
    *(('mask_init_method', *pair) for pair in DISTRIBUTION_ALIASES.items()),
  ],
)
def test_other_names(setting, name, meant, way, script):
  assert getattr(way(script, **{setting: name}), setting) == meant
  assert way(script, **{setting: name}) == way(script, **{setting: meant})


def test_other_names_are_of_what_there_is():
  assert set(METHOD_ALIASES.values()) <= set(methods.METHODS)
  assert not set(METHOD_ALIASES) & set(methods.METHODS)
  assert set(DISTRIBUTION_ALIASES.values()) <= set(distributions.DISTRIBUTIONS)
  assert not set(DISTRIBUTION_ALIASES) & set(distributions.DISTRIBUTIONS)


@pytest.mark.parametrize('script', SCRIPTS)
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
  'setting, name, meant',
  [
    ('training_method', 'rgil', 'rigl'),
    ('training_method', 'sfns', 'snfs'),
    ('training_method', 'momentun', 'momentum'),
    ('mask_init_method', 'unifrom', 'uniform'),
    ('mask_init_method', 'erdos_reny', 'erdos_renyi'),
  ],
)
def test_misspelt_names(setting, name, meant, way, script):
  with pytest.raises((ValueError, flags.Error)) as error:
    way(script, **{setting: name})
  message = str(error.value)
  assert name in message and setting in message and '\n' not in message
  assert f'Did you mean {meant}' in message


@pytest.mark.parametrize('way', WAYS)
def test_names_like_no_other_get_no_guess(way):
  with pytest.raises((ValueError, flags.Error)) as error:
    way('mnist', training_method='lottery')
  assert 'mean' not in str(error.value)


@pytest.mark.parametrize(
  'arguments, meant',
  [
    ({'gin_config': 'snips'}, 'snip'),
    ({'gin_config': 'sparsity_9'}, 'sparsity_'),
    ({'gin_bindings': 'SparsityConfig.end_sparsty = 0.5'}, 'end_sparsity'),
    ({'gin_bindings': 'SparseConfig.end_sparsity = 0.5'}, 'SparsityConfig'),
  ],
)
@pytest.mark.parametrize('script', SCRIPTS)
def test_misspelt_gin(arguments, meant, script):
  with pytest.raises(ValueError, match=f'Did you mean {meant}'):
    by_flag(script, **arguments)


@pytest.mark.parametrize('script', SCRIPTS)
def test_gin_files_that_come_with_a_script(script):
  """There is one of each method, under the name that the papers have."""
  folder = pathlib.Path(SCRIPTS[script].__file__).parent / 'configs'
  files = {path.stem for path in folder.glob('*.gin')}
  for name in files:
    config = by_flag(script, gin_config=name)
    if name in methods.METHODS or name in METHOD_ALIASES:
      assert config.training_method == METHOD_ALIASES.get(name, name)
  papers = {name: other for other, name in METHOD_ALIASES.items()}
  assert {papers.get(name, name) for name in methods.METHODS} <= files

"""Flags: of the scripts, and the shared ones' defaults and precedence."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib

import pytest
from absl import flags

from rigl.cifar_resnet import resnet_train_eval
from rigl.core import methods
from rigl.imagenet_resnet import imagenet_train_eval
from rigl.mnist import mnist_train_eval
from rigl.training import sparse_flags
from rigl.training.config import SparsityConfig
from tests import script_flags

FLAGS = flags.FLAGS
SCRIPTS = {'mnist': mnist_train_eval, 'cifar_resnet': resnet_train_eval,
           'imagenet': imagenet_train_eval}
# {type in the reference data: (class of the flag, its own name of the type)}.
TYPES = {'string': (flags.Flag, 'string'), 'int': (flags.Flag, 'int'),
         'float': (flags.Flag, 'float'), 'bool': (flags.BooleanFlag, 'bool'),
         'string enum': (flags.EnumFlag, 'string enum')}

sparse_flags.define_method('baseline')
sparse_flags.define(*sparse_flags._SHARED)

# A script's own defaults, as scripts have them; with each flag that a script
# imported by another test may have set.
SCRIPT_DEFAULTS = {
    'training_method': 'rigl', 'end_sparsity': 0.98, 'batch_size': 100,
    'drop_fraction_anneal': 'cosine', 'maskupdate_end_step': 50000,
    'pruning_frequency': 500,
}


@contextlib.contextmanager
def command_line(*argv):
  """A script that was started with these flags, up to its main()."""
  with script_flags.parsed(SCRIPT_DEFAULTS, argv):
    yield


# --- The scripts -------------------------------------------------------------


@pytest.mark.parametrize('name, n_flags', [
    ('mnist', 31), ('cifar_resnet', 38), ('imagenet', 64)])
def test_flags_are_those_of_the_reference(name, n_flags, goldens):
  script = SCRIPTS[name]
  golden = goldens(f'flags_{name}_train_eval')['flags']
  assert len(golden) == n_flags
  key_flags = {flag.name for flag in FLAGS.get_key_flags_for_module(script)}
  for reference in golden:
    flag = FLAGS[reference['name']]
    assert flag.name in key_flags
    default = script.SCRIPT_DEFAULTS.get(flag.name, flag.default)
    assert default == reference['default'], flag.name
    assert type(default) is type(reference['default']), flag.name
    kind, type_name = TYPES[reference['type']]
    assert isinstance(flag, kind), flag.name
    assert flag.flag_type() == type_name, flag.name
    assert flag.help, flag.name


@pytest.mark.parametrize(
    'one, other', list(itertools.permutations(SCRIPTS, 2)))
def test_a_script_keeps_its_defaults_in_the_process_of_another(one, other):
  """Whatever a script sets, all others with that flag set too."""
  shared = {flag.name for flag in FLAGS.get_key_flags_for_module(SCRIPTS[one])}
  changed = set(SCRIPTS[other].SCRIPT_DEFAULTS)
  assert shared & changed <= set(SCRIPTS[one].SCRIPT_DEFAULTS)


SHIPPED = [
    pytest.param(name, path, id=f'{name}-{path.stem}')
    for name, script in SCRIPTS.items()
    for path in sorted(pathlib.Path(script.__file__).parent.glob(
        'configs/*.gin'))]


@pytest.mark.parametrize('name, path', SHIPPED)
def test_shipped_config_is_valid(name, path):
  assert 'Config.' in path.read_text()
  script = SCRIPTS[name]
  with script_flags.parsed(script.SCRIPT_DEFAULTS, [f'--gin_config={path}']):
    script.configs_from_flags()


def test_configs_of_all_kinds_are_shipped():
  assert {param.values[0] for param in SHIPPED} >= {'cifar_resnet', 'imagenet'}


# --- Shared flags ------------------------------------------------------------


def test_methods_flag_offers_every_method():
  flag = FLAGS['training_method']
  assert flag.parser.enum_values == list(methods.METHODS)
  for name, method in methods.METHODS.items():
    assert f'{name}: {method.description}' in flag.help


def test_shared_defaults_are_those_of_the_config():
  defaults = SparsityConfig()
  for field in dataclasses.fields(SparsityConfig):
    if field.name in sparse_flags._SHARED:
      _, default, _ = sparse_flags._SHARED[field.name]
      assert default == getattr(defaults, field.name), field.name


def test_every_hyperparameter_but_the_pruning_steps_has_a_shared_flag():
  """Those two are spelt differently by different scripts."""
  fields = {field.name for field in dataclasses.fields(SparsityConfig)}
  assert fields - set(sparse_flags._SHARED) - {'training_method'} == {
      'pruning_begin_step', 'pruning_end_step'}


def test_second_definition_leaves_the_first():
  with command_line('--end_sparsity=0.6'):
    sparse_flags.define('end_sparsity')
    sparse_flags.define_method('snip')
    assert FLAGS.end_sparsity == 0.6
    assert FLAGS['training_method'].default == 'rigl'


def test_unknown_shared_flag_is_an_error():
  with pytest.raises(ValueError, match='no_such_flag'):
    sparse_flags.define('no_such_flag')


# --- Defaults of a script ----------------------------------------------------


def test_default_of_another_script_in_the_process_does_not_stay():
  with command_line():
    sparse_flags.set_script_defaults({'end_sparsity': 0.5})
    sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
    assert FLAGS.end_sparsity == 0.98


def test_script_defaults_leave_given_values():
  with command_line('--end_sparsity=0.5', '--batch_size=7'):
    sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
    assert (FLAGS.end_sparsity, FLAGS.batch_size) == (0.5, 7)


def test_user_gave():
  with command_line('--seed=0'):
    assert sparse_flags.user_gave('seed')
    assert not sparse_flags.user_gave('end_sparsity')

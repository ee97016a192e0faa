"""Dataclasses of settings: their flags, and the precedence of flags and gin."""

from __future__ import annotations

import dataclasses
from typing import Optional

import pytest
from absl import flags

from rigl.core import methods
from rigl.training import command_line, config_flags, sparse_flags
from rigl.training.config import SparsityConfig, setting
from tests import script_flags

FLAGS = flags.FLAGS

sparse_flags.define_method('baseline')
sparse_flags.define(*sparse_flags._SHARED)

# A script's own defaults, as scripts have them; with each flag that a script
# imported by another test may have set.
SCRIPT_DEFAULTS = {
    'training_method': 'rigl', 'end_sparsity': 0.98, 'batch_size': 100,
    'drop_fraction_anneal': 'cosine', 'maskupdate_end_step': 50000,
    'pruning_frequency': 500,
}


@dataclasses.dataclass(frozen=True)
class OwnConfig:
  """The hyperparameters of a script, by the names of its flags."""

  batch_size: int
  momentum: float


def configs(*argv):
  """Both configs of a script where pruning begins with another flag."""
  with script_flags.parsed(SCRIPT_DEFAULTS, argv):
    return config_flags.hyperparameters(
        OwnConfig, {'pruning_begin_step': 'maskupdate_begin_step'})


def config(*argv):
  """The config of sparse training of a script started with these flags."""
  with script_flags.parsed(SCRIPT_DEFAULTS, argv):
    return config_flags.hyperparameters(OwnConfig)[0]


# --- Definition --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Settings:
  """One of each kind."""

  test_flag: bool = setting(True, 'Network', 'Whether.')
  test_count: int = setting(3, 'Data', 'How many.', lower_bound=2)
  test_share: float = setting(0.5, 'Output', 'How much.')
  test_name: str = setting('a', 'Devices', 'Which.')
  test_choice: str = setting('b', 'Devices', 'Which.', options=('b', 'c'))
  test_address: Optional[str] = setting(None, 'Evaluation', 'Where.')
  batch_size: int = 4  # Shared, so it is defined elsewhere.
  test_no_flag: int = 5


@pytest.fixture
def defined():
  """The settings, defined as a script does it."""
  config_flags.define(Settings)
  yield
  for field in dataclasses.fields(Settings):
    if field.name.startswith('test_') and field.name in FLAGS:
      delattr(FLAGS, field.name)


def test_settings_are_flags_of_the_module_that_defines_them(defined):
  mine = {flag.name for flag in FLAGS.get_key_flags_for_module(__name__)}
  assert {'test_flag', 'test_count', 'test_share', 'test_name', 'test_choice',
          'test_address'} <= mine
  assert 'test_no_flag' not in FLAGS
  for field in dataclasses.fields(Settings):
    if field.metadata:
      flag = FLAGS[field.name]
      assert flag.default == field.default
      assert type(flag.default) is type(field.default)
      assert flag.help.endswith(field.metadata['help'])
      assert command_line.group_of(field.name) == field.metadata['group']


def test_settings_take_the_values_of_their_flags(defined):
  argv = ['--notest_flag', '--test_count=2', '--test_share=1', '--test_name=x',
          '--test_choice=c', '--test_address=y']
  with script_flags.parsed(SCRIPT_DEFAULTS, argv):
    assert config_flags.from_flags(Settings) == Settings(
        False, 2, 1., 'x', 'c', 'y', 100)
  with script_flags.parsed(SCRIPT_DEFAULTS, []):
    assert config_flags.from_flags(Settings) == Settings(batch_size=100)


@pytest.mark.parametrize('argument', [
    '--test_count=1', '--test_choice=a', '--test_share=much',
    '--test_flag=perhaps'])
def test_values_that_a_setting_does_not_take(defined, argument):
  with pytest.raises(flags.IllegalFlagValueError, match=argument[2:]):
    with script_flags.parsed(SCRIPT_DEFAULTS, [argument]):
      pass


# --- Precedence --------------------------------------------------------------


def test_script_default_without_anything_else():
  made = config()
  assert made == SparsityConfig(
      training_method='rigl', end_sparsity=0.98,
      drop_fraction_anneal='cosine', maskupdate_end_step=50000)


def write(path, *lines):
  path.write_text('\n'.join(lines) + '\n')
  return path


@pytest.mark.parametrize('present, expected', [
    ({'line', 'binding', 'file2', 'file1'}, 0.4),
    ({'binding', 'file2', 'file1'}, 0.3),
    ({'file2', 'file1'}, 0.2),
    ({'file1'}, 0.1),
    ({'line', 'file1'}, 0.4),
    ({'line', 'binding'}, 0.4),
    ({'binding'}, 0.3),
    ({'binding', 'file1'}, 0.3),
    (set(), 0.98),
])
def test_command_line_over_bindings_over_files_over_defaults(
    present, expected, tmp_path):
  argv = []
  for name, value in (('file1', 0.1), ('file2', 0.2)):
    if name in present:
      path = write(
          tmp_path / f'{name}.gin', f'SparsityConfig.end_sparsity = {value}')
      argv.append(f'--gin_config={path}')
  if 'binding' in present:
    argv.append('--gin_bindings=SparsityConfig.end_sparsity = 0.3')
  if 'line' in present:
    argv.append('--end_sparsity=0.4')
  for arguments in (argv, argv[::-1]):
    if ('file2' in present) and arguments is not argv:
      continue  # The order of files is the user's.
    assert config(*arguments).end_sparsity == expected


@pytest.mark.parametrize('present, expected', [
    ((), 0.1), (('--gin_config',), 0.2), (('--gin_bindings',), 0.3),
    (('--end_sparsity',), 0.4),
    (('--gin_config', '--gin_bindings', '--end_sparsity'), 0.4)])
def test_a_run_says_what_neither_flags_nor_gin_say(
    present, expected, tmp_path):
  write(tmp_path / 'config.gin', 'SparsityConfig.end_sparsity = 0.1',
        'SparsityConfig.seed = 6')
  other = write(tmp_path / 'other.gin', 'SparsityConfig.end_sparsity = 0.2')
  values = {'--gin_config': other, '--end_sparsity': 0.4,
            '--gin_bindings': 'SparsityConfig.end_sparsity = 0.3'}
  with script_flags.parsed(
      SCRIPT_DEFAULTS, [f'{flag}={values[flag]}' for flag in present]):
    made, _ = config_flags.hyperparameters(OwnConfig, run_folder=str(tmp_path))
  assert (made.end_sparsity, made.seed) == (expected, 6)


def test_a_run_without_a_config_says_nothing(tmp_path):
  with script_flags.parsed(SCRIPT_DEFAULTS, []):
    made, _ = config_flags.hyperparameters(OwnConfig, run_folder=str(tmp_path))
  assert made == config()


def test_value_given_on_the_command_line_wins_though_it_is_the_default():
  assert config(
      '--gin_bindings=SparsityConfig.end_sparsity = 0.3',
      '--end_sparsity=0.98').end_sparsity == 0.98


def test_gin_sets_only_what_it_binds():
  assert config(
      '--gin_bindings=SparsityConfig.drop_fraction = 0.5',
      '--gin_bindings=SparsityConfig.training_method = "set"',
      '--seed=3') == SparsityConfig(
          training_method='set', end_sparsity=0.98, drop_fraction=0.5, seed=3,
          drop_fraction_anneal='cosine', maskupdate_end_step=50000)


def test_gin_of_one_run_does_not_reach_the_next():
  assert config('--gin_bindings=SparsityConfig.seed = 9').seed == 9
  assert config().seed == 0


def test_gin_is_not_taken_for_the_user():
  with script_flags.parsed(
      SCRIPT_DEFAULTS, ['--gin_bindings=SparsityConfig.seed = 9']):
    config_flags.hyperparameters(OwnConfig)
    assert FLAGS.seed == 9
    assert not sparse_flags.user_gave('seed')


# --- Hyperparameters ---------------------------------------------------------


def test_every_flag_reaches_its_field():
  values = {
      'training_method': 'set', 'end_sparsity': 0.75,
      'mask_init_method': 'erdos_renyi', 'erk_power_scale': 0.5,
      'drop_fraction': 0.4, 'drop_fraction_anneal': 'constant',
      'grow_init': 'random_normal_7', 's_momentum': 0.6,
      'rigl_acc_scale': 0.25, 'maskupdate_begin_step': 2,
      'maskupdate_end_step': 44, 'maskupdate_frequency': 5,
      'pruning_frequency': 4, 'threshold_decay': 0.125, 'seed': 17}
  made = config(*[f'--{name}={value}' for name, value in values.items()])
  assert made == SparsityConfig(**values)


@pytest.mark.parametrize('argument, words', [
    ('--end_sparsity=1.0', ['end_sparsity', '1.0']),
    ('--mask_init_method=gauss', ['mask_init_method', 'gauss', 'erdos_renyi']),
    ('--maskupdate_frequency=-5', ['maskupdate_frequency=-5']),
])
def test_value_out_of_range_is_named(argument, words):
  with pytest.raises(ValueError) as error:
    config(argument)
  for word in words:
    assert word in str(error.value)


def test_unknown_method_is_refused_by_the_flag_with_the_options():
  with pytest.raises(flags.IllegalFlagValueError) as error:
    config('--training_method=lottery')
  for name in ('training_method', 'lottery', *methods.METHODS):
    assert name in str(error.value)


def test_configs_of_a_script():
  sparsity, own = configs(
      '--maskupdate_begin_step=3', '--gin_bindings=OwnConfig.momentum = 0.5',
      '--gin_bindings=SparsityConfig.seed = 4', '--batch_size=7')
  assert own == OwnConfig(7, 0.5)
  assert (sparsity.pruning_begin_step, sparsity.seed) == (3, 4)


def test_errors_name_the_flag_of_a_renamed_field():
  with pytest.raises(ValueError, match='maskupdate_begin_step') as error:
    configs('--training_method=prune', '--maskupdate_begin_step=-3')
  assert 'pruning_begin_step' not in str(error.value)


# --- Errors of gin -----------------------------------------------------------


@pytest.mark.parametrize('binding, words', [
    ('SparsityConfig.end_sparsity = "much"',
     ['SparsityConfig.end_sparsity', 'much']),
    ('SparsityConfig.maskupdate_frequency = 10.5',
     ['SparsityConfig.maskupdate_frequency', '10.5']),
    ('SparsityConfig.training_method = "lottery"',
     ['SparsityConfig.training_method', 'lottery', 'rigl']),
    ('SparsityConfig.grow_init = 3', ['SparsityConfig.grow_init', '3']),
    ('SparsityConfig.end_sparsity = [0.5, 0.9]',
     ['SparsityConfig.end_sparsity', '0.9']),
    ('SparsityConfig.end_sparsity = None',
     ['SparsityConfig.end_sparsity', 'None']),
    ('SparsityConfig.grow_init = None', ['grow_init', 'None']),
    ('SparsityConfig.end_sparsity = 1.5', ['end_sparsity', '1.5']),
    ('SparsityConfig.sparsity = 0.5', ['SparsityConfig', "'sparsity'"]),
    ('SparseConfig.end_sparsity = 0.5',
     ['SparseConfig', "['OwnConfig', 'SparsityConfig']"]),
    ('SparsityConfig.end_sparsity 0.5', ['<class>.<parameter> = <value>']),
    ('SparsityConfig.end_sparsity = %rate',
     ['SparsityConfig.end_sparsity', '%rate']),
    ('run1/SparsityConfig.end_sparsity = 0.5',
     ['run1/SparsityConfig.end_sparsity']),
])
def test_bad_binding_is_named(binding, words):
  with pytest.raises(ValueError) as error:
    config(f'--gin_bindings={binding}')
  for word in words:
    assert word in str(error.value)

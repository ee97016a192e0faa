"""Flags: of the scripts, and the shared ones' defaults and precedence."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib

import pytest
from absl import flags

from rigl.cifar_resnet import resnet_train_eval
from rigl.imagenet_resnet import imagenet_train_eval
from rigl.mnist import mnist_train_eval
from rigl.training import methods, sparse_flags
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
FLAGS_OF = {SparsityConfig: {
    field.name: field.name for field in dataclasses.fields(SparsityConfig)
    if field.name in FLAGS}}


@contextlib.contextmanager
def command_line(*argv):
  """A script that was started with these flags, up to its main()."""
  with script_flags.parsed(SCRIPT_DEFAULTS, argv):
    yield


def config(*argv, **fields):
  """The config of a script started with these flags."""
  with command_line(*argv):
    sparse_flags.apply_gin(FLAGS_OF)
    return sparse_flags.config_from_flags(**fields)


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
    if (name, flag.name) != ('cifar_resnet', 'master'):  # Not used.
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


def test_default_of_another_script_in_the_process_does_not_stay():
  with command_line():
    sparse_flags.set_script_defaults({'end_sparsity': 0.5})
    sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
    assert sparse_flags.config_from_flags().end_sparsity == 0.98


def test_script_defaults_leave_given_values():
  with command_line('--end_sparsity=0.5', '--batch_size=7'):
    sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
    assert (FLAGS.end_sparsity, FLAGS.batch_size) == (0.5, 7)


def test_user_gave():
  with command_line('--seed=0'):
    assert sparse_flags.user_gave('seed')
    assert not sparse_flags.user_gave('end_sparsity')


def test_gin_is_not_taken_for_the_user():
  with command_line('--gin_bindings=SparsityConfig.seed = 9'):
    sparse_flags.apply_gin(FLAGS_OF)
    assert FLAGS.seed == 9
    assert not sparse_flags.user_gave('seed')


# --- config_from_flags -------------------------------------------------------


def test_every_flag_reaches_its_field():
  values = {
      'training_method': 'set', 'end_sparsity': 0.75,
      'mask_init_method': 'erdos_renyi', 'erk_power_scale': 0.5,
      'drop_fraction': 0.4, 'drop_fraction_anneal': 'constant',
      'grow_init': 'random_normal_7', 's_momentum': 0.6,
      'rigl_acc_scale': 0.25, 'maskupdate_begin_step': 2,
      'maskupdate_end_step': 44, 'maskupdate_frequency': 5,
      'pruning_frequency': 4, 'threshold_decay': 0.125, 'seed': 17}
  made = config(*[f'--{name}={value}' for name, value in values.items()],
                pruning_begin_step=3, pruning_end_step=33)
  assert dataclasses.asdict(made) == {
      **values, 'pruning_begin_step': 3, 'pruning_end_step': 33}


def test_given_fields_win_over_flags():
  assert config('--seed=4', seed=6).seed == 6


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


@dataclasses.dataclass(frozen=True)
class OwnConfig:
  """The hyperparameters of a script, by the names of its flags."""

  batch_size: int
  momentum: float


def configs(*argv):
  """Both configs of a script where pruning begins with another flag."""
  with command_line(*argv):
    return sparse_flags.configs_from_flags(
        OwnConfig, {'pruning_begin_step': 'maskupdate_begin_step'})


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
     ['SparseConfig', "['SparsityConfig']"]),
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

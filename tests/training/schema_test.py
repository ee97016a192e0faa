"""Settings: by flag, by gin, by keyword, in their order; what each refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

import pytest
from absl import flags

from rigl import gin_configs
from rigl.cifar_resnet import resnet_train_eval
from rigl.core import checks, methods
from rigl.imagenet_resnet import imagenet_config, imagenet_train_eval
from rigl.mnist import mnist_train_eval
from rigl.training import command_line
from rigl.training.config import SparsityConfig
from rigl.training.schema import GROUPS, Schema, Settings, setting
from tests import script_flags

FLAGS = flags.FLAGS
SCRIPTS = {
  'mnist': mnist_train_eval,
  'cifar_resnet': resnet_train_eval,
  'imagenet': imagenet_train_eval,
}
SCHEMAS = {name: script.SCHEMA for name, script in SCRIPTS.items()}
# {type in the reference data: type}. Options are checked by the schema.
TYPES = {
  'string': 'string',
  'int': 'int',
  'float': 'float',
  'bool': 'bool',
  'string enum': 'string',
}


# --- The scripts -------------------------------------------------------------


@pytest.mark.parametrize('name, n_flags', [('mnist', 31), ('cifar_resnet', 38), ('imagenet', 64)])
def test_flags_are_those_of_the_reference(name, n_flags, goldens):
  schema = SCHEMAS[name]
  golden = goldens(f'flags_{name}_train_eval')['flags']
  assert len(golden) == n_flags
  for reference in golden:
    flag = reference['name']
    default = (
      schema.not_used[flag]
      if flag in schema.not_used
      else schema.default_of(schema.other_names.get(flag, flag))
    )
    assert default == reference['default'], flag
    assert type(default) is type(reference['default']), flag
    assert FLAGS[flag].flag_type() == TYPES[reference['type']], flag


@pytest.mark.parametrize('name', SCHEMAS)
def test_each_setting_has_a_flag_a_group_and_a_text(name):
  schema = SCHEMAS[name]
  for field in schema.fields.values():
    assert field.name in FLAGS
    assert field.metadata['group'] in GROUPS
    assert len(field.metadata['help']) > 5
  assert set(schema.defaults) <= set(schema.fields)
  assert set(schema.other_names.values()) <= set(schema.fields)
  assert not set(schema.other_names) & set(schema.fields)
  assert not set(schema.not_used) & set(schema.fields)


@pytest.mark.parametrize('name', SCHEMAS)
def test_a_script_in_the_process_of_others_keeps_its_defaults(name):
  schema = SCHEMAS[name]
  with script_flags.parsed([]):
    assert not command_line.given(schema)
    for config in schema.hyperparameters(command_line.given(schema)):
      assert config == type(config)(
        **{field.name: schema.default_of(field.name) for field in dataclasses.fields(config)}
      )


SHIPPED = [
  pytest.param(name, path, id=f'{name}-{path.stem}')
  for name, script in SCRIPTS.items()
  for path in sorted(pathlib.Path(script.__file__).parent.glob('configs/*.gin'))
]


@pytest.mark.parametrize('name, path', SHIPPED)
def test_shipped_config_is_valid(name, path):
  assert 'Config.' in path.read_text()
  with script_flags.parsed([f'--gin_config={path}']):
    SCRIPTS[name].experiment_from_flags()


def test_configs_of_all_kinds_are_shipped():
  assert {param.values[0] for param in SHIPPED} == set(SCRIPTS)


def test_training_method_has_every_method_among_its_options():
  field = SCHEMAS['mnist'].fields['training_method']
  assert list(field.metadata['options']()) == list(methods.METHODS)


@pytest.mark.parametrize(
  'name, other', [(name, other) for name, schema in SCHEMAS.items() for other in schema.other_names]
)
def test_the_2020_names_and_the_settings_are_one_flag(name, other):
  schema = SCHEMAS[name]
  field = schema.other_names[other]
  for flag in (other, field):
    with script_flags.parsed([f'--{flag}=29999']):
      given = command_line.given(schema)
    assert given == {field: 29999}
    assert 29999 in [
      getattr(config, field, None)
      for config in (schema.settings(given), *schema.hyperparameters(given))
    ]


@pytest.mark.parametrize(
  'given, expected',
  [
    ({}, (0, 25000, 100)),
    ({'maskupdate_begin_step': 3, 'maskupdate_frequency': 7}, (3, 25000, 7)),
    ({'maskupdate_end_step': 50, 'pruning_end_step': 40}, (0, 40, 100)),
  ],
)
def test_pruning_on_imagenet_has_the_schedule_of_mask_updates_unless_given(given, expected):
  sparsity, own = imagenet_config.SCHEMA.hyperparameters({'training_method': 'prune', **given})
  assert isinstance(own, imagenet_config.ImageNetConfig)
  assert (
    sparsity.pruning_begin_step,
    sparsity.pruning_end_step,
    sparsity.pruning_frequency,
  ) == expected


# --- A schema of one setting of each kind ------------------------------------


@dataclasses.dataclass(frozen=True)
class OwnConfig(Settings):
  """Hyperparameters of a script."""

  test_share: float = setting(0.5, 'Network', 'How much.', check=checks.below_one)
  test_flag: bool = setting(True, 'Network', 'Whether.')


@dataclasses.dataclass(frozen=True)
class OwnSettings(Settings):
  """Settings of a script."""

  gin_config: tuple = setting((), 'General', 'Gin files.', is_path=True)
  gin_bindings: tuple = setting((), 'General', 'Gin bindings.')
  test_count: int = setting(3, 'Data', 'How many.', check=checks.positive)
  test_path: str = setting('a', 'Devices', 'Where.', is_path=True)
  test_choice: str = setting('b', 'Devices', 'Which.', options=('b', 'c'))
  test_shape: str = setting(
    'flat',
    'Devices',
    'Which.',
    options={'round': 'a disc', 'flat': 'a line'},
    aliases={'disc': 'round'},
  )
  test_address: str = setting(None, 'Evaluation', 'Where.')


SCHEMA = Schema(
  (SparsityConfig, OwnConfig),
  OwnSettings,
  'test_path',
  defaults={'end_sparsity': 0.98, 'training_method': 'rigl', 'test_count': 4},
  other_names={'test_number': 'test_count'},
  not_used={'test_nothing': 1},
)


@contextlib.contextmanager
def defined():
  """The flags of SCHEMA, for as long as the context lasts."""
  before = set(FLAGS)
  command_line.define(SCHEMA)
  try:
    yield
  finally:
    for name in set(FLAGS) - before:
      delattr(FLAGS, name)


def by_flags(given):
  argv = [
    f'--{name}={value}'
    for name, values in given.items()
    for value in (values if isinstance(values, tuple) else [values])
  ]
  with defined(), script_flags.parsed(argv):
    return command_line.given(SCHEMA)


def by_keywords(given):
  return given


WAYS = [by_flags, by_keywords]


@pytest.mark.parametrize('way', WAYS)
def test_values_reach_the_fields(way):
  given = {
    'test_share': 0.25,
    'test_flag': False,
    'test_number': 2,
    'test_path': 'x',
    'test_choice': 'c',
    'test_shape': 'disc',
    'test_address': 'y',
    'seed': 3,
    'mask_init_method': 'uniform',
  }
  sparsity, own = SCHEMA.hyperparameters(way(given))
  assert own == OwnConfig(0.25, False)
  assert sparsity == SparsityConfig(training_method='rigl', end_sparsity=0.98, seed=3)
  assert SCHEMA.settings(way(given)) == OwnSettings(
    test_count=2, test_path='x', test_choice='c', test_shape='round', test_address='y'
  )


@pytest.mark.parametrize('way', WAYS)
def test_defaults_of_the_schema_come_before_those_of_the_classes(way):
  assert SCHEMA.settings(way({})) == OwnSettings(test_count=4)
  sparsity, own = SCHEMA.hyperparameters(way({}))
  assert own == OwnConfig()
  assert sparsity == SparsityConfig(training_method='rigl', end_sparsity=0.98)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
  'name, value, words',
  [
    ('test_share', 1.5, ['test_share', '[0, 1)', '1.5']),
    ('test_number', 0, ['test_count', '> 0']),
    ('test_choice', 'a', ["test_choice 'a' is not one of b, c"]),
    ('test_shape', 'rund', ['test_shape', 'rund', 'Did you mean round?']),
    ('training_method', 'lottery', ['training_method', *methods.METHODS]),
    ('test_path', '~nobody/x', ['test_path', '~nobody', 'whole path']),
  ],
)
def test_wrong_values(way, name, value, words, no_home):
  with pytest.raises(ValueError) as error:
    SCHEMA.checked(way({name: value}))
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('test_flag', 1, 'True or False'),
    ('test_share', 'much', 'a number'),
    ('test_count', 2.5, 'an integer'),
    ('test_path', 3, 'a text'),
    ('test_address', 3, 'a text'),
    ('test_choice', None, 'expected a value'),
    ('seed', None, 'expected a value'),
  ],
)
def test_keywords_of_the_wrong_type(name, value, words):
  with pytest.raises(ValueError, match=f'{name}.*{words}'):
    SCHEMA.checked({name: value})
  if value is not None:
    for config_class in (OwnConfig, OwnSettings):
      if name in {field.name for field in dataclasses.fields(config_class)}:
        with pytest.raises(ValueError, match=f'{name}.*{words}'):
          config_class(**{name: value})


@pytest.mark.parametrize(
  'name, value', [('test_count', 2.5), ('test_share', 'much'), ('test_flag', 'perhaps')]
)
def test_flags_of_the_wrong_type(name, value):
  with pytest.raises(flags.IllegalFlagValueError, match=name):
    by_flags({name: value})


def test_a_setting_that_does_not_exist():
  with pytest.raises(ValueError, match='no setting test_chioce.*test_choice'):
    SCHEMA.checked({'test_chioce': 'b'})


def test_a_setting_by_both_of_its_names():
  with pytest.raises(ValueError, match='test_number.*another name.*test_count'):
    SCHEMA.checked({'test_count': 1, 'test_number': 1})


def test_paths_and_whole_numbers_become_what_the_field_holds():
  checked = SCHEMA.checked({'test_path': pathlib.Path('a') / 'b', 'test_share': 0})
  assert checked == {'test_path': 'a/b', 'test_share': 0.0}
  assert isinstance(checked['test_share'], float)


@pytest.mark.parametrize('way', WAYS)
def test_a_path_may_begin_with_the_home_folder(way, monkeypatch):
  """The shell leaves ~ alone where it stands behind =."""
  monkeypatch.setenv('HOME', '/home/me')
  for given, path in (('~', '/home/me'), ('~/a/~b', '/home/me/a/~b'), ('/a/~', '/a/~'), ('', '')):
    assert SCHEMA.settings(way({'test_path': given})).test_path == path
    assert SCHEMA.checked(way({'gin_config': (given,)})) == {'gin_config': (path,)}


def test_text_settings_that_are_not_marked_as_paths():
  """A new setting must say whether it is a path."""
  assert {
    field.name
    for schema in SCHEMAS.values()
    for field in schema.fields.values()
    if isinstance(field.default, (str, tuple, type(None))) and not field.metadata['is_path']
  } == {
    'data_format',
    'drop_fraction_anneal',
    'gcp_project',
    'gin_bindings',
    'grow_init',
    'init_method',
    'loop',
    'mask_init_method',
    'master',
    'mode',
    'model_architecture',
    'network_type',
    'optimizer',
    'precision',
    'pruning_hparams',
    'tpu',
    'tpu_job_name',
    'tpu_zone',
    'training_method',
  }


# --- Precedence --------------------------------------------------------------


def write(path, *lines):
  path.write_text('\n'.join(lines) + '\n')
  return str(path)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
  'present, expected',
  [
    (('given', 'binding', 'file2', 'file1', 'run'), 0.4),
    (('binding', 'file2', 'file1', 'run'), 0.3),
    (('file2', 'file1', 'run'), 0.2),
    (('file1', 'run'), 0.1),
    (('run',), 0.05),
    (('given', 'file1'), 0.4),
    (('given', 'binding'), 0.4),
    (('binding',), 0.3),
    ((), 0.98),
  ],
)
def test_given_over_bindings_over_files_over_the_run_over_defaults(
  present, expected, way, tmp_path
):
  line = 'SparsityConfig.end_sparsity = {}'
  files = {
    name: write(tmp_path / f'{name}.gin', line.format(value))
    for name, value in (('file1', 0.1), ('file2', 0.2))
  }
  (tmp_path / 'run').mkdir()
  if 'run' in present:
    write(tmp_path / 'run/config.gin', line.format(0.05), 'SparsityConfig.seed = 6')
  given = {}
  if 'given' in present:
    given['end_sparsity'] = 0.4
  if 'binding' in present:
    given['gin_bindings'] = (line.format(0.3),)
  given['gin_config'] = tuple(files[name] for name in ('file1', 'file2') if name in present)
  given = {name: value for name, value in given.items() if value}
  sparsity, _ = SCHEMA.hyperparameters(way(given), str(tmp_path / 'run'))
  assert sparsity.end_sparsity == expected
  assert sparsity.seed == 6 * ('run' in present)


def test_a_given_value_wins_though_it_is_the_default():
  sparsity, _ = SCHEMA.hyperparameters(
    by_flags({'gin_bindings': ('SparsityConfig.end_sparsity = 0.3',), 'end_sparsity': 0.98})
  )
  assert sparsity.end_sparsity == 0.98


def test_gin_sets_only_what_it_binds_and_only_once():
  sparsity, own = SCHEMA.hyperparameters(
    {
      'seed': 3,
      'gin_bindings': ('SparsityConfig.training_method = "set"', 'OwnConfig.test_share = 0'),
    }
  )
  assert sparsity == SparsityConfig(training_method='set', end_sparsity=0.98, seed=3)
  assert own == OwnConfig(test_share=0.0)
  assert SCHEMA.hyperparameters({}) == [
    SparsityConfig(training_method='rigl', end_sparsity=0.98),
    OwnConfig(),
  ]


@pytest.mark.parametrize(
  'binding, words',
  [
    ('SparsityConfig.end_sparsity = "much"', ['SparsityConfig.end_sparsity', 'much']),
    ('SparsityConfig.maskupdate_frequency = 10.5', ['SparsityConfig.maskupdate_frequency', '10.5']),
    (
      'SparsityConfig.training_method = "lottery"',
      ['SparsityConfig.training_method', 'lottery', 'rigl'],
    ),
    ('SparsityConfig.grow_init = 3', ['SparsityConfig.grow_init', '3']),
    ('SparsityConfig.end_sparsity = [0.5, 0.9]', ['SparsityConfig.end_sparsity', '0.9']),
    ('SparsityConfig.end_sparsity = None', ['SparsityConfig.end_sparsity', 'None']),
    ('SparsityConfig.grow_init = None', ['grow_init', 'None']),
    ('SparsityConfig.end_sparsity = 1.5', ['end_sparsity', '1.5']),
    ('SparsityConfig.sparsity = 0.5', ['SparsityConfig', "'sparsity'"]),
    ('SparseConfig.end_sparsity = 0.5', ['SparseConfig', "['OwnConfig', 'SparsityConfig']"]),
    ('OwnSettings.test_count = 3', ['OwnSettings', 'OwnConfig']),
    ('SparsityConfig.end_sparsity 0.5', ['<class>.<parameter> = <value>']),
    ('SparsityConfig.end_sparsity = %rate', ['SparsityConfig.end_sparsity', '%rate']),
    ('run1/SparsityConfig.end_sparsity = 0.5', ['run1/SparsityConfig.end_sparsity']),
  ],
)
def test_bad_binding_is_named(binding, words):
  with pytest.raises(ValueError) as error:
    SCHEMA.hyperparameters({'gin_bindings': (binding,)})
  for word in words:
    assert word in str(error.value)


def test_what_a_run_has_written_is_what_it_had(tmp_path):
  configs = SCHEMA.hyperparameters({'seed': 5, 'drop_fraction': 1, 'test_share': 0})
  gin_configs.write(str(tmp_path), *configs)
  assert SCHEMA.hyperparameters({}, str(tmp_path)) == configs


def test_unknown_group_is_an_error():
  with pytest.raises(ValueError, match="'Colours' is not one of General, "):
    setting(1, 'Colours', 'Which.')

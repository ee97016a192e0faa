"""Gin files: reading, refused content, writing."""

from __future__ import annotations

import dataclasses

import pytest

from rigl import gin_configs
from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.core import methods
from rigl.training.config import SparsityConfig
from tests.training import config_test


@dataclasses.dataclass(frozen=True)
class KindsConfig:
  """A config with a value of each type."""

  whole: int = 1
  real: float = 0.5
  text: str = 'abc'
  choice: bool = True


CLASSES = [SparsityConfig, KindsConfig]


def write(path, *lines):
  path.write_text('\n'.join(lines) + '\n')
  return str(path)


def read(*paths, bindings=()):
  return {
    (c.__name__, field): value
    for (c, field), value in gin_configs.read(paths, bindings, CLASSES).items()
  }


# --- Reading -----------------------------------------------------------------


def test_reads_what_is_bound_and_nothing_else(tmp_path):
  path = write(
    tmp_path / 'a.gin',
    '# A comment: import nothing.',
    'SparsityConfig.end_sparsity = 0.95',
    'KindsConfig.text = "from x"',
    'KindsConfig.choice = False',
  )
  assert read(path) == {
    ('SparsityConfig', 'end_sparsity'): 0.95,
    ('KindsConfig', 'text'): 'from x',
    ('KindsConfig', 'choice'): False,
  }


def test_a_bare_name_is_that_of_a_file_of_the_script(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  classes = [SparsityConfig, CifarConfig]
  bound = gin_configs.read(['wrn_22_2', 'rigl.gin'], (), classes)
  assert bound[CifarConfig, 'resnet_depth'] == 22
  assert bound[SparsityConfig, 'training_method'] == 'rigl'
  with pytest.raises(ValueError, match='no gin file wrn, .* dense, .*wrn_22_2'):
    gin_configs.read(['wrn'], (), classes)
  with pytest.raises(ValueError, match='Cannot read the gin file ./rigl'):
    gin_configs.read(['./rigl'], (), classes)
  # A file of the user's comes first, a folder does not.
  (tmp_path / 'wrn_22_2').mkdir()
  write(tmp_path / 'rigl', 'SparsityConfig.training_method = "set"')
  bound = gin_configs.read(['wrn_22_2', 'rigl'], (), classes)
  assert bound[CifarConfig, 'resnet_depth'] == 22
  assert bound[SparsityConfig, 'training_method'] == 'set'


def test_nothing_to_read():
  assert read() == {}


def test_later_files_win_and_bindings_win_over_files(tmp_path):
  first = write(
    tmp_path / '1.gin', 'KindsConfig.whole = 1', 'KindsConfig.real = 1.0', 'KindsConfig.text = "1"'
  )
  second = write(tmp_path / '2.gin', 'KindsConfig.whole = 2', 'KindsConfig.real = 2.0')
  bindings = ['KindsConfig.whole = 3', 'KindsConfig.whole = 4']
  assert read(first, second, bindings=bindings) == {
    ('KindsConfig', 'whole'): 4,
    ('KindsConfig', 'real'): 2.0,
    ('KindsConfig', 'text'): '1',
  }
  assert read(second, first)['KindsConfig', 'real'] == 1.0


def test_one_call_does_not_remember_another():
  assert read(bindings=['KindsConfig.whole = 3'])
  assert read(bindings=['KindsConfig.real = 3.0']) == {('KindsConfig', 'real'): 3.0}


def test_includes_are_followed(tmp_path):
  included = write(tmp_path / 'in.gin', 'KindsConfig.whole = 8')
  path = write(tmp_path / 'a.gin', f"include '{included}'", 'KindsConfig.real = 2.0')
  assert read(path) == {('KindsConfig', 'whole'): 8, ('KindsConfig', 'real'): 2.0}


def test_a_file_that_includes_itself_is_refused(tmp_path):
  path = tmp_path / 'a.gin'
  with pytest.raises(ValueError, match='a.gin'):
    read(write(path, f"include '{path}'"))


# --- Errors ------------------------------------------------------------------


@pytest.mark.parametrize(
  'lines, words',
  [
    (['NoConfig.whole = 1'], ['NoConfig', 'KindsConfig', 'SparsityConfig']),
    (['KindsConfig.no_field = 1'], ['KindsConfig', 'no_field']),
    # Gin itself would accept these, without an effect.
    (['macro.value = 1'], ['macro', 'KindsConfig']),
    (['KindsConfig.self = 1'], ['KindsConfig', 'self']),
    (['KindsConfig.whole = '], ['<class>.<parameter> = <value>']),
    (['KindsConfig.whole = 1 2'], ['<class>.<parameter> = <value>']),
    (['KindsConfig.whole'], ['<class>.<parameter> = <value>']),
    (['KindsConfig.whole = @no_function'], ['no_function']),
    (['KindsConfig:'], ['<class>.<parameter> = <value>']),
    (['KindsConfig.whole = (1'], ['<class>.<parameter> = <value>']),
    # A macro, to gin.
    (['whole = 1'], ['whole without a class', 'SparsityConfig.end_sparsity']),
  ],
)
def test_bad_lines_are_named_in_files_and_bindings(lines, words, tmp_path):
  for arguments in ({'bindings': lines}, {}):
    paths = [] if arguments else [write(tmp_path / 'bad.gin', *lines)]
    with pytest.raises(ValueError) as error:
      read(*paths, **arguments)
    for word in words:
      assert word in str(error.value)
    if paths:
      assert 'bad.gin' in str(error.value)
  # It leaves no state.
  assert read(bindings=['KindsConfig.real = 3.0']) == {('KindsConfig', 'real'): 3.0}


@pytest.mark.parametrize(
  'make',
  [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_bytes(b'\xff\xfe\x00')],
)
def test_unreadable_file_is_named(make, tmp_path):
  make(tmp_path / 'x.gin')
  with pytest.raises(ValueError, match='x.gin'):
    read(str(tmp_path / 'x.gin'))


# --- Writing -----------------------------------------------------------------


def assert_round_trip(folder, *configs):
  gin_configs.write(str(folder), *configs)
  read_back = read(str(folder / gin_configs.CONFIG_FILE))
  for config in configs:
    name = type(config).__name__
    fields = {field: value for (c, field), value in read_back.items() if c == name}
    assert {f: type(v) for f, v in fields.items()} == {
      f: type(v) for f, v in dataclasses.asdict(config).items()
    }
    assert type(config)(**fields) == config


@pytest.mark.parametrize(
  'config',
  [
    *[SparsityConfig(training_method=name) for name in methods.METHODS],
    SparsityConfig(**config_test.NOT_DEFAULT),
    SparsityConfig(maskupdate_end_step=-1, end_sparsity=0.1 + 0.2),
  ],
  ids=lambda config: config.training_method,
)
def test_every_field_is_read_back_as_written(config, tmp_path):
  assert_round_trip(tmp_path, config)


@pytest.mark.parametrize(
  'text', ['', "it's", 'a "b"', 'back\\slash', 'two\nlines', '# x', '%m', '@f', 'ü']
)
def test_any_value_is_read_back_as_written(text, tmp_path):
  assert_round_trip(tmp_path, KindsConfig(-3, 1e-300, text, False), SparsityConfig(seed=4))


def test_remote_folder():
  """TensorFlow keeps this one in memory."""
  folder = 'ram://a/folder'
  for config in (KindsConfig(7), KindsConfig(8)):
    gin_configs.write(folder, config)
  assert tf.io.gfile.listdir(folder) == ['config.gin']
  path = f'{folder}/config.gin'
  assert read(path)['KindsConfig', 'whole'] == 8
  with pytest.raises(ValueError, match='ram://a/folder/other'):
    read(f'{folder}/other')


def test_what_is_checked_is_what_is_read(tmp_path, module_that_must_not_run):
  """Python ends lines at a carriage return, where TensorFlow does not."""
  path = tmp_path / 'a.gin'
  path.write_bytes(f'# x\rimport {module_that_must_not_run}\r'.encode())
  with pytest.raises(ValueError, match='imports a module'):
    read(str(path))


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_interrupted_writing_leaves_the_former_file(error, tmp_path, monkeypatch):
  gin_configs.write(str(tmp_path), KindsConfig())
  before = (tmp_path / 'config.gin').read_bytes()

  def fail(*args, **kwargs):
    raise error

  monkeypatch.setattr(tf.io.gfile, 'rename', fail)
  with pytest.raises(error):
    gin_configs.write(str(tmp_path), KindsConfig(5))
  (path,) = tmp_path.iterdir()
  assert path.read_bytes() == before


def test_written_file_is_complete_and_alone(tmp_path):
  gin_configs.write(str(tmp_path), KindsConfig())
  gin_configs.write(str(tmp_path), KindsConfig(), SparsityConfig())
  (path,) = tmp_path.iterdir()
  assert path.name == 'config.gin'
  lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
  assert lines[:4] == [
    'KindsConfig.whole = 1',
    'KindsConfig.real = 0.5',
    "KindsConfig.text = 'abc'",
    'KindsConfig.choice = True',
  ]
  assert len(lines) == 4 + len(dataclasses.fields(SparsityConfig))

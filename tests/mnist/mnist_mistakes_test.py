"""Mistakes of a user of the MNIST script: one clear line, and nothing begun.

Each command line runs as a process of its own.
"""

from __future__ import annotations

import pathlib
import re
import shutil

import pytest

from rigl.mnist import mnist_data
from rigl.training import factory, methods
from tests import script_server, tiny_mnist

MAX_CPU_SECONDS = 2.


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  with script_server.ScriptServer(
      'rigl.mnist.mnist_train_eval',
      tmp_path_factory.mktemp('server')) as server:
    yield server


def files(folder):
  """{path: content} of all files below a folder, but those of TensorBoard.

  TensorFlow opens such a file, which stays empty, before it asks any hook.
  """
  return {path: path.read_bytes()
          for path in pathlib.Path(folder).rglob('*')
          if path.is_file() and not path.name.startswith('events.')}


def assert_refused(server, argv, words, folder, one_line=True):
  """The script names the mistake, soon, and leaves the folder as it was."""
  before = files(folder)
  result = server.run(argv)
  assert result.code == 1, result
  assert 'Traceback' not in result.stderr
  assert not result.stdout
  if one_line:
    lines = [line for line in result.stderr.splitlines()
             if not line.startswith(('Data: ', 'Warning: '))]
    assert len(lines) == 1, lines
    assert lines[0].startswith('Error: ')
  for word in words:
    assert word in result.stderr
  after = files(folder)
  assert {str(path) for path in after if after[path] != before.get(path)} == (
      set())
  assert set(after) == set(before)
  assert result.cpu_seconds < MAX_CPU_SECONDS
  return result


DYNAMIC = {'training_method': 'rigl'}

# (flags, words that the error must hold).
BAD_FLAGS = [
    ({'mask_init_method': 'gauss'},
     ['mask_init_method', "'gauss'", 'random', 'erdos_renyi_kernel']),
    # A table of some sparsities of the layers of ResNet-50.
    ({'mask_init_method': 'str', 'end_sparsity': 0.5, **DYNAMIC},
     ['0.5', '0.9805']),
    ({'mask_init_method': 'str', 'end_sparsity': 0.9805,
      'training_method': 'scratch'}, ['layer1']),
    ({'drop_fraction_anneal': 'linear', **DYNAMIC},
     ['drop_fraction_anneal', "'linear'", 'cosine', 'exponential']),
    ({'grow_init': 'ones', **DYNAMIC}, ['grow_init', "'ones'", 'zeros']),
    ({'grow_init': 'grad_scale', 'training_method': 'set'},
     ['grow_init', "'grad_scale'", 'zeros']),
    ({'optimizer': 'lion'},
     ['optimizer', "'lion'", *factory.INNER_OPTIMIZERS]),
    ({'network_type': 'conv'}, ['network_type', "'conv'", 'fc']),
    *[({'end_sparsity': value, **DYNAMIC}, ['end_sparsity', str(value)])
      for value in (1.0, -0.1, 1.5, 'nan')],
    *[({'maskupdate_frequency': value}, [f'maskupdate_frequency={value}'])
      for value in (0, -5)],
    ({'maskupdate_begin_step': 20, 'maskupdate_end_step': 10, **DYNAMIC},
     ['maskupdate_begin_step=20', 'maskupdate_end_step=10']),
    ({'maskupdate_end_step': -1, **DYNAMIC},
     ['drop_fraction_anneal', 'maskupdate_end_step', 'constant']),
    ({'prune_begin_step': 20, 'prune_end_step': 10,
      'training_method': 'prune'}, ['20', '10', 'Pruning']),
    ({'pruning_frequency': 0}, ['pruning_frequency', '0']),
    ({'drop_fraction': 1.5}, ['drop_fraction', '1.5']),
    ({'s_momentum': 1.0}, ['s_momentum', '1.0']),
    ({'threshold_decay': 1.0}, ['threshold_decay', '1.0']),
    ({'sparsity_scale': 1.1, 'end_sparsity': 0.98, **DYNAMIC},
     ['sparsity_scale=1.1', 'layer2', '1.078']),
    ({'sparsity_scale': -1.}, ['sparsity_scale', '-1.0']),
    ({'batch_size': 201}, ['batch_size', '201', '200']),
    ({'batch_size': 0}, ['batch_size', '0']),
    ({'batch_size': -20}, ['batch_size', '-20']),
    *[({'learning_rate': value}, ['learning_rate', str(value)])
      for value in (0., -0.1, 'nan')],
    ({'momentum': 1.}, ['momentum', '1.0']),
    ({'num_epochs': -1}, ['num_epochs', '-1']),
    ({'lr_drop_epoch': 0}, ['lr_drop_epoch', '0']),
    *[({'l2_scale': value}, ['l2_scale', str(value)])
      for value in (-1., 'nan')],
    ({'sparsity_scale': 'nan'}, ['sparsity_scale', 'nan']),
    ({'seed': -1}, ['seed', '-1']),
    ({'seed': 2**32, **DYNAMIC}, ['seed', str(2**32)]),
    ({'gin_config': '/no/such.gin'}, ['/no/such.gin']),
    ({'gin_bindings': 'SparsityConfig.end_sparsity = 1.5'},
     ['end_sparsity', '1.5']),
    ({'gin_bindings': 'MnistConfig.depth = 3'}, ['MnistConfig', 'depth']),
    ({'gin_bindings': 'MnistConfig.batch_size = "many"'},
     ['MnistConfig.batch_size', 'many']),
    ({'input_mask_path': '/no/checkpoint'}, ['/no/checkpoint']),
]

# Refused while absl reads the command line, in two lines and a hint.
UNREADABLE_FLAGS = [
    ({'training_method': 'lottery'},
     ['training_method', 'lottery', *methods.METHODS]),
    ({'batch_size': 'ten'}, ['batch_size', 'ten']),
    ({'checkpoint_epochs': 0}, ['checkpoint_epochs', '0']),
    ({'mask_record_frequency': -5}, ['mask_record_frequency', '-5']),
    ({'no_such_flag': 1}, ['no_such_flag']),
    ({'end_sparsities': 0.5}, ['end_sparsities', 'end_sparsity']),
]


def name(case):
  return ','.join(f'{k}={v}' for k, v in case.items()) if isinstance(
      case, dict) else ''


@pytest.mark.parametrize('flags, words', BAD_FLAGS, ids=name)
def test_bad_value_of_a_flag(flags, words, data, server, tmp_path):
  assert_refused(
      server, tiny_mnist.arguments(data, tmp_path / 'run', **flags), words,
      tmp_path)


@pytest.mark.parametrize('flags, words', UNREADABLE_FLAGS, ids=name)
def test_flag_that_cannot_be_read(flags, words, data, server, tmp_path):
  assert_refused(
      server, tiny_mnist.arguments(data, tmp_path / 'run', **flags), words,
      tmp_path, one_line=False)


def test_forgotten_dashes(data, server, tmp_path):
  """Else 200 epochs of dense training begin."""
  argv = tiny_mnist.arguments(data, tmp_path / 'run')
  assert_refused(
      server, ['training_method=rigl', *argv], ['training_method=rigl'],
      tmp_path)


def test_verbosity_shows_where_an_error_came_from(data, server, tmp_path):
  result = server.run([*tiny_mnist.arguments(
      data, tmp_path / 'run', end_sparsity=2.), '--verbosity=1'])
  assert result.code == 1
  assert 'Traceback' in result.stderr and 'config.py' in result.stderr
  assert result.stderr.splitlines()[-1].startswith('Error: end_sparsity')


def test_training_that_diverges(data, server, tmp_path):
  """No mistake that can be seen before, but no reason for a traceback."""
  result = server.run(tiny_mnist.arguments(
      data, tmp_path / 'run', learning_rate=1e30))
  assert result.code == 1
  assert 'Traceback' not in result.stderr
  assert 'NaN' in result.stderr.splitlines()[-1]


# --- Data --------------------------------------------------------------------

IMAGES, LABELS = (
    mnist_data.IDX_FILES['train_images'], mnist_data.IDX_FILES['test_labels'])


@pytest.mark.parametrize('damage, words', [
    (lambda folder: (folder / IMAGES).unlink(), [IMAGES, 'missing']),
    (lambda folder: (folder / LABELS).unlink(), [LABELS, 'missing']),
    (lambda folder: [path.unlink() for path in folder.iterdir()],
     ['holds none of them']),
    (lambda folder: (folder / IMAGES).write_bytes(
        (folder / IMAGES).read_bytes()[:5000]), [IMAGES, 'truncated']),
    (lambda folder: (folder / LABELS).write_bytes(b''),
     [LABELS, 'truncated']),
    (lambda folder: (folder / IMAGES).write_bytes(
        (folder / LABELS).read_bytes()), [IMAGES, 'magic number']),
])
def test_missing_or_damaged_digits(damage, words, server, tmp_path):
  folder = tiny_mnist.write_idx_files(tmp_path / 'digits')
  damage(folder)
  assert_refused(
      server, tiny_mnist.arguments(folder, tmp_path / 'run'),
      [*words, str(folder)], tmp_path)


# --- Checkpoints -------------------------------------------------------------


@pytest.fixture(scope='module')
def former_runs(data, server, tmp_path_factory):
  """{name: folder} of finished trainings."""
  folders = {}
  for name, flags in {
      'baseline': {}, 'rigl': DYNAMIC,
      'scratch': {'training_method': 'scratch'}}.items():
    folders[name] = tmp_path_factory.mktemp('runs') / name
    result = server.run(
        tiny_mnist.arguments(data, folders[name], num_epochs=1, **flags))
    assert result.code == 0, result.stderr
  return folders


@pytest.mark.parametrize('former, flags', [
    ('baseline', DYNAMIC),
    ('scratch', DYNAMIC),
    ('scratch', {}),
    ('rigl', {'training_method': 'momentum'}),
    ('rigl', {'training_method': 'snip'}),
    ('rigl', {**DYNAMIC, 'optimizer': 'adam'}),
    # The variables are the same ones, or a part of them.
    ('rigl', {'training_method': 'set'}),
    ('rigl', {'training_method': 'scratch'}),
    # As many epochs as were trained: finished, but with another training.
    ('baseline', {**DYNAMIC, 'num_epochs': 1}),
    ('rigl', {**DYNAMIC, 'optimizer': 'adam', 'num_epochs': 1}),
], ids=name)
def test_save_path_of_another_training(
    former, flags, former_runs, data, server, tmp_path):
  """The error names the folder and a variable or the flag that differs."""
  folder = shutil.copytree(former_runs[former], tmp_path / 'run')
  result = assert_refused(
      server, tiny_mnist.arguments(data, folder, **flags), [str(folder)],
      folder)
  assert re.search(
      r'\w+ is missing there|training_method|optimizer', result.stderr)


def test_save_path_of_another_network(former_runs, data, server, tmp_path):
  """The pixels that a former run kept make a smaller first layer."""
  folder = shutil.copytree(former_runs['scratch'], tmp_path / 'run')
  assert_refused(
      server, tiny_mnist.arguments(
          data, folder, training_method='scratch',
          input_mask_path=former_runs['rigl']),
      ['layer1/weights is [784, 300] there', str(folder)], folder)


def test_input_mask_of_a_dense_training(former_runs, data, server, tmp_path):
  assert_refused(
      server, tiny_mnist.arguments(
          data, tmp_path / 'run', input_mask_path=former_runs['baseline']),
      ['layer1/mask is missing', str(former_runs['baseline'])], tmp_path)


@pytest.mark.parametrize('suffix', ['index', 'data-00000-of-00001'])
def test_damaged_checkpoint_in_the_save_path(
    suffix, former_runs, data, server, tmp_path):
  folder = shutil.copytree(former_runs['scratch'], tmp_path / 'run')
  path = folder / f'model.ckpt-10.{suffix}'
  path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2])
  assert_refused(
      server, tiny_mnist.arguments(data, folder, training_method='scratch'),
      ['model.ckpt-10'], folder)


def test_save_path_that_is_a_file(data, server, tmp_path):
  path = tmp_path / 'run'
  path.write_text('')
  assert_refused(
      server, tiny_mnist.arguments(data, path), [str(path)], tmp_path)

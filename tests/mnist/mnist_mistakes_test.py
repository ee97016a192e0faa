"""Mistakes of a user of the MNIST script: one clear line, and nothing begun.

Each command line runs as a process of its own.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable

import pytest

from rigl.core import methods
from rigl.mnist import mnist_data
from tests import script_server, tiny_mnist
from tests.faults import scripts

DYNAMIC = {'training_method': 'rigl'}


@dataclasses.dataclass
class Server:
  """Runs the script.

  Attributes:
    run: see ScriptServer.
    training_seconds: processor time of one epoch of RigL.
  """

  run: Callable[[list[str]], script_server.Result]
  training_seconds: float


@pytest.fixture(scope='module')
def server(data, tmp_path_factory):
  folder = tmp_path_factory.mktemp('server')
  with script_server.ScriptServer('rigl.mnist.mnist_train_eval', folder) as server:
    trained = server.run(tiny_mnist.arguments(data, folder / 'run', num_epochs=1, **DYNAMIC))
    assert trained.code == 0, trained.stderr
    yield Server(server.run, trained.cpu_seconds)


def assert_refused(server, argv, words, folder, one_line=True):
  """The script names the mistake before any long work and leaves the folder unchanged."""
  before = scripts.files(folder)
  result = server.run(argv)
  assert result.code == 1, result
  assert 'Traceback' not in result.stderr
  assert not result.stdout
  if one_line:
    lines = [
      line for line in result.stderr.splitlines() if not line.startswith(('Data: ', 'Warning: '))
    ]
    assert len(lines) == 1, lines
    assert lines[0].startswith('Error: ')
  for word in words:
    assert word in result.stderr
  after = scripts.files(folder)
  assert {str(path) for path in after if after[path] != before.get(path)} == (set())
  assert set(after) == set(before)
  assert result.cpu_seconds < server.training_seconds
  return result


# (flags, words that the error must hold); faults/flags_test.py has the single
# flags of all scripts.
BAD_FLAGS = [
  ({'end_sparsity': 1.5, **DYNAMIC}, ['end_sparsity', '1.5']),
  # A table of some sparsities of the layers of ResNet-50.
  ({'mask_init_method': 'str', 'end_sparsity': 0.5, **DYNAMIC}, ['0.5', '0.9805']),
  ({'mask_init_method': 'str', 'end_sparsity': 0.9805, 'training_method': 'scratch'}, ['layer1']),
  (
    {'sparsity_scale': 1.1, 'end_sparsity': 0.98, **DYNAMIC},
    ['sparsity_scale=1.1', 'layer2', '1.078'],
  ),
  # There are 200 images.
  ({'batch_size': 201}, ['batch_size', '201', '200']),
  ({'gin_bindings': 'SparsityConfig.end_sparsity = 1.5'}, ['end_sparsity', '1.5']),
  ({'gin_bindings': 'MnistConfig.depth = 3'}, ['MnistConfig', 'depth']),
  ({'gin_bindings': 'MnistConfig.batch_size = "many"'}, ['MnistConfig.batch_size', 'many']),
]

# Refused while absl reads the command line, in two lines and a hint.
UNREADABLE_FLAGS = [
  ({'training_method': 'lottery'}, ['training_method', 'lottery', *methods.METHODS]),
  ({'batch_size': 'ten'}, ['batch_size', 'ten']),
  ({'checkpoint_epochs': 0}, ['checkpoint_epochs', '0']),
  ({'mask_record_frequency': -5}, ['mask_record_frequency', '-5']),
  ({'no_such_flag': 1}, ['no_such_flag']),
  ({'end_sparsities': 0.5}, ['end_sparsities', 'end_sparsity']),
]


def name(case):
  return ','.join(f'{k}={v}' for k, v in case.items()) if isinstance(case, dict) else ''


@pytest.mark.parametrize('flags, words', BAD_FLAGS, ids=name)
def test_bad_value_of_a_flag(flags, words, data, server, tmp_path):
  assert_refused(server, tiny_mnist.arguments(data, tmp_path / 'run', **flags), words, tmp_path)


@pytest.mark.parametrize('flags, words', UNREADABLE_FLAGS, ids=name)
def test_flag_that_cannot_be_read(flags, words, data, server, tmp_path):
  assert_refused(
    server, tiny_mnist.arguments(data, tmp_path / 'run', **flags), words, tmp_path, one_line=False
  )


def test_forgotten_dashes(data, server, tmp_path):
  """Otherwise 200 epochs of dense training would start."""
  argv = tiny_mnist.arguments(data, tmp_path / 'run')
  assert_refused(
    server, ['training_method=rigl', *argv], ['training_method=rigl'], tmp_path, one_line=False
  )


def test_verbosity_shows_where_an_error_came_from(data, server, tmp_path):
  result = server.run(
    [
      *tiny_mnist.arguments(
        data, tmp_path / 'run', training_method='prune', prune_begin_step=9, prune_end_step=9
      ),
      '--verbosity=1',
    ]
  )
  assert result.code == 1
  assert 'Traceback' in result.stderr and 'config.py' in result.stderr
  assert result.stderr.splitlines()[-1].startswith('Error: Pruning must')


# --- Data --------------------------------------------------------------------

IMAGES, LABELS = (mnist_data.IDX_FILES['train_images'], mnist_data.IDX_FILES['test_labels'])


@pytest.mark.parametrize(
  'damage, words',
  [
    (lambda folder: (folder / IMAGES).unlink(), [IMAGES, 'missing']),
    (lambda folder: (folder / LABELS).unlink(), [LABELS, 'missing']),
    (lambda folder: [path.unlink() for path in folder.iterdir()], ['is empty']),
    (
      lambda folder: (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:5000]),
      [IMAGES, 'truncated'],
    ),
    (lambda folder: (folder / LABELS).write_bytes(b''), [LABELS, 'truncated']),
    (
      lambda folder: (folder / IMAGES).write_bytes((folder / LABELS).read_bytes()),
      [IMAGES, 'magic number'],
    ),
  ],
)
def test_missing_or_damaged_digits(damage, words, server, tmp_path):
  folder = tiny_mnist.write_idx_files(tmp_path / 'digits')
  damage(folder)
  assert_refused(
    server, tiny_mnist.arguments(folder, tmp_path / 'run'), [*words, str(folder)], tmp_path
  )


# --- Checkpoints -------------------------------------------------------------


@pytest.fixture(scope='module')
def former_runs(data, server, tmp_path_factory):
  """{name: folder} of finished trainings."""
  folders = {}
  for name, flags in {
    'baseline': {},
    'rigl': DYNAMIC,
    'scratch': {'training_method': 'scratch'},
  }.items():
    folders[name] = tmp_path_factory.mktemp('runs') / name
    result = server.run(tiny_mnist.arguments(data, folders[name], num_epochs=1, **flags))
    assert result.code == 0, result.stderr
  return folders


@pytest.mark.parametrize(
  'former, flags, words',
  [
    ('baseline', DYNAMIC, ['training_method']),
    ('scratch', DYNAMIC, ['training_method']),
    ('scratch', {}, ['training_method']),
    ('rigl', {'training_method': 'set'}, ['training_method=rigl, not set']),
    ('rigl', {**DYNAMIC, 'optimizer': 'adam'}, ['optimizer=momentum, not adam']),
    ('rigl', {**DYNAMIC, 'batch_size': 10}, ['batch_size=20, not 10']),
    ('rigl', {**DYNAMIC, 'seed': 1}, ['seed=0, not 1']),
    # As many epochs as were trained: finished, but with another training.
    ('baseline', {**DYNAMIC, 'num_epochs': 1}, ['training_method']),
    ('rigl', {**DYNAMIC, 'optimizer': 'adam', 'num_epochs': 1}, ['optimizer']),
  ],
  ids=name,
)
def test_save_path_of_another_training(former, flags, words, former_runs, data, server, tmp_path):
  folder = shutil.copytree(former_runs[former], tmp_path / 'run')
  assert_refused(
    server,
    tiny_mnist.arguments(data, folder, **flags),
    [*words, str(folder), 'another save_path'],
    folder,
  )


def test_save_path_of_a_training_on_other_pixels(former_runs, data, server, tmp_path):
  """Their number alone would not tell."""
  folder = shutil.copytree(former_runs['scratch'], tmp_path / 'run')
  assert_refused(
    server,
    tiny_mnist.arguments(
      data, folder, training_method='scratch', input_mask_path=former_runs['rigl']
    ),
    [f'input_mask_path=, not {former_runs["rigl"]}', str(folder)],
    folder,
  )


def test_save_path_of_another_network(former_runs, data, server, tmp_path):
  folder = shutil.copytree(former_runs['scratch'], tmp_path / 'run')
  (folder / 'config.gin').unlink()
  assert_refused(
    server,
    tiny_mnist.arguments(data, folder, **DYNAMIC),
    ['last_mask_update_step is missing there', str(folder)],
    folder,
  )


def test_input_mask_of_a_dense_training(former_runs, data, server, tmp_path):
  assert_refused(
    server,
    tiny_mnist.arguments(data, tmp_path / 'run', input_mask_path=former_runs['baseline']),
    ['layer1/mask is missing', str(former_runs['baseline'])],
    tmp_path,
  )

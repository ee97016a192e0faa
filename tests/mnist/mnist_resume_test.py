"""A training that is stopped ends as if it never had been.

tests/faults/kill_test.py has those that are killed.
"""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys

import pytest

from rigl.mnist import mask_records, mnist_train_eval
from tests import script_server, tiny_mnist
from tests.faults import scripts

N_EPOCHS = 6


@pytest.fixture(scope='module')
def temporary(tmp_path_factory):
  """The folder of temporary files of all runs."""
  return tmp_path_factory.mktemp('temporary')


@pytest.fixture(scope='module')
def server(tmp_path_factory, temporary):
  with script_server.ScriptServer(
    'rigl.mnist.mnist_train_eval',
    tmp_path_factory.mktemp('server'),
    PYTHONHASHSEED='1',
    TMPDIR=str(temporary),
  ) as server:
    yield server


def arguments(data, folder, method):
  return scripts.arguments(
    'mnist',
    {'mnist': data},
    folder,
    method,
    num_epochs=N_EPOCHS,
    checkpoint_epochs=2,
    **scripts.MNIST_METHODS[method],
  )


@pytest.fixture(scope='module')
def uninterrupted(data, server, tmp_path_factory):
  """fn(method) -> folder of a whole training, made once."""

  @functools.lru_cache(maxsize=None)
  def folder_of(method):
    folder = tmp_path_factory.mktemp('whole') / method
    result = server.run(arguments(data, folder, method))
    assert result.code == 0, result.stderr
    return folder

  return folder_of


def n_epochs_of(text):
  """How many epochs a script has reported."""
  return sum(line.startswith('epoch ') for line in text.splitlines())


def assert_whole(folder, expected_folder):
  """All results are bit-identical, and each epoch is reported once."""
  scripts.assert_same(folder, expected_folder)
  lines = tiny_mnist.text_file(folder).read_text().splitlines()
  assert sum(line.startswith('epoch=') for line in lines) == N_EPOCHS


def test_stopped_in_the_middle_of_an_epoch(data, server, uninterrupted, tmp_path):
  argv = arguments(data, tmp_path, 'rigl')
  run = server.start(argv)
  run.wait_for('epoch   3/')
  run.kill(signal.SIGTERM)
  stopped = run.wait()
  assert stopped.code == 128 + signal.SIGTERM
  *_, warning, last = stopped.stderr.splitlines()
  assert warning == ('Warning: SIGTERM: stopping after this step; again to stop at once.')
  assert re.fullmatch(
    rf'Stopped at iteration [23]\d of 60, saved in {re.escape(str(tmp_path))}'
    r'\. The same command goes on\.',
    last,
  )
  assert 'Test error' not in stopped.stdout
  # Nothing is lost: it goes on from the step it was stopped at.
  before = n_epochs_of(stopped.stdout)
  resumed = server.run(argv)
  assert resumed.code == 0, resumed.stderr
  assert resumed.stdout.startswith(f'Going on from {tmp_path}/model.ckpt-')
  assert before + n_epochs_of(resumed.stdout) == N_EPOCHS
  assert_whole(tmp_path, uninterrupted('rigl'))


@pytest.mark.parametrize(
  'flags, words',
  [
    ({}, 'Stopped; nothing is kept, as there is no --save_path.'),
    (
      {'save_path': 'run', 'save_model': False},
      'Stopped; no checkpoint is kept, as of --nosave_model.',
    ),
  ],
)
def test_stopped_training_of_which_nothing_is_kept(flags, words, data, server, temporary, tmp_path):
  run = server.start(tiny_mnist.arguments(data, num_epochs=10**6, **flags), tmp_path)
  run.wait_for('epoch   2/')
  run.kill(signal.SIGINT)
  stopped = run.wait()
  assert stopped.code == 128 + signal.SIGINT
  assert stopped.stderr.splitlines()[-1] == words
  assert not list(temporary.rglob('model.ckpt*'))


def test_divergence_without_a_save_path_speaks_of_no_checkpoint(data, server):
  error = scripts.error_line(server.run(tiny_mnist.arguments(data, learning_rate=1e30)))
  assert 'NaN or infinity' in error and 'checkpoint' not in error


def test_finished_training_that_is_made_longer(data, server, uninterrupted, tmp_path):
  """It continues the same text file and mask records."""
  for n_epochs in (2, N_EPOCHS):
    result = server.run([*arguments(data, tmp_path, 'rigl'), f'--num_epochs={n_epochs}'])
    assert result.code == 0, result.stderr
  assert_whole(tmp_path, uninterrupted('rigl'))
  records = mask_records.MaskRecords.load(tiny_mnist.records_file(tmp_path))
  assert records.iterations[0] == 0
  best = re.search(r'best (\S*)%', result.stdout)[1]
  accuracies = re.findall('test accuracy ([.0-9]+)', tiny_mnist.text_file(tmp_path).read_text())
  assert len(accuracies) == N_EPOCHS
  assert float(best) == pytest.approx(100 - 100 * max(map(float, accuracies)))


@pytest.mark.parametrize('fewer', [0, 1, N_EPOCHS])
def test_finished_training_is_left_as_it_is(fewer, data, server, uninterrupted):
  """Also for fewer epochs, or none: the script prints the number of epochs."""
  folder = uninterrupted('rigl')

  def content():
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}

  before = content()
  result = server.run([*arguments(data, folder, 'rigl'), f'--num_epochs={N_EPOCHS - fewer}'])
  assert result.code == 0
  assert result.stdout == f'{folder} already holds {N_EPOCHS} epochs.\n'
  assert content() == before


def test_another_hash_seed_and_the_real_command_line(data, uninterrupted, tmp_path):
  """Python salts hash() per process; nothing may depend on it."""
  cwd, folder = tmp_path / 'cwd', tmp_path / 'run'
  cwd.mkdir()
  paths = [str(tiny_mnist.ROOT), *sys.path]
  result = subprocess.run(
    [sys.executable, mnist_train_eval.__file__, *arguments(data, folder, 'set')],
    cwd=cwd,
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'PYTHONHASHSEED': '2', 'PYTHONPATH': os.pathsep.join(paths)},
  )
  assert result.returncode == 0, result.stderr
  assert n_epochs_of(result.stdout) == N_EPOCHS
  *_, error, kept, show, records, export = result.stdout.splitlines()
  assert re.fullmatch(r'Test error: final \S+%, best \S+% \(epoch \d\)', error)
  assert re.fullmatch(
    # SET trains in all iterations.
    rf'Kept in {re.escape(str(folder))}: model\.ckpt-\d+ and '
    r'metrics\.jsonl\. Next:',
    kept,
  )
  assert show == f'  tensorboard --logdir={folder}'
  assert records == (
    f'  python -m rigl.mnist.visualize_mask_records --records_path={folder} --output=masks.png'
  )
  assert export == (f'  python -m rigl.inference export {folder} --output=model.tflite')
  assert not list(cwd.iterdir())
  assert_whole(folder, uninterrupted('set'))


def test_without_save_path_nothing_is_left(data, server, temporary, tmp_path):
  """Neither in the current folder nor in that of temporary files."""

  def left():
    # TensorFlow deletes its own at exit, but not in forked processes.
    return {
      path for path in temporary.iterdir() if not path.name.startswith('__autograph_generated_file')
    }

  before = left()
  result = server.run(tiny_mnist.arguments(data, training_method='set'), cwd=tmp_path)
  assert result.code == 0
  assert 'No --save_path' in result.stderr
  assert n_epochs_of(result.stdout) == 2
  assert not list(tmp_path.iterdir())
  assert left() == before

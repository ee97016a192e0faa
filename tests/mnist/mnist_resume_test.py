"""A training that is killed or stopped ends as if it never had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rigl.mnist import mnist_train_eval
from rigl.training import methods
from tests import script_server, tiny_mnist

N_EPOCHS = 6

# Flags that make a method draw, move and schedule as much as it can.
METHODS = {
    'rigl': {'grow_init': 'random_uniform_2', 'rigl_acc_scale': 0.01},
    'set': {'grow_init': 'random_normal_10', 'optimizer': 'adam',
            'learning_rate': 0.01},
    'momentum': {'grow_init': 'initial_dist_3'},
    'snip': {},
    'prune': {'prune_end_step': 60, 'threshold_decay': 0.3},
    'dnw': {},
}


@pytest.fixture(scope='module')
def temporary(tmp_path_factory):
  """The folder of temporary files of all runs."""
  return tmp_path_factory.mktemp('temporary')


@pytest.fixture(scope='module')
def server(tmp_path_factory, temporary):
  with script_server.ScriptServer(
      'rigl.mnist.mnist_train_eval', tmp_path_factory.mktemp('server'),
      PYTHONHASHSEED='1', TMPDIR=str(temporary)) as server:
    yield server


def arguments(data, folder, method):
  return tiny_mnist.arguments(
      data, folder, training_method=method, num_epochs=N_EPOCHS,
      checkpoint_epochs=2, mask_record_frequency=7,
      **{'maskupdate_frequency': 4, **METHODS[method]})


@pytest.fixture(scope='module')
def uninterrupted(data, server, tmp_path_factory):
  """fn(method) -> (run or None, folder) of a whole training, made once."""
  started = {}

  def start(method):
    if method not in started:
      folder = tmp_path_factory.mktemp('whole') / method
      started[method] = [server.start(arguments(data, folder, method)), folder]
    return started[method]

  def folder_of(method):
    run, folder = start(method)
    if run is not None:
      result = run.wait()
      assert result.code == 0, result.stderr
      started[method][0] = None
    return folder

  folder_of.start = start
  return folder_of


def assert_same(folder, expected_folder):
  """Every tensor, the text and the masks are the same, bit for bit."""
  values = tiny_mnist.checkpoint_values(folder)
  expected = tiny_mnist.checkpoint_values(expected_folder)
  assert set(values) == set(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(values[name], value, err_msg=name)
  for file in (tiny_mnist.text_file, tiny_mnist.records_file):
    assert file(folder).name == file(expected_folder).name
    assert file(folder).read_bytes() == file(expected_folder).read_bytes()
  lines = tiny_mnist.text_file(folder).read_text().splitlines()
  assert sum(line.startswith('epoch=') for line in lines) == N_EPOCHS


def test_methods_are_known():
  assert set(METHODS) <= set(methods.METHODS)


@pytest.mark.parametrize('method', METHODS)
def test_killed_at_a_random_moment(
    method, data, server, uninterrupted, tmp_path):
  uninterrupted.start(method)
  argv = arguments(data, tmp_path, method)
  run = server.start(argv)
  # Truly random: the claim is about any moment.
  moment = random.SystemRandom()
  run.wait_for(f'epoch   {moment.randint(1, N_EPOCHS - 2)}/')
  time.sleep(moment.uniform(0., 0.03))
  run.kill()
  assert run.wait().code == -signal.SIGKILL
  resumed = server.run(argv)
  assert resumed.code == 0, resumed.stderr
  assert_same(tmp_path, uninterrupted(method))


def test_killed_as_soon_as_a_checkpoint_is_there(
    data, server, uninterrupted, tmp_path):
  """What belongs to the checkpoint is there by then."""
  argv = arguments(data, tmp_path, 'dnw')
  run = server.start(argv)
  state = tmp_path / 'checkpoint'
  end = time.monotonic() + 60.
  while not (state.exists() and 'model.ckpt-40"' in state.read_text()):
    assert time.monotonic() < end
    time.sleep(0.001)
  run.kill()
  assert run.wait().code == -signal.SIGKILL
  resumed = server.run(argv)
  assert resumed.code == 0, resumed.stderr
  assert resumed.stdout.startswith('epoch   5/')
  assert_same(tmp_path, uninterrupted('dnw'))


def test_stopped_in_the_middle_of_an_epoch(
    data, server, uninterrupted, tmp_path):
  argv = arguments(data, tmp_path, 'rigl')
  run = server.start(argv)
  run.wait_for('epoch   3/')
  run.kill(signal.SIGTERM)
  stopped = run.wait()
  assert stopped.code == 0
  assert 'Traceback' not in stopped.stderr
  assert 'Test error' not in stopped.stdout
  # Nothing is lost: it goes on from the step it was stopped at.
  before = stopped.stdout.count('epoch ')
  resumed = server.run(argv)
  assert resumed.code == 0, resumed.stderr
  assert before + resumed.stdout.count('epoch ') == N_EPOCHS
  assert_same(tmp_path, uninterrupted('rigl'))


def test_finished_training_is_left_as_it_is(
    data, server, uninterrupted):
  folder = uninterrupted('rigl')
  before = {path: path.read_bytes() for path in folder.glob('model.ckpt*')}
  result = server.run(arguments(data, folder, 'rigl'))
  assert result.code == 0
  assert f'{folder} already holds {N_EPOCHS} epochs.' in result.stdout
  assert before == {
      path: path.read_bytes() for path in folder.glob('model.ckpt*')}


def test_another_hash_seed_and_the_real_command_line(
    data, uninterrupted, tmp_path):
  """Python salts hash() per process; nothing may depend on it."""
  cwd, folder = tmp_path / 'cwd', tmp_path / 'run'
  cwd.mkdir()
  paths = [str(tiny_mnist.ROOT), *sys.path]
  result = subprocess.run(
      [sys.executable, mnist_train_eval.__file__,
       *arguments(data, folder, 'set')],
      cwd=cwd, capture_output=True, text=True, check=False,
      env={**os.environ, 'PYTHONHASHSEED': '2',
           'PYTHONPATH': os.pathsep.join(paths)})
  assert result.returncode == 0, result.stderr
  assert result.stdout.count('epoch ') == N_EPOCHS
  assert result.stdout.splitlines()[-1].startswith('Test error: final ')
  assert not list(cwd.iterdir())
  assert_same(folder, uninterrupted('set'))


def test_without_save_path_nothing_is_left(
    data, server, temporary, tmp_path):
  """Neither in the current folder nor in that of temporary files."""

  def left():
    # TensorFlow's own go when a process exits, which forked ones do not.
    return {path for path in temporary.iterdir()
            if not path.name.startswith('__autograph_generated_file')}

  before = left()
  result = server.run(
      tiny_mnist.arguments(data, training_method='set'), cwd=tmp_path)
  assert result.code == 0
  assert 'No --save_path' in result.stderr
  assert result.stdout.count('epoch ') == 2
  assert not list(tmp_path.iterdir())
  assert left() == before

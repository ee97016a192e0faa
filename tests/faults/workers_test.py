"""Two worker processes train as one, and resume after the death of one.

The hook that compares the variables of all workers at each checkpoint
(tests/training/distribution_test.py) runs along.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from rigl.core import methods
from rigl.training import distribution
from tests.faults import scripts

N_WORKERS = 2
N_EPOCHS = 6
TIMEOUT_SECONDS = 240.0


def free_ports(n):
  """Unused ports."""
  found = []
  for _ in range(n):
    found.append(socket.socket())
    found[-1].bind(('localhost', 0))
  ports = [s.getsockname()[1] for s in found]
  for s in found:
    s.close()
  return ports


class Workers:
  """The workers of a training; a context manager that ends them."""

  def __init__(self, script, argv, logs, step_timeout=distribution.STEP_TIMEOUT_SECONDS):
    self._argv = [
      sys.executable,
      '-c',
      f'import {scripts.MODULES[script]} as module\n'
      'from rigl.training import distribution, script\n'
      f'distribution.STEP_TIMEOUT_SECONDS = {step_timeout}\n'
      'script.run(module.main, module.SCHEMA)',
      *argv,
    ]
    self._addresses = [f'localhost:{port}' for port in free_ports(N_WORKERS)]
    self._logs = logs
    self._logs.mkdir()
    self._running = {}

  def start(self, index):
    """Starts a worker, with its own seed of hash()."""
    # Kubeflow writes jobs without replicas like this.
    config = {
      'cluster': {'chief': [], 'ps': [], 'worker': self._addresses},
      'task': {'type': 'worker', 'index': index},
      'environment': 'cloud',
    }
    with (self._logs / f'{index}.txt').open('a') as log:
      self._running[index] = subprocess.Popen(
        self._argv,
        stdout=log,
        stderr=log,
        env={**os.environ, 'TF_CONFIG': json.dumps(config), 'PYTHONHASHSEED': str(index + 1)},
      )

  def stop(self, index):
    """Lets one of them hang."""
    self._running[index].send_signal(signal.SIGSTOP)

  def kill(self, index):
    """Ends one of them by SIGKILL."""
    self._running[index].kill()
    self._running[index].wait()

  def end_of(self, index):
    """The exit code of one of them."""
    return self._running[index].wait(TIMEOUT_SECONDS)

  def log(self, index):
    """The output of a worker."""
    return (self._logs / f'{index}.txt').read_text()

  def wait(self):
    """Waits until all workers have ended successfully."""
    end = time.monotonic() + TIMEOUT_SECONDS
    for index, process in self._running.items():
      code = process.wait(max(end - time.monotonic(), 0.1))
      assert code == 0, self.log(index)

  def __enter__(self):
    for index in range(N_WORKERS):
      self.start(index)
    return self

  def __exit__(self, *_):
    for process in self._running.values():
      process.kill()
      process.wait()


def arguments(script, data, folder, method, **values):
  if script == 'mnist':
    values = {'mask_record_frequency': 0, 'learning_rate': 0.02, **values}
  return scripts.arguments(script, data, folder, method, **values)


@pytest.mark.slow
@pytest.mark.parametrize('method', methods.METHODS)
def test_two_workers_train_as_one(method, data, servers, tmp_path):
  argv = arguments('mnist', data, tmp_path / 'one', method)
  assert servers('mnist').run(argv).code == 0
  with Workers(
    'mnist', arguments('mnist', data, tmp_path / 'two', method), tmp_path / 'logs'
  ) as workers:
    workers.wait()
    assert 'Test error' in workers.log(0)
    assert 'epoch' not in workers.log(1)
  scripts.assert_same_masks(tmp_path / 'two', tmp_path / 'one')


@pytest.mark.slow
@pytest.mark.parametrize('script', ['cifar', 'imagenet'])
@pytest.mark.parametrize('method', ['rigl', 'prune'])
def test_two_workers_are_two_replicas(script, method, data, servers, tmp_path):
  argv = arguments(script, data, tmp_path / 'one', method, num_replicas=2)
  assert servers(script).run(argv).code == 0
  with Workers(
    script, arguments(script, data, tmp_path / 'two', method), tmp_path / 'logs'
  ) as workers:
    workers.wait()
  one, two = (scripts.final_values(tmp_path / n) for n in ('one', 'two'))
  assert set(one) == set(two)
  for name, value in one.items():
    np.testing.assert_allclose(two[name], value, rtol=1e-2, atol=1e-4, err_msg=name)


def wait_for_epoch_2(workers):
  end = time.monotonic() + TIMEOUT_SECONDS
  while 'epoch   2' not in workers.log(0):
    assert time.monotonic() < end, workers.log(0) + workers.log(1)
    time.sleep(0.02)


def check_ends_alone(workers, index):
  """A worker ends because it has lost the other."""
  assert 'Test error' not in workers.log(0)
  assert workers.end_of(index) == 1, workers.log(index)
  [error] = re.findall('^Error: .*', workers.log(index), re.MULTILINE)
  assert 'one of them is gone. Start all workers again' in error


def train_with_a_death(argv, victim, logs):
  """Kills one of two workers, waits for the other, and starts both again."""
  # The other may wait for an answer that the victim no longer gives.
  with Workers('mnist', argv, logs, step_timeout=60) as workers:
    wait_for_epoch_2(workers)
    workers.kill(victim)
    check_ends_alone(workers, 1 - victim)
    for index in range(N_WORKERS):
      workers.start(index)
    workers.wait()
    assert 'Test error' in workers.log(0)
    assert 'epoch' not in workers.log(1)


@pytest.mark.slow
@pytest.mark.parametrize('victim', range(N_WORKERS))
def test_a_worker_that_hangs_is_not_waited_for(victim, data, tmp_path):
  argv = arguments('mnist', data, tmp_path / 'run', 'rigl', num_epochs=100)
  with Workers('mnist', argv, tmp_path / 'logs', step_timeout=15) as workers:
    wait_for_epoch_2(workers)
    workers.stop(victim)
    check_ends_alone(workers, 1 - victim)


def test_two_workers_train_as_one_though_one_died(data, servers, tmp_path):
  one, two = (
    arguments('mnist', data, tmp_path / name, 'rigl', num_epochs=N_EPOCHS)
    for name in ('one', 'two')
  )
  assert servers('mnist').run(one).code == 0
  train_with_a_death(two, 1, tmp_path / 'logs')
  scripts.assert_same_masks(tmp_path / 'two', tmp_path / 'one')


@pytest.mark.slow
@pytest.mark.parametrize('method', ['rigl', 'momentum', 'prune'])
@pytest.mark.parametrize('victim', range(N_WORKERS))
def test_workers_resume_after_a_death(method, victim, data, tmp_path):
  """To the same bits as a training without a death."""
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  argv = {
    folder: arguments('mnist', data, folder, method, num_epochs=N_EPOCHS)
    for folder in (whole, killed)
  }
  with Workers('mnist', argv[whole], tmp_path / 'logs_whole') as workers:
    workers.wait()
  train_with_a_death(argv[killed], victim, tmp_path / 'logs_killed')
  scripts.assert_same(killed, whole)

"""Trainings killed by SIGKILL, again and again, end as if they never had been.

Killed between two steps, in the middle of one, at its end (so also on and
after steps that move masks), while files of a checkpoint are written, and
before each single change of a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from rigl.core import methods
from tests.faults import scripts

# {script: runs of the session in a whole training, at least}.
N_RUNS = {'mnist': 40, 'cifar': 16, 'imagenet': 12}
KINDS = ('between', 'within', 'after', 'writing')
TIMEOUT_SECONDS = 120.


def checkpoint_names(folder):
  """Names of files and folders of checkpoints; they come and go meanwhile."""
  return {name for _, folders, files in os.walk(folder)
          for name in (*folders, *files) if name.startswith('model.ckpt-')}


def kill_while_writing(run, folder, rng):
  """Kills as soon as a file of the chosen checkpoint appears."""
  before = checkpoint_names(folder)
  wanted = rng.randint(1, 2)
  end = time.monotonic() + TIMEOUT_SECONDS
  steps = set()
  while len(steps) < wanted:
    steps |= {name.split('.')[1].split('_')[0]
              for name in checkpoint_names(folder) - before}
    if time.monotonic() > end or 'Test error' in run.output():
      break
  time.sleep(rng.choice((0., 0., 0.002)))
  with contextlib.suppress(ProcessLookupError):
    run.kill()


def kill_once(server, argv, folder, cwd, kind, script, rng):
  """Starts a training and kills it; returns whether it had not ended."""
  cwd.mkdir(exist_ok=True)
  order = cwd / 'kill.json'
  order.unlink(missing_ok=True)
  if kind != 'writing':
    order.write_text(json.dumps({
        'run': rng.randint(1, N_RUNS[script] // 2),
        'delay': {'between': 0., 'within': rng.uniform(0., 0.01),
                  'after': None}[kind]}))
  run = server.start(argv, cwd)
  if kind == 'writing':
    kill_while_writing(run, folder, rng)
  result = run.wait()
  assert result.code in (0, -signal.SIGKILL), result.stderr
  return result.code == -signal.SIGKILL


def check(script, method, kinds, data, server, tmp_path):
  """Kills a training once for each of `kinds`; returns how often it died."""
  rng = random.Random(f'{script} {method} 0')
  values = scripts.MNIST_METHODS.get(method, {}) if script == 'mnist' else {}
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  killed.mkdir()
  result = server.run(scripts.arguments(script, data, whole, method, **values))
  assert result.code == 0, result.stderr
  argv = scripts.arguments(script, data, killed, method, **values)
  n_kills = sum(
      kill_once(server, argv, killed, tmp_path / 'cwd', kind, script, rng)
      for kind in kinds)
  result = server.run(argv)
  assert result.code == 0, result.stderr
  scripts.assert_same(killed, whole)
  print(f'{script} {method}: survived {n_kills} kills')
  return n_kills


@pytest.mark.parametrize('script, method, kinds', [
    ('mnist', 'rigl', ('writing', 'after', 'within')),
    pytest.param('cifar', 'rigl', ('after',), marks=pytest.mark.slow),
    ('imagenet', 'rigl', ('writing',)),
])
def test_killed_training_ends_as_if_it_had_not_been(
    script, method, kinds, data, servers, tmp_path):
  assert check(script, method, kinds, data, servers(script), tmp_path) >= 1


@pytest.mark.slow
@pytest.mark.parametrize('method', methods.METHODS)
@pytest.mark.parametrize('script', scripts.MODULES)
def test_killed_again_and_again(script, method, data, servers, tmp_path):
  kinds = random.Random(f'{script} {method} 0').sample(KINDS, 2)
  assert check(script, method, kinds, data, servers(script), tmp_path) >= 1


@pytest.fixture(scope='module')
def killing_library(tmp_path_factory):
  """Path of the compiled kill_before_change.c."""
  compiler = shutil.which('cc')
  if compiler is None or sys.platform != 'linux':
    pytest.skip('needs Linux and a C compiler')
  path = tmp_path_factory.mktemp('library') / 'kill_before_change.so'
  source = pathlib.Path(__file__).with_name('kill_before_change.c')
  subprocess.run([compiler, '-shared', '-fPIC', '-o', str(path), str(source),
                  '-ldl'], check=True)
  return path


def names_of_files(folder):
  """All but TensorBoard's, which each start adds one to.

  And but the graph that TensorFlow writes after a checkpoint is named the
  latest, which nothing reads.
  """
  return {str(path.relative_to(folder)) for path in scripts.files(folder)
          if path.suffix != '.meta'}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_before_each_change_of_a_file(data, killing_library, tmp_path):
  """And every other one again while it goes on; nothing is left of it."""
  rng = random.Random(0)
  whole, killed, cwd = (tmp_path / name for name in ('whole', 'killed', 'cwd'))
  cwd.mkdir()
  order = cwd / 'kill.json'
  # The last iteration moves masks: one more makes a step.
  argv = {folder: scripts.arguments(
      'mnist', data, folder, 'rigl', num_epochs=2, maskupdate_frequency=1,
      maskupdate_begin_step=1) for folder in (whole, killed)}
  with scripts.server('mnist', tmp_path,
                      LD_PRELOAD=str(killing_library)) as server:

    def run_killed_before(change):
      order.write_text(json.dumps({'change': change, 'folder': str(killed)}))
      code = server.run(argv[killed], cwd).code
      order.unlink()
      assert code in (0, -signal.SIGKILL)
      return code != 0

    assert server.run(argv[whole], cwd).code == 0
    change = 1
    while run_killed_before(change):
      if change % 2:
        run_killed_before(rng.randint(1, 60))
      result = server.run(argv[killed], cwd)
      assert result.code == 0, (change, result.stderr)
      scripts.assert_same(killed, whole)
      names, wanted = map(names_of_files, (killed, whole))
      # A checkpoint that was about to be deleted stays.
      assert {n for n in names if not n.startswith('model.ckpt-0.')} == (
          wanted), change
      shutil.rmtree(killed)
      change += 1
  print(f'survived a kill before each of {change - 1} changes')
  assert change > 80

"""A training that SIGKILL ends and that is resumed gives the same bits.

It is killed between two steps, during a step, at the end of a step (so also
during and after mask updates), and while a checkpoint is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time

import pytest

from rigl.core import methods
from tests.faults import scripts

# {script: runs of the session in a whole training, at least}.
N_RUNS = {'mnist': 40, 'cifar': 16, 'imagenet': 12}
KINDS = ('between', 'within', 'after', 'writing')
TIMEOUT_SECONDS = 120.0


def checkpoint_names(folder):
  """Names of files and folders of checkpoints; they come and go meanwhile."""
  return {
    name
    for _, folders, files in os.walk(folder)
    for name in (*folders, *files)
    if name.startswith('model.ckpt-')
  }


def kill_while_writing(run, folder, rng):
  """Kills as soon as a file of the chosen checkpoint appears."""
  before = checkpoint_names(folder)
  wanted = rng.randint(1, 2)
  end = time.monotonic() + TIMEOUT_SECONDS
  steps = set()
  while len(steps) < wanted:
    steps |= {name.split('.')[1].split('_')[0] for name in checkpoint_names(folder) - before}
    if time.monotonic() > end or 'Test error' in run.output():
      break
  time.sleep(rng.choice((0.0, 0.0, 0.002)))
  with contextlib.suppress(ProcessLookupError):
    run.kill()


def kill_once(server, argv, folder, cwd, kind, script, rng):
  """Starts a training and kills it; returns whether it had not ended."""
  cwd.mkdir(exist_ok=True)
  order = cwd / 'kill.json'
  order.unlink(missing_ok=True)
  if kind != 'writing':
    order.write_text(
      json.dumps(
        {
          'run': rng.randint(1, N_RUNS[script] // 2),
          'delay': {'between': 0.0, 'within': rng.uniform(0.0, 0.01), 'after': None}[kind],
        }
      )
    )
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
    kill_once(server, argv, killed, tmp_path / 'cwd', kind, script, rng) for kind in kinds
  )
  result = server.run(argv)
  assert result.code == 0, result.stderr
  scripts.assert_same(killed, whole)
  print(f'{script} {method}: survived {n_kills} kills')
  return n_kills


@pytest.mark.parametrize(
  'script, method, kinds',
  [
    ('mnist', 'rigl', ('writing', 'after', 'within')),
    ('cifar', 'rigl', ('after',)),
    ('imagenet', 'rigl', ('writing',)),
  ],
)
def test_killed_training_ends_as_if_it_had_not_been(script, method, kinds, data, servers, tmp_path):
  assert check(script, method, kinds, data, servers(script), tmp_path) >= 1


@pytest.mark.slow
@pytest.mark.parametrize('method', methods.METHODS)
@pytest.mark.parametrize('script', scripts.MODULES)
def test_killed_again_and_again(script, method, data, servers, tmp_path):
  kinds = random.Random(f'{script} {method} 0').sample(KINDS, 2)
  assert check(script, method, kinds, data, servers(script), tmp_path) >= 1

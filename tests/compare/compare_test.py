"""`python -m rigl.compare` on a tiny MNIST."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from rigl.training import history
from tests import environment, tiny_mnist

ROOT = pathlib.Path(__file__).parents[2]
RUNS = ['dense_seed0', 'rigl_sparsity0.9_seed0', 'rigl_sparsity0.98_seed0']


def command(folder, data, *arguments, seeds=1, epochs=2, methods='rigl,dense'):
  own = [word for word in tiny_mnist.arguments(data) if not word.startswith('--num_epochs')]
  return [
    sys.executable,
    '-m',
    'rigl.compare',
    f'--methods={methods}',
    '--sparsities=.9,.98',
    f'--seeds={seeds}',
    f'--output={folder}',
    '--jobs=2',
    *arguments,
    '--',
    *own,
    f'--num_epochs={epochs}',
  ]


def run(*arguments, **values):
  return subprocess.run(
    command(*arguments, **values),
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    env=environment.without_log_level(),
  )


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return tiny_mnist.write_idx_files(tmp_path_factory.mktemp('mnist'))


@pytest.fixture(scope='module')
def compared(data, tmp_path_factory):
  """(folder, result) of a whole comparison."""
  folder = tmp_path_factory.mktemp('compared')
  return folder, run(folder, data)


def test_all_runs_are_trained_and_written(compared):
  folder, result = compared
  assert (result.returncode, result.stderr) == (0, '')
  assert sorted(path.name for path in folder.iterdir()) == sorted(
    [*RUNS, 'figure.png', 'table.csv', 'table.md']
  )
  for name in RUNS:
    found = history.evaluations(history.read(str(folder / name)))
    assert [row['epoch'] for row in found] == [1, 2]
  lines = result.stdout.splitlines()
  assert lines[0] == '3 runs: 0 finished before, 3 to go, 2 at a time'
  assert sorted(line.split('error')[0].split('] ')[1].strip() for line in lines[1:4]) == [
    'dense seed 0',
    'rigl 0.9 seed 0',
    'rigl 0.98 seed 0',
  ]
  assert (folder / 'table.md').read_text() in result.stdout


def test_table_has_the_errors_of_the_rows(compared):
  folder, _ = compared
  with (folder / 'table.csv').open() as file:
    table = {(row['method'], row['end_sparsity']): row for row in csv.DictReader(file)}
  assert list(table) == [('rigl', '0.9'), ('rigl', '0.98'), ('dense', '0.0')]
  last = history.read(str(folder / RUNS[2]))[-1]
  row = table['rigl', '0.98']
  assert float(row['error']) == pytest.approx(1 - last['accuracy'])
  assert float(row['sparsity']) == pytest.approx(last['sparsity'])
  assert float(row['bytes']) == last['bytes']
  assert (row['runs'], row['error_deviation']) == ('1', '')
  assert f'{100 * float(row["error"]):.2f}' in (folder / 'table.md').read_text()
  assert (folder / 'figure.png').read_bytes().startswith(b'\x89PNG')


def test_finished_runs_are_read_and_missing_ones_trained(compared, data):
  """A failing run does not stop the others."""
  folder, _ = compared
  before = {name: (folder / name / 'metrics.jsonl').stat().st_mtime_ns for name in RUNS}
  damaged = folder / 'rigl_sparsity0.9_seed1'
  damaged.mkdir()
  (damaged / 'metrics.jsonl').write_text('rubbish\n')
  result = run(folder, data, seeds=2, methods='rigl')
  assert result.returncode == 1
  assert '4 runs: 2 finished before, 2 to go' in result.stdout
  assert before == {name: (folder / name / 'metrics.jsonl').stat().st_mtime_ns for name in RUNS}
  (line,) = result.stderr.splitlines()
  assert re.match('Error: rigl 0.9 seed 1 failed: .*metrics.jsonl, line 1', line)
  assert re.search(r'\| rigl \| \d+\.\d\d \| \d+\.\d\d ± \d+\.\d\d \|', result.stdout)


def test_other_flags_make_a_run_go_on(compared, data):
  folder, _ = compared
  result = run(folder, data, epochs=3, methods='dense')
  assert result.returncode == 0, result.stderr
  rows = history.read(str(folder / 'dense_seed0'))
  assert [row['epoch'] for row in history.evaluations(rows)] == [1, 2, 3]
  assert json.loads((folder / 'dense_seed0' / 'finished.json').read_text())[-3:] == [
    '--num_epochs=3',
    '--training_method=dense',
    '--seed=0',
  ]


def test_stopped_comparison_goes_on(data, tmp_path):
  """With all its runs, each of which keeps its checkpoints."""
  long = command(tmp_path, data, epochs=10**6, methods='rigl')
  process = subprocess.Popen(
    long,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env=environment.without_log_level(),
  )
  rows = tmp_path / RUNS[1] / 'metrics.jsonl'
  end = time.monotonic() + 120
  while not rows.exists() or rows.read_text().count('\n') < 4:
    assert time.monotonic() < end and process.poll() is None
    time.sleep(0.05)
  os.kill(process.pid, signal.SIGINT)
  _, errors = process.communicate()
  assert process.returncode == 128 + signal.SIGINT
  assert errors == 'Stopped; the same command goes on.\n'
  done = history.read(str(tmp_path / RUNS[1]))[-1]['epoch']
  result = run(tmp_path, data, epochs=done + 2, methods='rigl')
  assert result.returncode == 0, result.stderr
  epochs = [row['epoch'] for row in history.evaluations(history.read(str(tmp_path / RUNS[1])))]
  assert epochs == list(range(1, done + 3))
  assert 'Going on from' in (tmp_path / RUNS[1] / 'output.txt').read_text()

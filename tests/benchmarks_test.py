"""Every benchmark runs, on its shortest settings."""

import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'benchmarks'
# Shortest arguments of each, and what its output must name.
ARGUMENTS = {
  'cifar_input': (['--batches=2', '--repeats=1'], 'images/s'),
  'cifar_steps': (['--steps=1'], 'momentum'),
  'counting': ([], ''),
  'imagenet_input': (['--images=16', '--batch_size=4', '--batches=2', '--repeats=1'], 'images/s'),
  'imagenet_steps': (['--what=update alone', '--batch_size=1', '--steps=1'], 'seconds'),
  'inference': (['lenet', '--sparsity=0.9', '--seconds=0.1'], 'lenet'),
  'keras_mnist': None,  # Needs all of MNIST.
  'keras_steps': (['--batch_size=2', '--steps=2', '--rounds=1', '--starts=1'], 'rigl'),
  'mask_update': (['--sizes', '1000'], '1,000'),
  'mnist_steps': (['--epochs=2', '--rounds=1', '--orders=1', '--scripts=1'], 'fixed masks'),
  'timing': None,  # Shared by the others.
}
QUICK = ('mask_update',)


def test_all_benchmarks_are_here():
  assert set(ARGUMENTS) == {path.stem for path in FOLDER.glob('*.py')}


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name, run in ARGUMENTS.items()
    if run
  ],
)
def test_benchmark_runs(name, tmp_path):
  arguments, words = ARGUMENTS[name]
  if name == 'inference':
    pytest.importorskip('numba')
  if name == 'keras_steps':
    pytest.importorskip('keras', '3')
  run = subprocess.run(
    [sys.executable, FOLDER / f'{name}.py', *arguments],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  assert words in run.stdout

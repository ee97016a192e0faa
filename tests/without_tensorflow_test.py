"""Commands that must not load TensorFlow, which takes seconds."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

import rigl
from tests import combinations
from tests.faults import scripts

ROOT = pathlib.Path(__file__).parents[1]
VISUALIZE = 'rigl.mnist.visualize_mask_records'
COUNTS = 'rigl.micronet'
COMPARES = 'rigl.compare'
CONVERTS = 'rigl.imagenet_resnet.convert_images'
LOADED = 'TensorFlow was loaded'


@pytest.fixture
def python(tmp_path):
  """Runs Python with a package tensorflow that ends the process."""
  package = tmp_path / 'tensorflow'
  package.mkdir()
  # An exception would pass for TensorFlow not being there.
  (package / '__init__.py').write_text(
    'import os, sys, traceback\n'
    f'print("{LOADED}")\n'
    'traceback.print_stack(file=sys.stdout)\n'
    'sys.stdout.flush()\n'
    'os._exit(7)\n'
  )

  def run(*arguments):
    return subprocess.run(
      [sys.executable, *arguments],
      capture_output=True,
      encoding='utf-8',
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{ROOT}'},
    )

  return run


def test_it_is_noticed(python):
  done = python('-c', 'from rigl.compat import tf; tf.Session')
  assert done.returncode == 7
  assert done.stdout.startswith(LOADED)


@pytest.mark.parametrize(
  'module, flag',
  [
    *combinations.thinned(scripts.SCRIPTS.values(), ('--help', '-h', '--helpshort')),
    (VISUALIZE, '--help'),
  ],
)
def test_help_of_a_script(module, flag, python):
  done = python('-m', module, flag)
  assert (done.returncode, done.stderr) == (0, ''), done.stdout
  assert re.search(r'^  --[a-z]+', done.stdout, re.MULTILINE)


def test_help_of_a_script_that_is_started_by_its_path(python):
  done = python('rigl/mnist/mnist_train_eval.py', '--help')
  assert (done.returncode, done.stderr) == (0, ''), done.stdout
  assert re.search(r'^  --[a-z]+', done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
  'module, flag',
  [(COUNTS, '--architecture'), (COMPARES, '--sparsities'), (CONVERTS, '--validation_share')],
)
def test_help_of_other_commands(module, flag, python):
  done = python('-m', module, '--help')
  assert (done.returncode, done.stderr) == (0, ''), done.stdout
  assert flag in done.stdout


@pytest.mark.parametrize(
  'arguments, words', [(['--methods=lottery'], 'lottery'), (['--sparsities=2'], '[0, 1)')]
)
def test_wrong_comparison(arguments, words, python):
  done = python('-m', COMPARES, '--output=/no/such', *arguments)
  assert done.returncode == 2, done.stdout
  assert done.stderr.startswith('Error: ') and words in done.stderr


def test_functions_that_train_are_there(python):
  done = python(
    '-c',
    'import rigl\n'
    'for name in ("mnist", "cifar_resnet", "imagenet_resnet"):\n'
    '  print(getattr(rigl, name).train.__name__)',
  )
  assert (done.stdout, done.stderr) == ('train\n' * 3, '')


@pytest.mark.parametrize(
  'module, mistake',
  combinations.thinned(
    scripts.SCRIPTS.values(),
    [
      (['--end_sparsty=0.9'], ['--end_sparsty', '--end_sparsity']),
      (['--training_method=lottery'], ['training_method', 'lottery', 'rigl']),
      (['--end_sparsity=much'], ['end_sparsity', 'much']),
      (['training_method=rigl'], ["['training_method=rigl']", '--']),
    ],
  ),
)
def test_wrong_command_line(module, mistake, python):
  arguments, words = mistake
  done = python('-m', module, *arguments)
  assert done.returncode == 1, done.stdout
  message, *remedy = done.stderr.splitlines()
  assert message.startswith('Error: ')
  assert all(word in message for word in words)
  assert remedy in ([], ['--help lists all flags.'])


# Except for TensorFlow's own behaviour.
CORE = [
  f'rigl.core.{path.stem}'
  for path in (ROOT / 'rigl' / 'core').glob('*.py')
  if path.stem not in ('__init__', 'tf_selection', 'shared_graphs')
]


def test_import_of_modules_that_flags_need(python):
  modules = [
    *CORE,
    'rigl.checkpoints',
    'rigl.training.command_line',
    'rigl.training.config',
    'rigl.gin_configs',
    'rigl.training.script',
    'rigl.mnist.mnist_config',
    'rigl.cifar_resnet.cifar_config',
    'rigl.imagenet_resnet.imagenet_config',
  ]
  done = python('-c', f'import {", ".join(modules)}')
  assert (done.returncode, done.stderr) == (0, ''), done.stdout


def test_parts_of_the_package_are_loaded_at_first_use(python):
  done = python('-c', 'import rigl; print(rigl.micronet.__name__, *dir(rigl))')
  assert (done.returncode, done.stderr) == (0, '')
  name, *listed = done.stdout.split()
  assert name == 'rigl.micronet'
  assert set(rigl.__all__) < set(listed)
  assert all(importlib.util.find_spec(f'rigl.{part}') for part in rigl.__all__)

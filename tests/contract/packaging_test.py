"""Builds the wheel, installs it in an empty folder and uses it from there."""

from __future__ import annotations

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import rigl

ROOT = pathlib.Path(__file__).parents[2]
BUILD_INPUTS = ('LICENSE', 'README.md', 'pyproject.toml', 'setup.py')


def _run(*command, cwd, **environ):
  """The standard output of a Python command, which must succeed."""
  done = subprocess.run(
    [sys.executable, *map(str, command)],
    cwd=cwd,
    env={**os.environ, **environ},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, f'{command} failed:\n{done.stdout}{done.stderr}'
  return done.stdout.strip()


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A copy of what the wheel is built from; building leaves files behind."""
  folder = tmp_path_factory.mktemp('source')
  for name in BUILD_INPUTS:
    shutil.copy(ROOT / name, folder)
  shutil.copytree(ROOT / 'rigl', folder / 'rigl', ignore=shutil.ignore_patterns('__pycache__'))
  return folder


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
  dist = tmp_path_factory.mktemp('dist')
  offline = ('--no-deps', '--no-build-isolation', '--no-index')
  _run('-m', 'pip', 'wheel', *offline, '-w', dist, source, cwd=dist)
  [path] = dist.glob('*.whl')
  return path


@pytest.fixture(scope='module')
def metadata(wheel):
  with zipfile.ZipFile(wheel) as archive:
    text = archive.read(f'rigl-{rigl.__version__}.dist-info/METADATA')
  return email.message_from_bytes(text)


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
  folder = tmp_path_factory.mktemp('installed')
  offline = ('--no-deps', '--no-index')
  _run('-m', 'pip', 'install', *offline, '--target', folder, wheel, cwd=folder)
  return folder


def test_wheel_holds_every_module_and_data_file(source, wheel):
  with zipfile.ZipFile(wheel) as archive:
    packed = {name for name in archive.namelist() if name.startswith('rigl/')}
  present = {
    path.relative_to(source).as_posix() for path in (source / 'rigl').rglob('*') if path.is_file()
  }
  assert 'rigl/mnist/sample/train-images-idx3-ubyte.gz' in present
  assert packed == present


def test_wheel_holds_nothing_else(wheel):
  with zipfile.ZipFile(wheel) as archive:
    top = {name.split('/')[0] for name in archive.namelist()}
  assert top == {'rigl', f'rigl-{rigl.__version__}.dist-info'}


def test_metadata(metadata):
  assert metadata['Name'] == 'rigl'
  assert metadata['Version'] == rigl.__version__
  assert metadata['License'] == 'Apache-2.0'
  assert metadata['Requires-Python'] == '>=3.10'
  assert set(metadata.get_all('Provides-Extra')) == {
    'docs',
    'estimator',
    'inference',
    'jax',
    'notebooks',
    'test',
    'tpu',
  }


def test_every_dependency_is_bounded(metadata):
  requirements = metadata.get_all('Requires-Dist')
  for requirement in requirements:
    specifier = requirement.split(';')[0]
    pinned = '==' in specifier
    itself = specifier.startswith('rigl[')
    bounded = re.search(r'>=\d', specifier) and re.search(r'<\d', specifier)
    assert pinned or itself or bounded, requirement


def test_setup_py_knows_the_version(source):
  assert _run('setup.py', '--version', cwd=source) == rigl.__version__


def test_installed_package_is_used_from_another_folder(installed, tmp_path):
  code = """
import importlib.metadata
import sys

import rigl

print(rigl.__file__)
print(rigl.__version__, importlib.metadata.version("rigl"))
import rigl.mnist.mnist_data

sys.exit("tensorflow" in sys.modules)
"""
  output = _run('-c', code, cwd=tmp_path, PYTHONPATH=str(installed))
  path, versions = output.splitlines()
  assert pathlib.Path(path) == installed / 'rigl' / '__init__.py'
  assert versions == f'{rigl.__version__} {rigl.__version__}'


def test_package_in_a_zip_file_trains(wheel, tmp_path):
  """With the digits and the gin file that it holds."""
  printed = _run(
    '-m',
    'rigl.mnist.mnist_train_eval',
    '--gin_config=sample',
    '--num_epochs=1',
    '--training_method=rigl',
    cwd=tmp_path,
    PYTHONPATH=str(wheel),
  )
  assert 'epoch   1/1' in printed

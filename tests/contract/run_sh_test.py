"""run.sh sets env/ up once, whoever calls it, and leaves nothing half-made.

A stand-in for Python makes the environments here: it notes each call of pip.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import stat
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

STAND_IN = r'''#!/usr/bin/env bash
set -eu
case "$1 ${2:-}" in
  -c*_base_executable*) echo "$0" ;;
  -c*) echo 3.11.4 ;;
  '-m venv')
    env=${!#}
    rm -rf "$env"
    mkdir -p "$env/bin"
    touch "$env/pyvenv.cfg"
    cp "$0" "$env/bin/python" ;;
  '-m pip')
    echo "pip $*" >>"$CALLS"
    [[ "$*" != *--editable* ]] || sleep "${PIP_SECONDS:-0}"
    [ ! -e "$CALLS.fail" ] || { echo 'no such package' >&2; exit 1; } ;;
  *) echo "python $*" ;;
esac
'''


class Checkout:
  """A folder with run.sh and no environment yet."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder / 'a checkout'
    self.folder.mkdir()
    for name in ('run.sh', 'pyproject.toml', 'setup.py'):
      shutil.copy(ROOT / name, self.folder)
    self._python = folder / 'python'
    self._python.write_text(STAND_IN)
    self._python.chmod(self._python.stat().st_mode | stat.S_IXUSR)
    self._calls = folder / 'calls'
    self.failure = folder / 'calls.fail'

  def start(self, *command: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        ['bash', self.folder / 'run.sh', *command], text=True,
        cwd=self.folder.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, 'PYTHON': str(self._python),
             'CALLS': str(self._calls), **variables})

  def run(self, *command: str) -> tuple[int, str, str]:
    process = self.start(*command)
    out, err = process.communicate()
    return process.returncode, out, err

  @property
  def n_installed(self) -> int:
    """How often the project has been installed."""
    calls = self._calls.read_text() if self._calls.exists() else ''
    return calls.count('--editable')


@pytest.fixture
def checkout(tmp_path):
  return Checkout(tmp_path)


def test_sets_up_once_and_runs_the_command_in_the_environment(checkout):
  code, out, err = checkout.run('python', 'a script.py', '--x=1 2')
  assert (code, out) == (0, 'python a script.py --x=1 2\n')
  assert 'setting up env/ with Python 3.11.4' in err
  assert checkout.run('bash', '-c', 'echo $VIRTUAL_ENV; pwd') == (
      0, f'{checkout.folder}/env\n{checkout.folder.parent}\n', '')
  assert checkout.n_installed == 1


def test_exit_code_is_that_of_the_command(checkout):
  assert checkout.run('bash', '-c', 'exit 7')[0] == 7


def test_changed_requirements_update_it(checkout):
  checkout.run('true')
  with open(checkout.folder / 'pyproject.toml', 'a', encoding='utf-8') as file:
    file.write('# changed\n')
  assert 'updating env/' in checkout.run('true')[2]
  assert checkout.run('true') == (0, '', '')
  assert checkout.n_installed == 2


def test_two_at_once_set_up_once(checkout):
  processes = [checkout.start('true', PIP_SECONDS='0.5') for _ in range(3)]
  assert ''.join(p.communicate()[1] for p in processes).count(
      'waiting for another set-up') == 2
  assert [p.returncode for p in processes] == [0, 0, 0]
  assert checkout.n_installed == 1


def test_set_up_that_was_killed_is_made_again(checkout):
  process = checkout.start('true', PIP_SECONDS='600')
  while not checkout.n_installed:
    assert process.poll() is None
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert checkout.run('true')[0] == 0
  assert checkout.n_installed == 2


def test_failed_installation_is_reported_and_tried_again(checkout):
  checkout.failure.touch()
  code, out, err = checkout.run('echo', 'ran')
  assert (code, out) == (1, '')
  assert 'no such package' in err and 'set-up.log' in err
  checkout.failure.unlink()
  assert checkout.run('echo', 'ran')[:2] == (0, 'ran\n')


def test_folder_of_something_else_is_left_alone(checkout):
  mine = checkout.folder / 'env' / 'settings.txt'
  mine.parent.mkdir()
  mine.touch()
  code, _, err = checkout.run('true')
  assert code == 1 and 'is not a virtual environment' in err
  assert mine.exists() and not checkout.n_installed


def test_unsuitable_python_is_named(checkout):
  process = checkout.start('true', PYTHON='/no/python')
  assert 'PYTHON=/no/python is not a Python 3.9' in process.communicate()[1]
  assert process.returncode == 1

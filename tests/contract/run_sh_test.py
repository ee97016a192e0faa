"""run.sh sets env/ up once, whoever calls it, and leaves nothing half-made.

Stand-ins for Python make the environments here: they note each call of pip.
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

# Its version is that of its name, such as python3.12.
STAND_IN = r"""#!/usr/bin/env bash
set -eu
version=${0##*/python}
case "${1:-} ${2:-}" in
  -c*)
    [[ " $* " == *" $version "* ]]
    echo "$version.4 $0" ;;
  '-m venv')
    env=${!#}
    rm -rf "$env"
    mkdir -p "$env/bin"
    touch "$env/pyvenv.cfg"
    for name in python ruff lint-imports mypy mkdocs; do
      sed "s/^version=.*/version=$version/" "$0" >"$env/bin/$name"
      chmod +x "$env/bin/$name"
    done ;;
  '-m pip')
    echo "pip $*" >>"$CALLS"
    [[ "$*" != *--editable* ]] || sleep "${PIP_SECONDS:-0}"
    [ ! -e "$CALLS.fail" ] || { echo 'no such package' >&2; exit 1; } ;;
  *) echo "${0##*/} $version $*" ;;
esac
"""
# What run.sh, .ci/run, the stand-in and the tests need of a system.
TOOLS = (
  'bash cat chmod cksum dirname echo env flock grep head ls mkdir mv rm sed sleep tail touch true'
)


def make_executable(path: pathlib.Path, text: str = STAND_IN) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return path


class Checkout:
  """A folder with run.sh and no environment yet, on a system of a few commands."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder / 'a checkout'
    for name in ('run.sh', 'pyproject.toml', 'setup.py', '.ci/run'):
      (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, self.folder / name)
    self.pyenv = folder / 'pyenv'
    self._bin = folder / 'bin'
    self._bin.mkdir()
    for tool in TOOLS.split():
      (self._bin / tool).symlink_to(shutil.which(tool))
    self._calls = folder / 'calls'
    self.failure = folder / 'calls.fail'

  def add(self, name: str, text: str = STAND_IN) -> None:
    make_executable(self._bin / name, text)

  def add_to_pyenv(self, version: str) -> None:
    folder = self.pyenv / 'versions' / version / 'bin'
    make_executable(folder / f'python{version.rpartition(".")[0]}')

  def start(self, *command: str, script: str = 'run.sh', **variables: str) -> subprocess.Popen:
    known = {'PATH': str(self._bin), 'HOME': str(self.pyenv), 'PYENV_ROOT': str(self.pyenv)}
    return subprocess.Popen(
      ['bash', self.folder / script, *command],
      text=True,
      cwd=self.folder.parent,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      start_new_session=True,
      env={'CALLS': str(self._calls), **known, **variables},
    )

  def run(self, *command: str, **arguments: str) -> tuple[int, str, str]:
    process = self.start(*command, **arguments)
    out, err = process.communicate()
    return process.returncode, out, err

  @property
  def installed(self) -> list[str]:
    """What each installation of the project has installed."""
    calls = self._calls.read_text() if self._calls.exists() else ''
    return [line.split()[-1] for line in calls.splitlines() if '--editable' in line]


@pytest.fixture
def bare(tmp_path):
  """A checkout on a system without Python."""
  return Checkout(tmp_path)


@pytest.fixture
def checkout(bare):
  bare.add('python3.11')
  return bare


# --- Setting up --------------------------------------------------------------


def test_sets_up_once_and_runs_the_command_in_the_environment(checkout):
  code, out, err = checkout.run('python', 'a script.py', '--x=1 2')
  assert (code, out) == (0, 'python 3.11 a script.py --x=1 2\n')
  assert 'setting up env/ with Python 3.11.4' in err
  assert checkout.run('bash', '-c', 'echo $VIRTUAL_ENV; pwd') == (
    0,
    f'{checkout.folder}/env\n{checkout.folder.parent}\n',
    '',
  )
  assert checkout.installed == ['.[docs,inference,jax,test]']


def test_that_with_estimator_stands_beside_the_other(checkout):
  checkout.run('true')
  code, out, err = checkout.run('bash', '-c', 'echo $VIRTUAL_ENV', ESTIMATOR='1')
  assert (code, out) == (0, f'{checkout.folder}/env-estimator\n')
  assert 'setting up env-estimator/' in err
  assert checkout.installed == ['.[docs,inference,jax,test]', '.[estimator,test]']
  for estimator in ('', '1'):
    assert checkout.run('true', ESTIMATOR=estimator) == (0, '', '')


def test_exit_code_is_that_of_the_command(checkout):
  assert checkout.run('bash', '-c', 'exit 7')[0] == 7


def test_changed_requirements_update_it(checkout):
  checkout.run('true')
  with open(checkout.folder / 'pyproject.toml', 'a', encoding='utf-8') as file:
    file.write('# changed\n')
  assert 'updating env/' in checkout.run('true')[2]
  assert checkout.run('true') == (0, '', '')
  assert len(checkout.installed) == 2


def test_two_at_once_set_up_once(checkout):
  processes = [checkout.start('true', PIP_SECONDS='0.5') for _ in range(3)]
  assert ''.join(p.communicate()[1] for p in processes).count('waiting for another set-up') == 2
  assert [p.returncode for p in processes] == [0, 0, 0]
  assert len(checkout.installed) == 1


def test_set_up_that_was_killed_is_made_again(checkout):
  process = checkout.start('true', PIP_SECONDS='600')
  while not checkout.installed:
    assert process.poll() is None
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGKILL)
  process.communicate()
  assert checkout.run('true')[0] == 0
  assert len(checkout.installed) == 2


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
  assert mine.exists() and not checkout.installed


# --- Which Python ------------------------------------------------------------


def test_the_newest_python_is_taken(bare):
  for name in ('python3.10', 'python3.12', 'python3.14'):
    bare.add(name)
  # As pyenv leaves them for versions that are not selected.
  bare.add('python3.13', '#!/usr/bin/env bash\nexit 127\n')
  assert 'with Python 3.12.4 ' in bare.run('true')[2]
  bare.add_to_pyenv('3.11.9')
  assert 'with Python 3.11.4 ' in bare.run('true', ESTIMATOR='1')[2]


def test_a_later_one_on_the_path_or_of_pyenv_or_of_uv_is_found(bare):
  bare.add('uv', '#!/usr/bin/env bash\necho "$PYENV_ROOT/of_uv/python$3"\n')
  make_executable(bare.pyenv / 'of_uv' / 'python3.12')
  assert 'with Python 3.12.4 ' in bare.run('true')[2]
  shutil.rmtree(bare.folder / 'env')
  bare.add_to_pyenv('3.13.1')
  assert 'with Python 3.13.4 ' in bare.run('true')[2]


def test_another_python_is_used_when_asked_for(checkout, tmp_path):
  checkout.run('true')
  other = make_executable(tmp_path / 'python3.12')
  assert 'with Python 3.12.4' in checkout.run('true', PYTHON=str(other))[2]
  assert checkout.run('true', PYTHON='') == (0, '', '')


@pytest.mark.parametrize(
  'estimator, python', [('', '/no/python'), ('1', 'python3.12'), ('', 'python3.9')]
)
def test_unsuitable_python_is_named(bare, estimator, python):
  for name in ('python3.9', 'python3.12'):
    bare.add(name)
  code, _, err = bare.run('true', PYTHON=python, ESTIMATOR=estimator)
  assert code == 3
  assert f'PYTHON={python} is none of Python 3.1' in err


def test_without_python_only_commands_that_exist_are_recommended(bare):
  code, out, err = bare.run('echo', 'ran')
  assert (code, out) == (3, '')
  assert 'none of Python 3.13 3.12 3.11 3.10' in err
  assert 'install 3.1' not in err and 'python=' not in err
  bare.add('pyenv', '#!/usr/bin/env bash\n')
  bare.add('apt-cache', '#!/usr/bin/env bash\n[ "$2" = python3.11-venv ]\n')
  commands = [line.strip() for line in bare.run('true')[2].splitlines() if line.startswith('  ')]
  assert commands == ['pyenv install 3.13', 'apt-get install python3.11-venv']
  assert '  pyenv install 3.11\n' in bare.run('true', ESTIMATOR='1')[2]


# --- Continuous integration --------------------------------------------------


def test_ci_runs_all_tests_and_those_of_the_older_tensorflow(bare):
  for name in ('python3.11', 'python3.13'):
    bare.add(name)
  code, out, _ = bare.run(script='.ci/run')
  assert code == 0
  *checks, mkdocs, newest, on_jax, older = out.splitlines()
  assert checks == [
    'ruff 3.13 check .',
    'ruff 3.13 format --check .',
    'lint-imports 3.13 ',
    'mypy 3.13 ',
  ]
  assert mkdocs.startswith('mkdocs 3.13 build --strict')
  assert newest.startswith('python 3.13 -m pytest') and 'tests/' not in newest
  assert on_jax == f'{newest} tests/keras'
  assert older.startswith('python 3.11 -m pytest')
  assert 'tests/faults tests/training' in older and 'tests/core' not in older


def test_ci_passes_without_a_python_for_the_older_tensorflow(bare):
  bare.add('python3.13')
  code, out, _ = bare.run(script='.ci/run')
  assert code == 0
  message, *_, last = out.splitlines()
  assert message.startswith('Nothing is tested on TensorFlow 2.15')
  assert last.startswith('python 3.13 -m pytest')

"""Tests of rigl.compat."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests import environment as clean

ROOT = pathlib.Path(__file__).parents[1]

LOG = """\
WARNING: All log messages before absl::InitializeLog() is called are written ...
I0000 00:00:1795849045.395097   19378 port.cc:153] oneDNN is on. See `X=0`.
W0000 00:00:1795849045.395587 19378 a.cc:31] no GPU
E0000 00:00:1734001122.123456    1 cuda_fft.cc:477] Unable to register cuFFT
"""
OTHERS = """\
UserWarning: I0000 is not the beginning of this line
F0000 00:00:1795849045.395587 19378 cpu.cc:1] The machine has no AVX
"""


# Any attribute will do.
LOAD = 'from rigl import compat; compat.tf.__file__'


def _run(code, folder=ROOT, **environment):
  """Runs code in a new process, where TF_CPP_MIN_LOG_LEVEL is not set."""
  return subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    encoding='utf-8',
    env=clean.without_log_level(**{'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}', **environment}),
  )


@pytest.fixture
def stand_in(tmp_path):
  """A folder with a fake package tensorflow that prints a log and more."""
  (tmp_path / 'tensorflow' / 'compat').mkdir(parents=True)
  (tmp_path / 'tensorflow' / '__init__.py').write_text(
    f'import os; os.write(2, {(LOG + OTHERS).encode()!r})\n'
  )
  (tmp_path / 'tensorflow' / 'compat' / 'v1.py').touch()
  return tmp_path


@pytest.mark.parametrize('chosen, level', [({}, '3'), ({'TF_CPP_MIN_LOG_LEVEL': '0'}, '0')])
def test_the_log_is_off_for_who_loads_tensorflow_without_us(chosen, level, stand_in):
  done = _run(
    """
import os

import rigl.compat

print(os.environ['TF_CPP_MIN_LOG_LEVEL'])
""",
    stand_in,
    **chosen,
  )
  assert (done.stdout, done.stderr) == (f'{level}\n', '')


def test_import_and_a_session_are_quiet_and_switch_no_behaviour():
  # In a new process, since other tests may run a script that switches.
  done = _run("""
from rigl.compat import tf

print(tf.executing_eagerly())
with tf.Graph().as_default(), tf.Session() as session:
  print(session.run(tf.constant(1)))
""")
  assert (done.stdout, done.stderr) == ('True\n1\n', '')


def test_attributes_are_those_of_tensorflow():
  done = _run("""
from rigl import compat

import tensorflow as tf2
import tensorflow.compat.v1 as tf

for ours, theirs in ((compat.tf, tf), (compat.tf2, tf2)):
  names = [name for name in dir(theirs) if not name.startswith('__')]
  assert len(names) > 200
  # Twice: the first time loads it, the second finds what the first has left.
  for name in names * 2:
    assert getattr(ours, name) is getattr(theirs, name), name
  assert not hasattr(ours, 'no_such_attribute')
""")
  assert done.returncode == 0, done.stderr


def test_threads_may_load_it_at_once(stand_in):
  """Each redirects standard error; the last one must restore the original."""
  done = _run(
    """
import os
import threading

from rigl import compat

start = threading.Barrier(8)

def load(module):
  start.wait()
  module.__file__

threads = [threading.Thread(target=load, args=(module,))
           for module in (compat.tf, compat.tf2) * 4]
for thread in threads:
  thread.start()
for thread in threads:
  thread.join()
os.write(2, b'the end')
""",
    stand_in,
  )
  assert (done.stdout, done.stderr) == ('', OTHERS + 'the end')


def test_only_the_log_is_hidden_and_can_be_shown_later(stand_in):
  done = _run(
    """
from rigl import compat

assert not compat.hidden_log
compat.tf.__file__
print(*compat.hidden_log, sep='', end='')
""",
    stand_in,
  )
  assert (done.stdout, done.stderr) == (LOG, OTHERS)


@pytest.mark.parametrize('level', '012')
def test_user_sees_the_log_who_asks_for_it(stand_in, level):
  done = _run(LOAD, stand_in, TF_CPP_MIN_LOG_LEVEL=level)
  assert done.stderr == LOG + OTHERS


def test_all_is_shown_if_loading_fails(stand_in):
  with open(stand_in / 'tensorflow' / '__init__.py', 'a') as file:
    file.write('raise ImportError("no libcudart")\n')
  done = _run(LOAD, stand_in)
  assert done.returncode == 1
  assert done.stderr.startswith(LOG + OTHERS)
  assert done.stderr.endswith('ImportError: no libcudart\n')


def test_a_crash_while_loading_shows_where(stand_in):
  with open(stand_in / 'tensorflow' / '__init__.py', 'a') as file:
    file.write('os.abort()\n')
  done = _run(LOAD, stand_in)
  assert 'Fatal Python error: Aborted' in done.stderr
  assert 'tensorflow/__init__.py' in done.stderr


def test_closed_standard_error_does_no_harm(stand_in):
  (stand_in / 'tensorflow' / '__init__.py').write_text('')
  done = subprocess.run(
    ['bash', '-c', f'{sys.executable} -c "{LOAD}" 2>&-'],
    env={**os.environ, 'PYTHONPATH': f'{stand_in}{os.pathsep}{ROOT}', 'TF_CPP_MIN_LOG_LEVEL': '3'},
  )
  assert done.returncode == 0


@pytest.mark.parametrize('module', ['tensorboard.main', 'tensorflow_datasets'])
def test_what_fits_not_every_tensorflow_was_installed_to_fit(module):
  done = _run(f'import {module}')
  assert done.returncode == 0, done.stderr

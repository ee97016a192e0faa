"""Fixtures that all tests share.

TensorFlow takes seconds to import, so only the fixtures that need it do.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pathlib
import pwd
import sys

import hypothesis
import pytest
from absl import flags
from absl.testing import flagsaver

GOLDENS = pathlib.Path(__file__).parent / 'goldens'

# Test processes share the cores. Where there are more threads than cores,
# those of numpy's matrix products mostly spin until the others are done.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

# Building graphs makes so many objects that the garbage collector, at its usual
# thresholds, takes a tenth of the time.
gc.set_threshold(100_000)

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile('rigl', deadline=None, derandomize=True)
hypothesis.settings.load_profile('rigl')


@contextlib.contextmanager
def restored_flags():
  """Gives parsed absl flags and takes back what is set meanwhile.

  Flags that a test defines, by importing a script, stay defined: the script
  stays imported too. They go back to their defaults.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  saved = flagsaver.save_flag_values()
  yield
  for name in set(flags.FLAGS).difference(saved):
    flags.FLAGS[name].unparse()
  flagsaver.restore_flag_values({**flagsaver.save_flag_values(), **saved})


@pytest.fixture(autouse=True)
def _restore_flags():
  with restored_flags():
    yield


@pytest.fixture(scope='module', autouse=True)
def _collect_only_new_garbage():
  """Keras collects garbage at times, which takes seconds where earlier modules left much."""
  gc.collect()
  gc.freeze()


@pytest.fixture(autouse=True)
def no_prepared_tfds(monkeypatch):
  """Hides what TensorFlow Datasets may have prepared on this machine."""
  monkeypatch.setenv('TFDS_DATA_DIR', '/no/tensorflow_datasets')


@pytest.fixture
def no_home(monkeypatch):
  """As in a container whose user has no name."""

  def get(user):
    raise KeyError(user)

  monkeypatch.delenv('HOME', raising=False)
  monkeypatch.setattr(pwd, 'getpwuid', get)
  monkeypatch.setattr(pwd, 'getpwnam', get)


@pytest.fixture
def module_that_must_not_run(tmp_path, monkeypatch):
  """Name of a module that could be imported, and must not be."""
  (tmp_path / 'surprise_module.py').write_text('')
  monkeypatch.syspath_prepend(str(tmp_path))
  yield 'surprise_module'
  assert 'surprise_module' not in sys.modules


@pytest.fixture
def graph():
  """A new default graph whose random ops repeat from test to test."""
  from rigl.compat import tf

  with tf.Graph().as_default() as new_graph:
    tf.set_random_seed(0)
    yield new_graph


@pytest.fixture(scope='session')
def goldens():
  """A function from name to the content of tests/goldens/<name>.json.

  The data were measured on the 2020 implementation. Each call reads the file
  anew, so a test may change what it gets.
  """

  def load(name):
    return json.loads((GOLDENS / f'{name}.json').read_text(encoding='utf-8'))

  return load


@pytest.fixture
def session_runs(monkeypatch):
  """A list that grows by an item with each run of a session."""
  from rigl.compat import tf

  runs = []
  original = tf.Session.run

  def run(session, *arguments, **named):
    runs.append(session)
    return original(session, *arguments, **named)

  monkeypatch.setattr(tf.Session, 'run', run)
  return runs

"""Tests of the seam to TensorFlow."""

import pathlib
import subprocess
import sys
import types

import pytest

from rigl import compat

ROOT = pathlib.Path(__file__).parents[1]

SCRIPT_WITH_NEWER_TENSORFLOW = '''
from rigl import compat
from rigl.mnist import mnist_train_eval
from rigl.training import script

class Newer:
  __version__ = '2.21.0'

  def __getattr__(self, name):
    if name == 'estimator':
      raise AttributeError(name)
    return getattr(compat.tf2.compat.v1, name)

compat.tf = Newer()
script.run(mnist_train_eval.main)
'''


@pytest.mark.skipif(
  tuple(map(int, compat.tf.__version__.split('.')[:2])) > (2, 15),
  reason='TensorFlow 2.16 removed Estimator',
)
def test_estimator_module_has_what_training_needs():
  module = compat.estimator_module()
  assert module.tpu.TPUEstimator and module.tpu.TPUEstimatorSpec
  assert module.ModeKeys.TRAIN


class _BrokenWhenUsed(types.ModuleType):
  """Like the lazily loaded module when tensorflow_estimator is missing."""

  def __getattr__(self, name):
    raise ModuleNotFoundError("No module named 'tensorflow_estimator'")


# What to do about it, by the version of Python. For 3.12 and later there is no
# TensorFlow 2.15 to install.
PIP = 'To fix this, run: pip install "tensorflow==2.15.*"'
ADVICE = {
  (3, 9, 25): PIP,
  (3, 11, 7): PIP,
  (3, 12, 0): 'Python 3.12.0. To fix this, install rigl in an environment',
  (3, 13, 5): 'Python 3.13.5. To fix this, install rigl in an environment',
}


@pytest.mark.parametrize('python', ADVICE)
@pytest.mark.parametrize(
  'attributes', [{}, {'estimator': _BrokenWhenUsed('estimator')}]
)
def test_missing_estimator_names_version_and_fix(
  monkeypatch, attributes, python
):
  newer = types.SimpleNamespace(__version__='2.21.0', **attributes)
  monkeypatch.setattr(compat, 'tf', newer)
  monkeypatch.setattr(compat.sys, 'version_info', python)
  monkeypatch.setattr(
    compat.sys, 'version', '.'.join(map(str, python)) + ' (main, May 1)')
  with pytest.raises(compat.MissingEstimatorError) as error:
    compat.estimator_module()
  message = str(error.value)
  assert 'TensorFlow 2.21.0' in message and ADVICE[python] in message
  assert ('pip install' in message) == (python < (3, 12))


def test_a_script_says_in_one_line_that_tensorflow_is_too_new():
  output = subprocess.run(
    [sys.executable, '-c', SCRIPT_WITH_NEWER_TENSORFLOW, '--num_epochs=1'],
    cwd=ROOT, capture_output=True, encoding='utf-8',
  )
  assert output.returncode == 1
  assert 'Traceback' not in output.stderr
  last_line = output.stderr.splitlines()[-1]
  assert last_line.startswith('Error: TensorFlow 2.21.0 has no usable')
  assert 'To fix this, ' in last_line


def test_import_switches_no_behaviour():
  # In a new process, for other tests may run a script that does.
  code = 'from rigl.compat import tf; assert tf.executing_eagerly()'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)

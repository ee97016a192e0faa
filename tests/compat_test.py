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


@pytest.mark.parametrize(
  'attributes', [{}, {'estimator': _BrokenWhenUsed('estimator')}]
)
def test_missing_estimator_names_version_and_fix(monkeypatch, attributes):
  newer = types.SimpleNamespace(__version__='2.21.0', **attributes)
  monkeypatch.setattr(compat, 'tf', newer)
  message = r'2\.21\.0.*tensorflow==2\.15\.\*'
  with pytest.raises(compat.MissingEstimatorError, match=message):
    compat.estimator_module()


def test_a_script_says_in_one_line_that_tensorflow_is_too_new():
  output = subprocess.run(
    [sys.executable, '-c', SCRIPT_WITH_NEWER_TENSORFLOW, '--num_epochs=1'],
    cwd=ROOT, capture_output=True, encoding='utf-8',
  )
  assert output.returncode == 1
  assert 'Traceback' not in output.stderr
  last_line = output.stderr.splitlines()[-1]
  assert last_line.startswith('Error: TensorFlow 2.21.0 has no usable')
  assert last_line.endswith('pip install "tensorflow==2.15.*"')


def test_import_switches_no_behaviour():
  # In a new process, for other tests may run a script that does.
  code = 'from rigl.compat import tf; assert tf.executing_eagerly()'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)

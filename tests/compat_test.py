"""Tests of the seam to TensorFlow."""

import pathlib
import subprocess
import sys
import types

import pytest

from rigl import compat

ROOT = pathlib.Path(__file__).parents[1]


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
  with pytest.raises(RuntimeError, match=r'2\.21\.0.*tensorflow==2\.15\.\*'):
    compat.estimator_module()


def test_import_switches_no_behaviour():
  # In a new process, for other tests may run a script that does.
  code = 'from rigl.compat import tf; assert tf.executing_eagerly()'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)

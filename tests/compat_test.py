"""Tests of the seam to TensorFlow."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def test_import_switches_no_behaviour():
  # In a new process, for other tests may run a script that does.
  code = 'from rigl.compat import tf; assert tf.executing_eagerly()'
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)

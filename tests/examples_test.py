"""The programs in examples/ run and do what they promise."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from rigl.core import methods

ROOT = pathlib.Path(__file__).resolve().parents[1]
OWN_NETWORK = ROOT / 'examples' / 'own_network.py'
IN_NUMPY = ROOT / 'examples' / 'rigl_in_numpy.py'


def test_every_example_is_tested():
  # tests/keras/examples_test.py has those of Keras.
  assert {
    path for path in (ROOT / 'examples').glob('*.py') if not path.name.startswith('keras_')
  } == {OWN_NETWORK, IN_NUMPY}


def test_own_network_learns_and_stays_sparse(tmp_path):
  result = subprocess.run(
    [sys.executable, str(OWN_NETWORK)],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  accuracy, sparsity = re.fullmatch(
    r'accuracy (0\.\d{3})\nsparsity (0\.\d{3})\n', result.stdout
  ).groups()
  assert float(accuracy) > 0.9
  assert sparsity == '0.900'


def test_own_network_is_short_and_in_the_guide():
  code = OWN_NETWORK.read_text(encoding='utf-8')
  assert len(code.splitlines()) < 50
  guide = (ROOT / 'docs' / 'graph_mode.md').read_text(encoding='utf-8')
  assert f'```python\n{code}```' in guide


@pytest.fixture(scope='module')
def in_numpy():
  spec = importlib.util.spec_from_file_location('rigl_in_numpy', IN_NUMPY)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_rigl_in_numpy_learns_and_stays_sparse(in_numpy, capsys):
  in_numpy.main()
  error, sparsity = re.fullmatch(
    r'error (.*)%, sparsity (0\.\d{3})\n', capsys.readouterr().out
  ).groups()
  assert float(error) < 15.0
  assert sparsity == '0.950'


@pytest.mark.parametrize('seed', range(5))
def test_rigl_in_numpy_moves_masks_as_the_library(seed, in_numpy):
  rng = np.random.RandomState(seed)
  mask = rng.rand(20, 30) < 0.3
  weights = (mask * rng.randn(20, 30)).astype('f')
  gradient = rng.randn(20, 30).astype('f')
  # Ties: scores of connections just grown, and of dead units.
  weights[:3], gradient[5:9] = 0.0, 0.0
  method = methods.RigL(
    drop_fraction=0.4, drop_fraction_anneal='cosine', end_step=10, noise_std=0.0
  )
  [update] = method.update(
    [methods.Layer(mask, weights, lambda purpose: (0, 0), lambda: gradient)], 4
  )
  got_mask, got_new = in_numpy.move_mask(mask, weights, gradient, method.drop_fraction_at(4))
  np.testing.assert_array_equal(got_mask, update.mask)
  np.testing.assert_array_equal(got_new, update.restarted)

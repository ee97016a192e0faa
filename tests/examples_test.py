"""The programs in examples/ run as they stand and do what they promise."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
OWN_NETWORK = ROOT / 'examples' / 'own_network.py'


def test_every_example_is_tested():
  assert list((ROOT / 'examples').glob('*.py')) == [OWN_NETWORK]


def test_own_network_learns_and_stays_sparse(tmp_path):
  result = subprocess.run(
      [sys.executable, str(OWN_NETWORK)], cwd=tmp_path,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  accuracy, sparsity = re.fullmatch(
      r'accuracy (0\.\d{3})\nsparsity (0\.\d{3})\n', result.stdout).groups()
  assert float(accuracy) > 0.9
  assert sparsity == '0.900'


def test_own_network_is_short_and_in_the_readme():
  code = OWN_NETWORK.read_text(encoding='utf-8')
  assert len(code.splitlines()) < 40
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  assert f'```python\n{code}```' in readme

"""Scripts can train the method of docs/adding_a_method.md."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from rigl.core import methods

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'adding_a_method.md').read_text(encoding='utf-8')
WITH_KERAS = (ROOT / 'examples' / 'keras_own_method.py').read_text(encoding='utf-8')
BLOCKS = [
  block for block in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL) if block not in WITH_KERAS
]
PRINTED = re.search(r'```text\n(.*?)```', PAGE, re.DOTALL).group(1)


@pytest.fixture
def methods_table():
  saved = dict(methods.METHODS)
  yield methods.METHODS
  methods.METHODS.clear()
  methods.METHODS.update(saved)


def test_class_and_row_are_short():
  lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
  assert len(lines) < 20


def test_the_keras_example_has_the_method_of_the_page():
  [definition] = re.findall(r'^@dataclasses.*?\n\n\n', BLOCKS[0], re.DOTALL | re.MULTILINE)
  assert definition in WITH_KERAS
  assert len(BLOCKS) == PAGE.count('```python') - 1


def test_hooks_of_the_page_exist():
  names = re.findall(r'^\| (`.*?`) \|', PAGE, re.MULTILINE)
  names = re.findall(r'`(\w+)', ' '.join(names))
  assert {'KeepBest', 'drop_score', 'next_state'} <= set(names)
  for name in names:
    assert any(
      hasattr(owner, name) for owner in (methods, methods.DropAndGrow, methods.KeepBest)
    ), name


def test_it_drops_at_random_and_grows_by_gradient(methods_table, capsys):
  namespace = {'__name__': 'random_drop'}
  for block in BLOCKS:
    exec(compile(block, 'adding_a_method.md', 'exec'), namespace)
  assert 'random_drop' in methods_table
  assert capsys.readouterr().out == PRINTED


def test_a_script_trains_by_it(tmp_path):
  """All blocks of the page together as one file."""
  (tmp_path / 'random_drop.py').write_text('\n\n'.join(BLOCKS))
  result = subprocess.run(
    [
      sys.executable,
      'random_drop.py',
      '--training_method=random_drop',
      '--num_epochs=2',
      f'--save_path={tmp_path / "run"}',
    ],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith(PRINTED)
  assert 'epoch   2/2' in result.stdout
  assert 'sparsity 0.9653' in result.stdout

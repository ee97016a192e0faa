"""The picture in docs/architecture.md shows the imports of the code."""

from __future__ import annotations

import ast
import pathlib

import pytest

from tools import make_dependency_picture as tool

ROOT = pathlib.Path(__file__).parents[2]


def test_picture_is_up_to_date():
  page = tool.PAGE.read_text(encoding='utf-8')
  assert page == tool.updated(page, ROOT / 'rigl'), (
      'run python -m tools.make_dependency_picture')


def test_parts_that_are_imported_are_found():
  source = '''
import os
import rigl.core.scores
from rigl import sparse_utils, compat
from rigl.mnist.mnist_data import load

def f():
  from rigl.training import config
'''
  assert tool.imported(ast.parse(source)) == {
      'core', 'sparse_utils', 'compat', 'mnist', 'training'}


def test_implied_arrows_are_left_out():
  graph = {'a': {'b', 'c', 'd'}, 'b': {'c'}, 'c': set(), 'd': set()}
  assert tool.without_implied(graph) == {
      'a': {'b', 'd'}, 'b': {'c'}, 'c': set(), 'd': set()}


def test_circles_are_errors():
  with pytest.raises(ValueError, match='a imports itself'):
    tool.without_implied({'a': {'b'}, 'b': {'c'}, 'c': {'a'}})


def test_picture_of_a_small_package(tmp_path):
  package = tmp_path / 'rigl'
  (package / 'core').mkdir(parents=True)
  (package / '__init__.py').touch()
  (package / 'compat.py').touch()
  (package / 'core' / 'scores.py').write_text('from rigl.compat import tf\n')
  (package / 'top.py').write_text('from rigl.core import scores\n')
  assert tool.picture(package) == '\n'.join([
      '```mermaid', 'graph TD', '  core["core/"]', '  top["top.py"]',
      '  top --> core', '```'])


def test_a_page_without_marks_is_an_error():
  with pytest.raises(ValueError, match='needs the lines'):
    tool.updated('nothing', ROOT / 'rigl')


def test_what_stands_around_the_picture_stays():
  page = f'Before.\n{tool.BEGIN}\nold\n{tool.END}\nAfter.\n'
  new = tool.updated(page, ROOT / 'rigl')
  assert new.startswith('Before.\n') and new.endswith('\nAfter.\n')
  assert 'mermaid' in new and 'old' not in new

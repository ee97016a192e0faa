"""Runs the examples of docs/flop_counting.md and compares their output."""

import contextlib
import doctest
import io
import pathlib
import re
import shlex

import pytest

from rigl.compat import tf
from rigl.micronet import cli

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'flop_counting.md'
TEXT = DOCS.read_text(encoding='utf-8')
COMMANDS = re.findall(
    r'```console\n\$ python -m rigl\.micronet(.*?)\n(.*?)```', TEXT, re.DOTALL)
SNIPPETS = re.findall(
    r'```python\n(.*?)```\n\n```text\n(.*?)```', TEXT, re.DOTALL)


def _assert_same(expected, actual):
  actual = ''.join(f'{line.rstrip()}\n' for line in actual.splitlines())
  matches = doctest.OutputChecker().check_output(expected, actual,
                                                 doctest.ELLIPSIS)
  assert matches, f'expected:\n{expected}\ngot:\n{actual}'


def test_examples_are_found():
  assert len(COMMANDS) == TEXT.count('```console') == 4
  assert len(SNIPPETS) == TEXT.count('```python') == 4


@pytest.mark.parametrize('arguments, expected', COMMANDS)
def test_commands(capsys, arguments, expected):
  assert cli.main(shlex.split(arguments)) == 0
  _assert_same(expected, capsys.readouterr().out)


@pytest.mark.parametrize('code, expected', SNIPPETS)
def test_python(code, expected):
  output = io.StringIO()
  with tf.Graph().as_default(), contextlib.redirect_stdout(output):
    exec(compile(code, str(DOCS), 'exec'), {})
  _assert_same(expected, output.getvalue())

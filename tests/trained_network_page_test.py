"""The commands and the snippets of docs/trained_network.md."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shlex
from importlib import metadata

import matplotlib
import pytest

from rigl.micronet import cli
from rigl.mnist import mnist_train_eval, visualize_mask_records
from tests import conftest, quick_sessions, script_flags

PAGE = (pathlib.Path(__file__).parents[1] / 'docs' / 'trained_network.md').read_text(
  encoding='utf-8'
)
FOLDER = '/tmp/mnist_rigl'
STEP = '1984'
# One epoch instead of 40, of which the first iteration moves masks instead of
# making a step: RigL keeps the number of connections.
SHORT = ['--num_epochs=1']
SHORT_STEP = '49'


def arguments_of(module):
  """Those of the first command of a module."""
  command = re.search(
    rf'python -m {re.escape(module)} ([^`]*?)(?:`|\n```|\n(?=python))', PAGE.replace('\\\n', ' ')
  )
  return shlex.split(command[1])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Where the run of the page is, cut short."""
  path = tmp_path_factory.mktemp('run') / 'mnist_rigl'
  argv = [word.replace(FOLDER, str(path)) for word in arguments_of('rigl.mnist.mnist_train_eval')]
  with conftest.restored_flags(), quick_sessions.of_scripts(), script_flags.parsed([*argv, *SHORT]):
    mnist_train_eval.main(['mnist_train_eval.py'])
  return path


def test_the_run_is_that_of_the_readme():
  readme = (pathlib.Path(__file__).parents[1] / 'README.md').read_text(encoding='utf-8')
  assert ' '.join(arguments_of('rigl.mnist.mnist_train_eval')) in (
    ' '.join(readme.replace('\\\n', ' ').split())
  )


def test_snippets(folder, tmp_path, monkeypatch, capsys):
  """One after the other; each prints what the page says."""
  monkeypatch.chdir(tmp_path)
  matplotlib.use('Agg')
  namespace = {'__name__': 'snippet'}
  blocks = re.findall(r'```python\n(.*?)```(?:\n\n```text\n(.*?)```)?', PAGE, re.DOTALL)
  assert len(blocks) == 4
  capsys.readouterr()
  for code, wanted in blocks:
    code = code.replace(FOLDER, str(folder))
    exec(compile(code, 'docs/trained_network.md', 'exec'), namespace)
    printed = capsys.readouterr().out
    # How good it is depends on the number of epochs.
    printed, wanted = (
      re.sub(r'test error \d+\.\d\d%', 'test error', text)
      for text in (printed, wanted.replace(STEP, SHORT_STEP))
    )
    assert printed == wanted
  assert (tmp_path / 'masks.png').stat().st_size > 1000


def test_the_table_lists_what_there_is(folder):
  import rigl

  network = rigl.checkpoints.load(folder)
  rows = re.findall(r'^\| (`.*`) \| ', PAGE, re.MULTILINE)
  listed = {name.strip('`') for row in rows for name in row.split(', ')}
  assert listed == {name for name in dir(network) if name[0] != '_'}


def test_count(folder, capsys):
  arguments = [word.replace(FOLDER, str(folder)) for word in arguments_of('rigl.micronet')]
  assert cli.main(arguments) == 0
  printed = capsys.readouterr().out.replace(str(folder), FOLDER)
  wanted = re.search(r'python -m rigl.micronet .*?```text\n(.*?)```', PAGE, re.DOTALL)[1]
  assert [line.rstrip() for line in printed.splitlines()] == [
    line.rstrip() for line in wanted.splitlines()
  ]


def test_pictures_of_the_whole_training(folder, tmp_path):
  arguments = [
    word.replace(FOLDER, str(folder)).replace('=masks.gif', f'={tmp_path}/masks.gif')
    for word in arguments_of('rigl.mnist.visualize_mask_records')
  ]
  assert visualize_mask_records.main(arguments) == 0
  assert (tmp_path / 'masks.gif').stat().st_size > 1000


@pytest.mark.skipif(
  metadata.version('keras').startswith('2.')
  or not all(map(importlib.util.find_spec, ('ai_edge_litert', 'numba'))),
  reason='needs the extra inference',
)
def test_export(folder, tmp_path):
  from rigl.inference import cli as inference_cli

  arguments = [word.replace(FOLDER, str(folder)) for word in arguments_of('rigl.inference')]
  path = tmp_path / 'model.tflite'
  inference_cli.main([word.replace('=model.tflite', f'={path}') for word in arguments])
  assert os.path.getsize(path) < 100_000

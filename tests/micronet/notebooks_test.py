"""Runs the notebooks and compares them with their saved outputs."""

import base64
import os
import pathlib
import re
import subprocess
import sys

import nbclient
import nbformat
import pytest

import rigl

PACKAGE = pathlib.Path(rigl.__file__).parent
COLABS = PACKAGE / 'imagenet_resnet' / 'colabs'
NOTEBOOKS = ('Resnet_50_Param_Flops_Counting.ipynb', 'MobileNet_Counting.ipynb')
QUICKSTART = PACKAGE.parent / 'examples' / 'keras_quickstart.ipynb'


def _code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def _text(cell):
  return ''.join(output.text for output in cell.outputs if 'text' in output)


def _pictures(cell):
  return [
    base64.b64decode(output.data['image/png'])
    for output in cell.outputs
    if 'image/png' in output.get('data', {})
  ]


def _execute(notebook, folder):
  with pytest.MonkeyPatch.context() as patch:
    # As installed: importable, though not from the notebook's folder.
    patch.setenv('PYTHONPATH', str(PACKAGE.parent))
    nbclient.NotebookClient(
      notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(folder)}}
    ).execute()


@pytest.fixture(scope='module', params=NOTEBOOKS, name='notebooks')
def _notebooks(request, tmp_path_factory):
  """The notebook as saved, and after running it again."""
  saved = nbformat.read(COLABS / request.param, as_version=4)
  fresh = nbformat.read(COLABS / request.param, as_version=4)
  for cell in _code_cells(fresh):
    cell.outputs = []
  fresh.cells.append(nbformat.v4.new_code_cell('import sys; "tensorflow" in sys.modules'))
  _execute(fresh, tmp_path_factory.mktemp('notebook'))
  return saved, fresh


def test_notebook_is_valid_and_saved_after_a_run(notebooks):
  saved, _ = notebooks
  nbformat.validate(saved)
  cells = _code_cells(saved)
  assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_saved_text_is_what_a_run_prints(notebooks):
  saved, fresh = notebooks
  for old, new in zip(_code_cells(saved), _code_cells(fresh)):
    assert _text(old) == _text(new)


def test_one_picture_that_is_not_empty(notebooks):
  for notebook in notebooks:
    pictures = [picture for cell in _code_cells(notebook) for picture in _pictures(cell)]
    assert len(pictures) == 1
    assert pictures[0].startswith(b'\x89PNG')
    assert len(pictures[0]) > 20_000


def test_runs_without_tensorflow(notebooks):
  _, fresh = notebooks
  assert fresh.cells[-1].outputs[0].data['text/plain'] == 'False'


class TestFirstCell:
  """The first cell alone, in a process that cannot import rigl."""

  @pytest.fixture(params=NOTEBOOKS)
  def source(self, request):
    notebook = nbformat.read(COLABS / request.param, as_version=4)
    return _code_cells(notebook)[0].source

  def _run(self, source, folder, **env):
    # -S keeps an installed rigl out as well.
    source = f'{source}\nimport rigl; print(rigl.__file__)'
    command = [sys.executable, '-S', '-c', source]
    env = {'PATH': os.environ['PATH'], **env}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding='utf-8')

  def test_clones_the_repository_elsewhere(self, source, tmp_path):
    # A git that copies the package, and writes down how it was called.
    git = tmp_path / 'bin' / 'git'
    git.parent.mkdir()
    git.write_text(
      '#!/bin/sh\n'
      'echo "$@" > git_arguments\n'
      f'for target; do :; done; mkdir -p "$target"\n'
      f'cp -r {PACKAGE} "$target/rigl"\n'
    )
    git.chmod(0o755)
    folder = tmp_path / 'content'
    folder.mkdir()
    path = f'{git.parent}{os.pathsep}{os.environ["PATH"]}'
    result = self._run(source, folder, PATH=path, RIGL_REPOSITORY='https://example.com/rigl')
    assert result.returncode == 0, result.stderr
    assert str(folder) in result.stdout
    arguments = (folder / 'git_arguments').read_text()
    assert arguments.startswith('clone ')
    assert 'https://example.com/rigl' in arguments

  def test_finds_the_package_above(self, source):
    result = self._run(source, COLABS)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(PACKAGE / '__init__.py')

  def test_wrong_repository_is_named(self, source, tmp_path):
    (tmp_path / 'rigl_repository').mkdir()
    git = tmp_path / 'git'
    git.write_text('#!/bin/sh\nexit 0\n')
    git.chmod(0o755)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    result = self._run(source, tmp_path, PATH=path, RIGL_REPOSITORY='there')
    assert result.returncode != 0
    assert 'there has no rigl/micronet' in result.stderr

  def test_nothing_is_cloned_unasked(self, source, tmp_path):
    result = self._run(source, tmp_path)
    assert result.returncode != 0
    assert 'Install it, or set the environment variable' in result.stderr
    assert not list(tmp_path.iterdir())


def _without_figures(text):
  return re.sub(r'[-─ ]+', ' ', re.sub(r'[\d.,]+', '0', text))


@pytest.mark.parametrize(
  'path, length, short',
  [
    (QUICKSTART, 'EPOCHS, STEPS = 30', 'EPOCHS, STEPS = 2'),
    (QUICKSTART.with_name('mnist_from_python.ipynb'), 'EPOCHS = 12', 'EPOCHS = 2'),
  ],
)
def test_training_prints_and_draws_as_saved(path, length, short, tmp_path):
  saved = nbformat.read(path, as_version=4)
  nbformat.validate(saved)
  assert sum(length in cell.source for cell in _code_cells(saved)) == 1
  fresh = nbformat.read(path, as_version=4)
  for cell in _code_cells(fresh):
    cell.outputs = []
    cell.source = cell.source.replace(length, short)
  _execute(fresh, tmp_path)
  counts = [cell.execution_count for cell in _code_cells(saved)]
  assert counts == list(range(1, len(counts) + 1))
  for old, new in zip(_code_cells(saved), _code_cells(fresh)):
    printed = ''.join(output.text for output in new.outputs if output.get('name') == 'stdout')
    assert _without_figures(printed) == _without_figures(_text(old))
    assert len(_pictures(new)) == len(_pictures(old))


class TestQuickstart:
  """The first cell of the notebook that trains a Keras model."""

  def _run_first_cell(self, folder, repository):
    """Runs it where there is no rigl, with a pip that says what it is asked."""
    source = _code_cells(nbformat.read(QUICKSTART, as_version=4))[0].source
    (folder / 'pip').mkdir()
    (folder / 'pip' / '__init__.py').touch()
    (folder / 'pip' / '__main__.py').write_text(
      'import sys; open("arguments", "w").write(" ".join(sys.argv[1:]))'
    )
    # -S keeps an installed rigl out as well.
    return subprocess.run(
      [sys.executable, '-S', '-c', source],
      cwd=folder,
      env={'PATH': os.environ['PATH'], 'PYTHONPATH': str(folder), 'RIGL_REPOSITORY': repository},
      capture_output=True,
      encoding='utf-8',
    )

  def test_first_cell_installs_rigl(self, tmp_path):
    result = self._run_first_cell(tmp_path, 'https://example.com/rigl')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'arguments').read_text() == ('install --quiet git+https://example.com/rigl')

  def test_first_cell_says_what_is_missing(self, tmp_path):
    result = self._run_first_cell(tmp_path, '')
    assert result.returncode != 0
    assert 'Set REPOSITORY, in this cell' in result.stderr
    assert not (tmp_path / 'arguments').exists()

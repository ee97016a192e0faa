"""The Keras programs of examples/ and docs/keras.md run as they stand."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import rigl

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'examples'
# One strategy a process, one backend a process.
ALONE = {'keras_mirrored', 'keras_jax'}
# {example: (shorter constants, what its last lines must say)}.
SHORT = {
  'keras_custom_loop': (
    {'STEPS': 100},
    r'step 100, loss 0\.\d+\n'
    r'error [1-3]?\d\.\d\d%, sparsity 0\.950\n',
  ),
  'keras_dqn': ({'STEPS': 60}, r'caught \d+\.\d%, sparsity 0\.800\n'),
  'keras_finetune': ({'EPOCHS': 1}, r'accuracy .*% dense, .*% sparse\nsparsity 0\.\d+\n'),
  'keras_image_folder': ({}, r'total +- +0\.\d+ .*(?s:.*)'),
  'keras_jax': (
    {'EPOCHS': 2, 'STEPS': 100},
    r'fit: error [1-3]?\d\.\d\d%, sparsity 0\.950\n'
    r'loop: error [1-3]?\d\.\d\d%, sparsity 0\.950\n',
  ),
  'keras_lstm': (
    {'EPOCHS': 1},
    r'\S+/reader/lstm_cell/kernel +0\.800\n'
    r'\S+/reader/lstm_cell/recurrent_kernel +0\.930\n',
  ),
  'keras_mirrored': ({'EPOCHS': 1}, r'2 replicas, sparsity 0\.950\n'),
  'keras_mnist': (
    {'EPOCHS': 2},
    r'error [1-3]?\d\.\d\d%, sparsity 0\.950\n(?s:.*) 0\.0500 (?s:.*)',
  ),
  'keras_own_method': ({'EPOCHS': 2}, r'RandomDrop, sparsity 0\.950\n'),
  'keras_transformer': ({'EPOCHS': 1}, r'(?:\S*(?:dense|attention)\S*/kernel +0\.\d+\n){12}'),
  'keras_two_optimizers': (
    {'STEPS': 100},
    r'.*% of the points .*\nsparsity 0\.800\n'
    r'sparsity 0\.500\n',
  ),
}

pytestmark = [
  pytest.mark.skipif(
    keras.__version__.startswith('2.') or keras.backend.backend() != 'tensorflow',
    reason='the examples need Keras 3, and choose their backend',
  ),
  # Keras says these of every layer without a kernel, of every tf.data.
  pytest.mark.filterwarnings(
    'ignore:Layer .* does not have a `quantize` method:UserWarning',
    'ignore:`shuffle=True` was passed, but will be ignored:UserWarning',
  ),
]


@pytest.fixture
def as_a_program(tmp_path, monkeypatch):
  """In a folder of its own, with layer names that begin anew."""
  monkeypatch.chdir(tmp_path)
  keras.utils.clear_session(free_memory=False)


def shortened(name: str) -> str:
  """The source of an example that trains less."""
  source = (EXAMPLES / f'{name}.py').read_text(encoding='utf-8')
  for constant, value in SHORT[name][0].items():
    source, n = re.subn(rf'^{constant} = \d+', f'{constant} = {value}', source, flags=re.MULTILINE)
    assert n == 1, constant
  return source


def check_end(name: str, printed: str) -> None:
  assert re.search(rf'(?:^|\n){SHORT[name][1]}\Z', printed), printed


def make_pictures(folder: pathlib.Path) -> None:
  """Ten bright and ten dark pictures."""
  rng = np.random.RandomState(0)
  for label, low in (('bright', 128), ('dark', 0)):
    (folder / label).mkdir(parents=True)
    for i in range(10):
      picture = rng.randint(low, low + 128, size=(40, 30, 3), dtype='uint8')
      Image.fromarray(picture).save(folder / label / f'{i}.png')


def test_every_example_is_tested():
  assert {path.stem for path in EXAMPLES.glob('keras_*.py')} == set(SHORT)


@pytest.mark.parametrize('name', SHORT)
def test_an_example_is_short(name):
  n_lines = len((EXAMPLES / f'{name}.py').read_text().splitlines())
  assert n_lines <= 100


@pytest.mark.usefixtures('as_a_program')
@pytest.mark.parametrize('name', sorted(set(SHORT) - ALONE))
def test_example(name, tmp_path, monkeypatch, capsys):
  arguments = []
  if name == 'keras_image_folder':
    make_pictures(tmp_path / 'pictures')
    arguments = ['pictures', '--epochs=2', '--size=16']
  monkeypatch.setattr(sys, 'argv', [name, *arguments])
  names = {'__name__': '__main__'}
  exec(compile(shortened(name), name, 'exec'), names)
  check_end(name, capsys.readouterr().out)
  if name == 'keras_transformer':
    # A layer that is called on a constant is no part of the model.
    assert 'positions/embeddings' in [v.path for v in names['model'].trainable_variables]
  if "model.save('sparse.keras')" in shortened(name):
    model = keras.models.load_model('sparse.keras', compile=False)
    assert any(np.mean(weight == 0) >= 0.5 for weight in model.get_weights() if weight.ndim > 1)


@pytest.mark.parametrize('name', sorted(ALONE))
def test_example_in_a_process_of_its_own(name, tmp_path):
  if name == 'keras_jax' and not importlib.util.find_spec('jax'):
    pytest.skip('JAX is not installed')
  result = subprocess.run(
    [sys.executable, '-c', shortened(name)],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  check_end(name, result.stdout)


def test_the_three_lines_of_the_readme():
  """Train a model of one's own at the sparsity that they name."""
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  (code,) = re.findall(r'```python\n(.*?)```', readme, re.DOTALL)
  model = keras.Sequential(
    [keras.Input((20,)), keras.layers.Dense(100, 'relu'), keras.layers.Dense(10, 'softmax')]
  )
  rng = np.random.RandomState(0)
  names = {
    'keras': keras,
    'rigl': rigl,
    'model': model,
    'images': rng.randn(64, 20).astype('float32'),
    'labels': rng.randint(10, size=64),
  }
  exec(compile(code, 'README.md', 'exec'), names)
  wanted = float(re.search(r'sparsity=(\S+),', code).group(1))
  masks = list(model.optimizer.get_masks().values())
  sizes = sum(mask.size for mask in masks)
  n_zeros = sizes - sum(mask.sum() for mask in masks)
  # The number of connections is rounded in each layer.
  assert n_zeros == pytest.approx(wanted * sizes, abs=len(masks))


def test_the_readme_shows_what_the_example_prints():
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  printed = re.search(
    r'\npython examples/keras_mnist\.py\n```\n\n```text\n(.*?)```', readme, re.DOTALL
  ).group(1)
  check_end('keras_mnist', printed)


def test_the_page_quotes_the_example():
  page = (ROOT / 'docs' / 'your_data.md').read_text(encoding='utf-8')
  (code,) = re.findall(r'<!-- snippet: of the example -->\n```python\n(.*?)```', page, re.DOTALL)
  example = (EXAMPLES / 'keras_image_folder.py').read_text(encoding='utf-8')
  assert code in example


@pytest.mark.usefixtures('as_a_program')
@pytest.mark.parametrize('name', ['keras', 'your_data'])
def test_a_page_is_one_program(name, capsys):
  """Each block goes on from the one before, but for those with a comment."""
  page = (ROOT / 'docs' / f'{name}.md').read_text(encoding='utf-8')
  blocks = re.findall(r'(?<!-->\n)```python\n(.*?)```(?:\n\n```text\n(.*?)```)?', page, re.DOTALL)
  assert len(blocks) == {'keras': 14, 'your_data': 2}[name]
  namespace = {'__name__': '__main__'}
  for code, expected in blocks:
    exec(compile(code, f'docs/{name}.md', 'exec'), namespace)
    printed = capsys.readouterr().out
    assert printed.rstrip() == expected.rstrip(), code

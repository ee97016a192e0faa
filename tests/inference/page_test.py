"""The commands and the program of docs/inference.md."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shlex

import numpy as np
from PIL import Image

from rigl.imagenet_resnet import preprocessing
from rigl.inference import cli
from tests.inference import networks

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'inference.md'


def _blocks(kind):
  return re.findall(
    rf'^```{kind}\n(.*?)^```', PAGE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL
  )


def test_commands_have_flags_that_exist():
  lines = [
    line
    for block in _blocks('bash')
    for line in block.replace('\\\n', '').splitlines()
    if line.startswith('python -m rigl.inference ')
  ]
  assert len(lines) >= 3
  for line in lines:
    assert cli._parser().parse_args(shlex.split(line)[3:])


def test_the_benchmark_has_its_flags():
  spec = importlib.util.spec_from_file_location(
    'inference_benchmark', PAGE.parents[1] / 'benchmarks' / 'inference.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  lines = [
    line
    for block in _blocks('bash')
    for line in block.replace('\\\n', '').splitlines()
    if line.startswith('python benchmarks/inference.py ')
  ]
  assert len(lines) >= 3
  for line in lines:
    assert module._parser().parse_args(shlex.split(line)[2:])


def test_the_program_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  model = networks.lenet(0.9)
  images, logits = networks.batch_of(model)
  namespace = {'model': model, 'images': images}
  code, _ = _blocks('python')
  exec(compile(code, str(PAGE), 'exec'), namespace)
  networks.assert_close(namespace['logits'], logits)


def test_pictures_are_prepared_as_in_evaluation(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
  coarse.resize((200, 150), Image.Resampling.BICUBIC).save('a.jpg')
  taken = []

  class Network:
    input_shape = (64, 64, 3)

    def __call__(self, batch):
      taken.append(batch)

  _, code = _blocks('python')
  exec(compile(code, str(PAGE), 'exec'), {'network': Network()})
  expected = preprocessing.preprocess_eval((tmp_path / 'a.jpg').read_bytes(), image_size=64).numpy()
  assert taken[0].shape == (1, *expected.shape)
  # Bicubic interpolation of one library or another.
  assert np.abs(taken[0][0] - expected).mean() < 2.0
  assert np.abs(taken[0][0] - expected[::-1]).mean() > 20.0

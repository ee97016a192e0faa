"""The files that a training of the MNIST script writes."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from rigl import gin_configs
from rigl.compat import tf
from rigl.core import methods
from rigl.mnist import compression, mask_records, mnist_config, mnist_experiment, mnist_train_eval
from rigl.training.config import SparsityConfig
from tests import checkpoint_values, tiny_mnist

MASKED = [name for name, method in methods.METHODS.items() if method.uses_masks]


def epochs_of(folder):
  """The lines of the text file, as [(fields, compressed line or None)]."""
  result = []
  for line in tiny_mnist.text_file(folder).read_text().splitlines():
    match = re.fullmatch(
      r'epoch=(?P<epoch>\d+) iteration=(?P<iteration>\d+), '
      r'test loss (?P<loss>\d+\.\d{6}), '
      r'test accuracy (?P<accuracy>[01]\.\d{6}), '
      r'sparsity (?P<sparsity>0\.\d{6}), layers (?P<layers>.*)',
      line,
    )
    if match:
      result.append([match.groupdict(), None])
    else:
      assert re.fullmatch(r'compressed \d+-\d+-\d+-10, sparsity( \d\.\d{4}){3}, \d+ bytes', line)
      result[-1][1] = line
  return result


@pytest.mark.parametrize('method', methods.METHODS)
def test_text_file(method, trained):
  folder = trained(method)
  epochs = epochs_of(folder)
  assert [(fields['epoch'], fields['iteration']) for fields, _ in epochs] == [
    ('1', '10'),
    ('2', '20'),
  ]
  fields, compressed = epochs[-1]
  if method not in MASKED:
    assert fields['layers'] == 'dense' and compressed is None
    assert float(fields['sparsity']) == 0.0
    return
  masks = list(tiny_mnist.masks_of(checkpoint_values.of(folder)).values())
  assert [float(s) for s in fields['layers'].split()] == pytest.approx(
    [1 - mask.mean() for mask in masks], abs=1e-4
  )
  n_ones = sum(map(np.count_nonzero, masks))
  assert float(fields['sparsity']) == pytest.approx(
    1 - n_ones / sum(mask.size for mask in masks), abs=1e-6
  )
  sparsities, sizes = compression.get_compressed_fc(masks)
  assert compressed == (
    f'compressed {"-".join(map(str, sizes))}, sparsity '
    f'{" ".join(f"{s:.4f}" for s in sparsities)}, '
    f'{compression.compressed_size_bytes(masks)} bytes'
  )


def numpy_test(folder, method):
  """(loss, accuracy) of the test digits by the final checkpoint."""
  values = checkpoint_values.of(folder)
  names = ('weights', 'biases') if method in MASKED else ('kernel', 'bias')
  digits = tiny_mnist.digits()
  x = digits['t10k-images-idx3-ubyte'].reshape(-1, 784) / 255.0
  labels = digits['t10k-labels-idx1-ubyte']
  for layer in tiny_mnist.SIZES:
    x = (
      x @ (values[f'{layer}/{names[0]}'] * values.get(f'{layer}/mask', 1.0))
      + values[f'{layer}/{names[1]}']
    )
    x = x if layer == 'layer3' else np.maximum(x, 0.0)
  log_z = np.log(np.exp(x - x.max(1, keepdims=True)).sum(1)) + x.max(1)
  loss = np.mean(log_z - x[np.arange(len(x)), labels])
  return loss, np.mean(x.argmax(1) == labels)


@pytest.mark.parametrize('method', methods.METHODS)
def test_reported_test_is_that_of_the_saved_network(method, trained):
  folder = trained(method)
  fields, _ = epochs_of(folder)[-1]
  loss, accuracy = numpy_test(folder, method)
  assert float(fields['loss']) == pytest.approx(loss, rel=1e-4)
  assert float(fields['accuracy']) == pytest.approx(accuracy, abs=0.0101)


def summaries(folder):
  """[(tag, step, value)] of all event files in a folder."""
  return [
    (value.tag, event.step, value.simple_value)
    for path in sorted(folder.glob('events.*'))
    for event in tf.train.summary_iterator(str(path))
    for value in event.summary.value
  ]


@pytest.mark.parametrize('method', ['rigl', 'snip', 'baseline'])
def test_tensorboard_shows_the_test_beside_the_training(method, trained):
  folder = trained(method)
  found = {(tag, step) for tag, step, _ in summaries(folder)}
  tests = summaries(folder / 'eval')
  assert (
    {(tag, step) for tag, step, _ in tests}
    == {(tag, step) for tag in ('loss', 'accuracy') for step in (10, 20)}
    <= found
  )
  for fields, _ in epochs_of(folder):
    for tag in ('loss', 'accuracy'):
      ((_, _, value),) = [row for row in tests if row[:2] == (tag, int(fields['iteration']))]
      assert float(fields[tag]) == pytest.approx(value, abs=1e-6)


def test_drop_fraction_in_tensorboard(trained):
  """That of the step: a cosine over 50,000 steps has hardly fallen."""
  values = [value for tag, _, value in summaries(trained('rigl')) if tag == 'drop_fraction']
  expected = [0.3 * 0.5 * (1 + math.cos(math.pi * step / 50000)) for step in (6, 14)]
  assert values == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
  'method, described',
  [
    # RigL moves the masks before steps 0, 3, 6, 9 and 12, SNIP before step 0.
    ('rigl', 'model.ckpt-15 (the other 5 of 20 iterations set masks)'),
    ('snip', 'model.ckpt-19 (the other 1 of 20 iterations set masks)'),
    ('set', 'model.ckpt-20'),
    ('baseline', 'model.ckpt-20'),
  ],
)
def test_why_a_checkpoint_has_its_number(method, described, trained):
  experiment = mnist_experiment.MnistExperiment(
    SparsityConfig(training_method=method),
    mnist_config.MnistConfig(),
    mnist_config.RunSettings(),
    str(trained(method)),
  )
  assert experiment._text_of_checkpoint() == described


@pytest.mark.parametrize('method', ['rigl', 'baseline'])
def test_files_left_in_the_save_path(method, trained):
  names = sorted(path.name for path in trained(method).iterdir())
  stem = tiny_mnist.text_file(trained(method)).name[: -len('.txt')]
  expected = [
    r'checkpoint',
    r'config\.gin',
    r'eval',
    r'events\.out\.tfevents\..*',
    r'metrics\.jsonl',
    r'metrics_state\.json',
    r'model\.ckpt-\d+\.(index|meta|data-.*)',
    re.escape(stem) + r'(\.txt|_masks\.npz)',
  ]
  assert not [name for name in names if not any(re.fullmatch(e, name) for e in expected)]
  assert (f'{stem}_masks.npz' in names) == (method in MASKED)
  for part in (method, 'momentum', 'lr0.2', 'seed0'):
    assert part in stem.split('_')


def test_masks_that_a_dense_network_does_not_have(data, tmp_path, monkeypatch):
  messages = []
  monkeypatch.setattr(
    mnist_experiment.logging, 'warning', lambda text, *values: messages.append(text % values)
  )
  tiny_mnist.train(tiny_mnist.arguments(data, tmp_path, num_epochs=0, mask_record_frequency=5))
  assert 'mask_record_frequency=5 has no effect' in ''.join(messages)


@pytest.mark.parametrize('method', methods.METHODS)
def test_written_config_starts_the_same_training(method, trained, data):
  path = trained(method) / gin_configs.CONFIG_FILE
  with tiny_mnist.parsed_flags(tiny_mnist.arguments(data, None, training_method=method)):
    expected = mnist_train_eval.experiment_from_flags().configs
  with tiny_mnist.parsed_flags([f'--gin_config={path}']):
    assert mnist_train_eval.experiment_from_flags().configs == expected


def test_command_line_over_the_written_config(trained):
  path = trained('rigl') / gin_configs.CONFIG_FILE
  with tiny_mnist.parsed_flags(
    [
      f'--gin_config={path}',
      '--gin_bindings=MnistConfig.batch_size = 50',
      '--gin_bindings=MnistConfig.momentum = 0.5',
      '--momentum=0.25',
      '--prune_end_step=77',
    ]
  ):
    sparsity, config = mnist_train_eval.experiment_from_flags().configs
  assert sparsity.training_method == 'rigl'
  assert (config.batch_size, config.momentum, config.num_epochs) == (50, 0.25, 2)
  assert (sparsity.pruning_begin_step, sparsity.pruning_end_step) == (2, 77)


def test_no_model_is_saved_unless_wanted(data, tmp_path):
  tiny_mnist.train(
    tiny_mnist.arguments(
      data, tmp_path, training_method='scratch', save_model=False, mask_record_frequency=10
    )
  )
  assert not list(tmp_path.glob('model.ckpt*'))
  assert len(epochs_of(tmp_path)) == 2
  records = mask_records.MaskRecords.load(tiny_mnist.records_file(tmp_path))
  assert records.iterations.tolist() == [0, 10, 20]

"""rigl.mnist.train: the script as a function."""

from __future__ import annotations

import logging as python_logging
import signal

import numpy as np
import pytest

import rigl
from rigl.mnist import mnist_experiment
from rigl.training import signals
from tests import checkpoint_values, quick_sessions, tiny_mnist

SMALL = {'batch_size': tiny_mnist.BATCH_SIZE, 'num_epochs': 2, 'maskupdate_frequency': 3}


@pytest.fixture(autouse=True)
def quick():
  with quick_sessions.of_scripts():
    yield


def test_it_trains_as_the_script_does_and_says_nothing(data, tmp_path, capfd, caplog):
  """Twice in a process; the second run starts from scratch."""
  tiny_mnist.train(tiny_mnist.arguments(data, tmp_path, training_method='rigl', end_sparsity=0.9))
  expected = checkpoint_values.of(tmp_path)
  capfd.readouterr()
  level = python_logging.getLogger('absl').level
  for _ in range(2):
    result = rigl.mnist.train('rigl', 0.9, mnist=data, **SMALL)
    assert result.folder is None
    for name, value in result.weights.items():
      mask = expected.get(name.replace('weights', 'mask'), 1.0)
      np.testing.assert_array_equal(
        value, expected[name] * mask if 'weights' in name else expected[name]
      )
    for layer, mask in result.masks.items():
      np.testing.assert_array_equal(mask, expected[f'{layer}/mask'])
    assert list(result.masks) == list(tiny_mnist.SIZES)
    assert [row['split'] for row in result.history] == ['train', 'test'] * 2
  assert capfd.readouterr() == ('', '')
  assert python_logging.getLogger('absl').level == level


def test_it_goes_on_in_its_folder_and_can_talk(data, tmp_path, capsys):
  for n_epochs in (1, 2):
    result = rigl.mnist.train(
      'snfs',
      mnist=data,
      save_path=tmp_path,
      verbose=n_epochs == 2,
      **{**SMALL, 'num_epochs': n_epochs},
    )
  out = capsys.readouterr().out
  assert out.startswith(f'Going on from {tmp_path}/model.ckpt')
  assert 'epoch   2/2' in out and 'epoch   1/' not in out
  assert result.folder == str(tmp_path)
  assert [row['epoch'] for row in result.history] == [1, 1, 2, 2]


def test_a_dense_network_has_no_masks(data):
  result = rigl.mnist.train('dense', mnist=data, **SMALL)
  assert result.masks == {}
  assert set(result.weights) == {
    f'{layer}/{leaf}' for layer in tiny_mnist.SIZES for leaf in ('kernel', 'bias')
  }


@pytest.mark.parametrize(
  'package, settings, words',
  [
    ('mnist', {'num_epoch': 2}, ['num_epoch', 'Did you mean num_epochs']),
    ('mnist', {'method': 'rgil'}, ['rgil', 'Did you mean rigl?']),
    ('mnist', {'mask_init_method': 'unifrom'}, ['Did you mean uniform']),
    ('mnist', {'sparsity': 1.5}, ['end_sparsity', '1.5']),
    ('mnist', {'end_sparsity': 0.5}, ['Give sparsity instead']),
    ('mnist', {'prune_begin_step': -1}, ['pruning_begin_step', '-1']),
    ('mnist', {'checkpoint_epochs': 0}, ['checkpoint_epochs', '> 0']),
    ('mnist', {'loop': 'keras'}, ['loop', 'session']),
    ('cifar_resnet', {'resnet_dept': 10}, ['Did you mean resnet_depth']),
    ('cifar_resnet', {'mode': 'eval_once'}, ['mode', 'train_and_eval']),
    ('cifar_resnet', {'sparsity_end_step': 'x'}, ['pruning_end_step', 'x']),
    ('cifar_resnet', {'l2': '0.1'}, ['l2', "'0.1'"]),
    ('cifar_resnet', {'per_class_metrics': 1}, ['per_class_metrics', 'True']),
    ('cifar_resnet', {'data_directory': 3}, ['data_directory', '3']),
    ('imagenet_resnet', {'init_method': 'xavier'}, ['init_method', 'sparse']),
    ('imagenet_resnet', {'width': float('nan')}, ['width', 'nan']),
  ],
)
def test_mistakes_are_named(package, settings, words):
  with pytest.raises(ValueError) as error:
    getattr(rigl, package).train(**settings)
  for word in words:
    assert word in str(error.value)


def test_the_interrupt_of_a_notebook_is_one(monkeypatch, data):
  def stop(*args, **kwargs):
    raise signals.StoppedError(signal.SIGINT, 'Stopped at iteration 3.')

  monkeypatch.setattr(mnist_experiment.MnistExperiment, 'train', stop)
  with pytest.raises(KeyboardInterrupt, match='Stopped at iteration 3'):
    rigl.mnist.train(mnist=data)

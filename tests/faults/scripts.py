"""The three training scripts as processes that can be killed, on tiny data."""

from __future__ import annotations

import pathlib
import re

import numpy as np

from rigl.training import history
from tests import checkpoint_values, script_server, tiny_cifar, tiny_mnist

SCRIPTS = {
  'mnist': 'rigl.mnist.mnist_train_eval',
  'cifar': 'rigl.cifar_resnet.resnet_train_eval',
  'imagenet': 'rigl.imagenet_resnet.imagenet_train_eval',
}
# Scripts of these tests; networks of usual size take too long.
MODULES = {**SCRIPTS, 'imagenet': 'tests.faults.short_imagenet'}

# Flags that use as many features of a method as possible.
MNIST_METHODS = {
  'rigl': {'grow_init': 'random_uniform_2', 'rigl_acc_scale': 0.01},
  'set': {'grow_init': 'random_normal_10', 'optimizer': 'adam', 'learning_rate': 0.01},
  'momentum': {'grow_init': 'initial_dist_3'},
  'prune': {'prune_end_step': 30, 'threshold_decay': 0.3},
}


def write_data(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """Writes data for the scripts; returns {script: folder}."""
  images = tiny_cifar.make_images(50, 10)
  return {
    'mnist': tiny_mnist.write_idx_files(folder / 'mnist'),
    'cifar': tiny_cifar.write_folder(
      folder / 'cifar', tiny_cifar.files(images, '.bin', tiny_cifar.binary_batch)
    ),
    'imagenet': folder,
  }


def arguments(
  script: str, data: dict[str, pathlib.Path], folder: pathlib.Path, method: str, **values
) -> list[str]:
  """A command line of about a second of training with many checkpoints."""
  if script == 'mnist':
    return tiny_mnist.arguments(
      data['mnist'],
      folder,
      **{
        'training_method': method,
        'num_epochs': 4,
        'checkpoint_epochs': 1,
        'maskupdate_frequency': 3,
        'mask_record_frequency': 7,
        **values,
      },
    )
  common = {
    'training_method': method,
    'maskupdate_frequency': 3,
    'maskupdate_end_step': 30,
    'grow_init': 'random_uniform_2',
  }
  if script == 'cifar':
    values = {
      **common,
      'train_dir': folder,
      'data_directory': data['cifar'],
      'resnet_depth': 10,
      'resnet_width': 1,
      'batch_size': 10,
      'max_steps': 16,
      'checkpoint_steps': 4,
      'summaries_steps': 4,
      'sparsity_begin_step': 1,
      'sparsity_end_step': 12,
      'pruning_frequency': 2,
      **values,
    }
  else:
    values = {
      **common,
      'output_dir': folder,
      'use_folder_stub': False,
      'use_synthetic_data': True,
      'image_size': 32,
      'resnet_depth': 18,
      'width': 0.125,
      'num_label_classes': 10,
      'num_train_images': 60,
      'num_eval_images': 8,
      'train_batch_size': 8,
      'eval_batch_size': 8,
      'train_steps': 12,
      'steps_per_checkpoint': 4,
      'steps_per_summary': 4,
      'export_model_freq': 0,
      'num_parallel_calls': 2,
      **values,
    }
  return [f'--{name}={value}' for name, value in values.items()]


def server(script: str, folder: pathlib.Path) -> script_server.ScriptServer:
  """Forks runs of a script, which may kill themselves; see `killable`."""
  return script_server.ScriptServer('tests.faults.killable', folder, SCRIPT=MODULES[script])


def run_folder(folder: pathlib.Path) -> pathlib.Path:
  """The folder of the only run at or below `folder`."""
  (path,) = {
    path.parent
    for path in folder.rglob('model.ckpt-*')
    if path.is_file() and '_temp' not in str(path.parent)
  }
  return path


def files(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
  """{path: content} of all files below a folder, except TensorBoard's.

  TensorFlow opens such a file, which stays empty, before it asks any hook.
  """
  return {
    path: path.read_bytes()
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file() and not path.name.startswith('events.')
  }


def final_values(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Every tensor of the last checkpoint of a run."""
  return checkpoint_values.of(run_folder(folder))


def _logs(folder: pathlib.Path) -> dict[str, bytes]:
  """{name: content} of the text and the mask records of an MNIST run."""
  return {
    path.name: content for path, content in files(folder).items() if path.suffix in ('.txt', '.npz')
  }


def rows_of(folder: pathlib.Path) -> list[dict]:
  """The rows of metrics.jsonl of a run, without the seconds."""
  rows = history.read(str(run_folder(folder)))
  seconds = [row.pop('seconds') for row in rows]
  assert seconds == sorted(seconds)
  return rows


def assert_same(folder: pathlib.Path, expected: pathlib.Path) -> None:
  """Both runs ended with the same step, weights, masks, slots and logs."""
  assert _logs(folder) == _logs(expected)
  assert rows_of(folder) == rows_of(expected)
  values, wanted = final_values(folder), final_values(expected)
  assert set(values) == set(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(values[name], value, err_msg=name)


def assert_same_masks(folder: pathlib.Path, expected: pathlib.Path) -> None:
  """Both runs ended with the same masks and, up to rounding, values."""
  values, wanted = final_values(folder), final_values(expected)
  assert set(values) == set(wanted)
  for name, value in wanted.items():
    if name.endswith('/mask'):
      np.testing.assert_array_equal(values[name], value, err_msg=name)
    else:
      np.testing.assert_allclose(values[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def error_line(result: script_server.Result) -> str:
  """The one-line error of a script."""
  assert result.code == 1, result
  assert 'Traceback' not in result.stderr, result.stderr
  lines = re.findall('^Error: .*$', result.stderr, re.MULTILINE)
  assert len(lines) == 1, result.stderr
  assert result.stderr.rstrip('\n').endswith(lines[0]), result.stderr
  return lines[0]

"""rigl.checkpoints.load: the trained network of a folder."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import tarfile

import numpy as np
import pytest

import rigl
from rigl import checkpoints, gin_configs
from rigl.core import layer_names
from rigl.micronet import architectures
from tests import checkpoint_values, networks
from tests.training import small_checkpoints

DATA = small_checkpoints.DATA
VALUES = {
  'net/first/first/weights': np.array([[1.0, -2.0]], np.float32),
  'net/conv/weights': np.array([[3.0, -4.0], [5.0, 6.0]], np.float32),
  'net/conv/mask': np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
  'net/conv/threshold': np.array(0.5, np.float32),
  'net/conv/weights/Momentum': np.full([2, 2], 9.0, np.float32),
  'net/norm/gamma': np.array([7.0, 8.0], np.float32),
  'net/last/kernel': np.array([[1.0], [2.0]], np.float32),
  'net/last/bias': np.array([3.0], np.float32),
  'last_mask_update_step': np.array(25, np.int64),
  'global_step': np.array(30, np.int64),
}


@dataclasses.dataclass(frozen=True)
class OneConfig:
  """The hyperparameters of a run."""

  training_method: str = 'rigl'
  end_sparsity: float = 0.5


def run(folder, step=30):
  """A run with two checkpoints; `step` is the step of the newer one."""
  small_checkpoints.save(folder, VALUES, step=step - 10)
  prefix = small_checkpoints.save(
    folder, {**VALUES, 'global_step': np.array(step, np.int64)}, step=step
  )
  gin_configs.write(str(folder), OneConfig())
  return prefix


def assert_same(actual, expected):
  assert set(actual) == set(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


# --- What it loads -----------------------------------------------------------


@pytest.mark.parametrize('given', ['folder', 'path', 'prefix', 'older'])
def test_by_hand(given, tmp_path):
  prefix = run(tmp_path)
  network = rigl.checkpoints.load(
    {
      'folder': str(tmp_path),
      'path': tmp_path,
      'prefix': prefix,
      'older': f'{tmp_path}/model.ckpt-20',
    }[given]
  )
  assert network.step == 30
  assert network.checkpoint == (f'{tmp_path}/model.ckpt-20' if given == 'older' else prefix)
  assert_same(
    network.weights,
    {'net/first': [[1.0, -2.0]], 'net/conv': [[3.0, 0.0], [0.0, 6.0]], 'net/last': [[1.0], [2.0]]},
  )
  assert_same(network.masks, {'net/conv': [[1, 0], [0, 1]]})
  assert_same(network.variables, {'net/norm/gamma': [7.0, 8.0], 'net/last/bias': [3.0]})
  assert network.sparsities == {'net/conv': 0.5}
  assert network.sparsity == 0.5
  assert network.config == {'training_method': 'rigl', 'end_sparsity': 0.5}


def test_sparsity_is_that_of_all_masks_together(tmp_path):
  small_checkpoints.save(
    tmp_path,
    {
      'a/weights': np.ones([10], np.float32),
      'a/mask': np.zeros([10], np.float32),
      'b/weights': np.ones([30], np.float32),
      'b/mask': np.ones([30], np.float32),
      'global_step': np.array(1),
    },
  )
  network = checkpoints.load(tmp_path)
  assert network.sparsities == {'a': 1.0, 'b': 0.0}
  assert network.sparsity == 0.25


def test_a_dense_network_of_a_run_without_a_config(tmp_path):
  small_checkpoints.save(
    tmp_path, {'a/kernel': np.ones([2], np.float32), 'global_step': np.array(1)}
  )
  network = checkpoints.load(tmp_path)
  assert (network.masks, network.sparsity, network.config) == ({}, 0.0, None)
  assert_same(network.weights, {'a': [1.0, 1.0]})


def test_the_files_are_enough(tmp_path):
  """To load it elsewhere, older checkpoints and the state file left behind."""
  run(tmp_path / 'run')
  network = checkpoints.load(tmp_path / 'run')
  (tmp_path / 'copy').mkdir()
  for file in network.files:
    shutil.copy(file, tmp_path / 'copy')
  copy = checkpoints.load(tmp_path / 'copy')
  assert copy.step == network.step and copy.config == network.config
  for field in ('weights', 'masks', 'variables'):
    assert_same(getattr(copy, field), getattr(network, field))
  assert sorted(path.name for path in (tmp_path / 'copy').iterdir()) == [
    'config.gin',
    'model.ckpt-30.data-00000-of-00001',
    'model.ckpt-30.index',
  ]


@pytest.mark.parametrize('name', ['wrn_10_1', 'mobilenet_v2_w025'])
def test_a_checkpoint_of_2020(name, tmp_path):
  with tarfile.open(networks.GOLDENS / 'checkpoints' / f'{name}.tar.xz') as files:
    for file in files:
      (tmp_path / file.name).write_bytes(files.extractfile(file).read())
  values = checkpoint_values.of(f'{tmp_path}/model.ckpt-1234')
  network = checkpoints.load(tmp_path)
  assert network.step == 1234 and network.config is None
  masks = [value for key, value in values.items() if key.endswith('/mask')]
  assert len(network.masks) == len(masks) > 5
  assert network.sparsity == pytest.approx(
    1.0 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)
  )
  for layer, mask in network.masks.items():
    np.testing.assert_array_equal(network.weights[layer], values[f'{layer}/weights'] * mask)


@pytest.mark.parametrize(
  'name, counted',
  [
    ('resnet18', 'resnet18'),
    ('resnet50', 'resnet50'),
    ('resnet50_prune_first_layer', 'resnet50'),
    ('mobilenet_v1', 'mobilenet_v1'),
    ('mobilenet_v2', 'mobilenet_v2'),
    ('vgg_a', 'vgg_a'),
    ('vgg_16', 'vgg_16'),
    ('wrn_16_4', 'wrn_16_4'),
    ('wrn_22_2', 'wrn_22_2'),
  ],
)
def test_layers_have_the_names_by_which_they_are_counted(name, counted):
  """By those of 2020's variables, whose dense layers have doubled scopes."""
  variables = networks.load_golden(name)['variables']
  masked = [variable.removesuffix('/mask') for variable in variables if variable.endswith('/mask')]
  layers = {
    layer: tuple(shape)
    for variable, shape in variables.items()
    if (layer := layer_names.layer_of_weights(variable, masked)) is not None
  }
  assert layers == {
    layer: tuple(shape) for layer, shape in architectures.get_network(counted).shapes.items()
  }


# --- Errors ------------------------------------------------------------------


def error_of(path):
  with pytest.raises(ValueError) as error:
    checkpoints.load(path)
  message = str(error.value)
  assert '\n' not in message
  return message


def test_no_such_folder(tmp_path):
  assert f'No checkpoint at {str(tmp_path / "no")!r}' in error_of(tmp_path / 'no')


def test_a_folder_without_a_checkpoint(tmp_path):
  (tmp_path / 'sub').mkdir()
  message = error_of(tmp_path)
  assert f'No checkpoint at {str(tmp_path)!r}' in message
  assert 'Runs are in' not in message


def test_a_folder_above_runs_names_them(tmp_path):
  for name in ('rigl/0.9/seed0', 'set/0.9/seed1'):
    run(tmp_path / name)
  message = error_of(tmp_path)
  assert message.endswith('.')
  for name in ('rigl/0.9/seed0', 'set/0.9/seed1'):
    assert f'{tmp_path}/{name}' in message


@pytest.mark.parametrize('suffix', ['.index', DATA])
@pytest.mark.parametrize('how', ['truncated', 'empty', 'garbage', 'missing'])
def test_a_damaged_checkpoint_names_another_one(how, suffix, tmp_path):
  prefix = run(tmp_path)
  small_checkpoints.damage(prefix, suffix, how)
  message = error_of(tmp_path)
  assert prefix in message
  assert f'{tmp_path}/model.ckpt-20' in message
  assert checkpoints.load(f'{tmp_path}/model.ckpt-20').step == 30


def test_a_damaged_checkpoint_alone(tmp_path):
  prefix = small_checkpoints.save(tmp_path, VALUES)
  small_checkpoints.damage(prefix, DATA, 'truncated')
  assert error_of(tmp_path).endswith('Copy it again from where it was trained.')


def test_a_mask_of_other_values(tmp_path):
  small_checkpoints.save(tmp_path, {**VALUES, 'net/conv/mask': np.full([2, 2], 0.5, np.float32)})
  assert "'net/conv/mask'" in error_of(tmp_path)


def test_a_damaged_config(tmp_path):
  run(tmp_path)
  pathlib.Path(tmp_path, 'config.gin').write_text('OneConfig.seed 3\n')
  assert str(tmp_path / 'config.gin') in error_of(tmp_path)

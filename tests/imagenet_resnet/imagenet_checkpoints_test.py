"""Checkpoints and the ImageNet script: published ones, masks, parameters."""

from __future__ import annotations

import os
import pathlib
import shlex

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import distributions
from rigl.imagenet_resnet import (
  imagenet_data,
  imagenet_input,
  imagenet_model_fn,
)
from rigl.imagenet_resnet import imagenet_train_eval as script
from rigl.training import runner
from tests import (
  checkpoint_values,
  imagenet_script,
  networks,
  script_flags,
)

# As the README of the 2020 repository has them.
COMMANDS = {
    'baseline': (
        '--mode=eval_once --training_method=baseline --eval_batch_size=100 '
        '--output_dir={folder} '
        '--eval_once_ckpt_prefix=s80_model.ckpt-1280000 '
        '--use_folder_stub=False'),
    'erk': (
        '--mode=eval_once --output_dir={folder} '
        '--eval_once_ckpt_prefix=model.ckpt-3200000 --use_folder_stub=False '
        '--training_method=rigl --mask_init_method=erdos_renyi_kernel '
        '--first_layer_sparsity=-1'),
    'uniform': (
        '--mode=eval_once --output_dir={folder} '
        '--eval_once_ckpt_prefix=model.ckpt-3200000 --use_folder_stub=False '
        '--training_method=rigl --mask_init_method=random '
        '--first_layer_sparsity=0'),
    'mobilenet_v1': (
        '--mode=eval_once --output_dir={folder} '
        '--eval_once_ckpt_prefix=model.ckpt-3200000 --use_folder_stub=False '
        '--training_method=rigl --mask_init_method=erdos_renyi_kernel '
        '--first_layer_sparsity=-1 --model_architecture=mobilenet_v1'),
}
NETWORKS = {'baseline': 'resnet50', 'erk': 'resnet50_prune_first_layer',
            'uniform': 'resnet50', 'mobilenet_v1': 'mobilenet_v1'}


N_IMAGES = 12


def made_up_values(network, step):
  """{name: value} of the variables of a published checkpoint."""
  rng = np.random.RandomState(0)
  values = {'global_step': np.int64(step)}
  for name, shape in networks.load_golden(network)['variables'].items():
    leaf = name.rsplit('/', 1)[1]
    if leaf == 'mask':
      value = distributions.random_mask(shape, 0.5, rng)
    elif leaf in ('gamma', 'moving_variance'):
      value = rng.uniform(0.5, 1.5, shape)
    elif leaf in ('weights', 'kernel', 'depthwise_weights'):
      fan_in = np.prod(shape[:2] if leaf[0] == 'd' else shape[:-1])
      value = rng.standard_normal(shape) * (2. / fan_in)**.5
    else:
      value = rng.uniform(-0.1, 0.1, shape) * (leaf != 'threshold')
    values[name] = np.asarray(value, np.float32)
  return values


def last_layer_for(features, labels):
  """Weights that find 6 of 12 labels at once, 3 more at second sight."""
  targets = np.zeros([N_IMAGES, 1000])
  for i, label in enumerate(labels):
    targets[i, label] = -1. if i >= 9 else 1.
    if i >= 6:
      targets[i, (label + 500) % 1000] = 2.
  return np.linalg.pinv(features.astype(np.float64)) @ targets


def write_published(path, network, step):
  """Writes a checkpoint; returns its (top 1, top 5) of the data."""
  data = imagenet_data.find_data(
      '', use_synthetic_data=True, num_train_images=1281167,
      num_eval_images=N_IMAGES, num_classes=1000)
  _, config = script.configs_from_flags()
  with tf.Graph().as_default() as graph, tf.Session() as session:
    images, labels = session.run(tf.data.make_one_shot_iterator(
        imagenet_input.input_fn({
            'batch_size': N_IMAGES, 'mode': 'eval', 'data': data,
            'image_size': config.image_size})).get_next())
    tf.train.get_or_create_global_step()
    logits = imagenet_model_fn.build_logits(tf.constant(images), config)
    variables = {v.op.name: v for v in tf.global_variables()}
    values = made_up_values(network, step)
    assert set(variables) == set(values)
    session.run(
        [v.initializer for v in variables.values()],
        {v.initializer.inputs[1]: values[name]
         for name, v in variables.items()})
    last = graph.get_operation_by_name('resnet_model/final_dense/MatMul')
    features = session.run(last.inputs[0])
    scope = 'resnet_model/final_dense'
    for leaf, value in (('weights', last_layer_for(features, labels)),
                        ('mask', np.ones([features.shape[1], 1000])),
                        ('biases', np.zeros([1000]))):
      variables[f'{scope}/{leaf}'].load(value.astype(np.float32), session)
    # No optimizer slots, no last_mask_update_step and the like.
    tf.train.Saver(variables).save(session, str(path), write_meta_graph=False)
    logits = session.run(logits)
  ranks = np.argsort(np.argsort(-logits, axis=1), axis=1)
  ranks = ranks[np.arange(N_IMAGES), labels]
  return np.mean(ranks < 1), np.mean(ranks < 5)


@pytest.mark.parametrize('command', COMMANDS)
def test_published_command(command, tmp_path, capsys):
  argv = shlex.split(COMMANDS[command].format(folder=tmp_path))
  name = next(a for a in argv if 'ckpt_prefix' in a).partition('=')[2]
  step = int(name.rsplit('-', 1)[1])
  # Images of a size and number that fit a test.
  argv += ['--use_synthetic_data', '--image_size=48',
           f'--num_eval_images={N_IMAGES}']
  with script_flags.parsed(script.SCRIPT_DEFAULTS, argv):
    tf.get_logger().setLevel('ERROR')
    top_1, top_5 = write_published(tmp_path / name, NETWORKS[command], step)
    assert (top_1, top_5) == (0.5, 0.75)
    (tmp_path / 'checkpoint').unlink()
    script.main(['imagenet_train_eval.py'])
  first, *rows, total = capsys.readouterr().out.splitlines()
  assert first.startswith(
      f'step {step}: top 1 50.00%, top 5 75.00%, loss ')
  n_masks = sum(name.endswith('/mask') for name in
                networks.load_golden(NETWORKS[command])['variables'])
  sparsities = sorted(row.split()[1] for row in rows)
  assert len(sparsities) == n_masks and sparsities[0] == '0.0000'
  assert {s[:4] for s in sparsities[1:]} <= {'0.49', '0.50'}
  assert total.endswith('of all of them')


# --- Checkpoints that do not fit ---------------------------------------------


@pytest.fixture
def short(monkeypatch):
  imagenet_script.shorten_networks(monkeypatch)


@pytest.fixture
def trained(short, tmp_path):
  return imagenet_script.run(tmp_path / 'trained', training_method='scratch')


def evaluate_changed(trained, change, **values):
  read = checkpoint_values.of(trained)
  change(read)
  prefix = imagenet_script.write(os.path.join(trained, 'changed'), read)
  imagenet_script.run(
      trained, mode='eval_once', eval_once_ckpt_prefix='changed', **values)
  return prefix


@pytest.mark.parametrize('name', [
    'resnet_model/final_dense/biases',
    'resnet_model/residual_1_block_group1_1_1/mask',
    'resnet_model/batch_normalization/moving_mean', 'global_step'])
def test_missing_variable_is_named(name, trained):
  with pytest.raises(ValueError, match=f'{name} is missing') as error:
    evaluate_changed(trained, lambda read: read.pop(name))
  assert 'layer_sparsity' not in str(error.value)


def test_misshapen_variable_is_named(trained):

  def change(read):
    name = 'resnet_model/final_dense/weights'
    read[name] = read[name][:, :9]

  with pytest.raises(ValueError, match=(
      r'final_dense/weights is \[8, 9\] there and \[8, 10\] here')):
    evaluate_changed(trained, change)


def test_first_layer_without_a_mask_is_named(trained):
  with pytest.raises(ValueError, match='initial_conv/mask is missing') as error:
    imagenet_script.run(
        trained, mode='eval_once', first_layer_sparsity=-1.)
  assert str(error.value).endswith(
      '(--first_layer_sparsity=-1 gives resnet_model/initial_conv a mask, 0 '
      'none)')


def test_last_layer_with_a_mask_is_named(trained):
  with pytest.raises(ValueError, match='final_dense/.* is missing') as error:
    imagenet_script.run(
        trained, mode='eval_once', last_layer_sparsity=0.)
  assert '(--last_layer_sparsity=-1 gives resnet_model/final_dense a mask' in (
      str(error.value))


def test_eval_once_lists_layers_as_they_are_built_and_all_of_them(
    trained, capsys):
  capsys.readouterr()
  imagenet_script.run(trained, mode='eval_once')
  _, *rows, total = capsys.readouterr().out.splitlines()
  masks = {name[:-len('/mask')]: mask
           for name, mask in checkpoint_values.of(trained).items()
           if name.endswith('/mask')}
  layers = [row.split()[2] for row in rows]
  assert set(layers) == set(masks) and layers != sorted(layers)
  assert 'block_group1' in layers[0]
  assert layers[-1] == 'resnet_model/final_dense'
  for row in rows:
    _, sparsity, layer = row.split()
    assert float(sparsity) == pytest.approx(1 - masks[layer].mean(), abs=1e-4)
  n_active = sum(mask.sum() for mask in masks.values())
  n_all = sum(mask.size for mask in masks.values())
  assert total == f'  sparsity {1 - n_active / n_all:.4f}  of all of them'


def test_variables_of_training_may_be_missing(trained, capsys):

  def change(read):
    for name in [n for n in read if n.endswith('/Momentum')]:
      del read[name]

  evaluate_changed(trained, change)
  assert 'step 2: top 1' in capsys.readouterr().out


def test_eval_once_takes_a_prefix_a_folder_or_the_latest(trained, monkeypatch):
  seen = []

  def evaluate(loop, input_fn, checkpoint, steps):
    del loop, input_fn, steps
    seen.append(checkpoint)
    return dict.fromkeys(
        ('global_step', 'top_1_accuracy', 'top_5_accuracy', 'cross_loss'), 0)

  monkeypatch.setattr(runner, 'evaluate', evaluate)
  parent, name = os.path.split(trained)
  imagenet_script.run(trained, mode='eval_once')
  imagenet_script.run(parent, mode='eval_once', eval_once_ckpt_prefix=name)
  imagenet_script.run(
      trained, mode='eval_once', eval_once_ckpt_prefix='model.ckpt-0')
  assert seen == [os.path.join(trained, f'model.ckpt-{step}')
                  for step in (2, 2, 0)]


# --- Masks and parameters of another training --------------------------------


def first_and_source(folder, trained):
  """What a training began with, and what the one before it ended with."""
  first = checkpoint_values.of(os.path.join(folder, 'model.ckpt-0'))
  return first, checkpoint_values.of(trained)


@pytest.mark.parametrize('as_folder', [True, False])
def test_masks_and_nothing_else_are_loaded(as_folder, trained, tmp_path):
  path = trained if as_folder else os.path.join(trained, 'model.ckpt-2')
  folder = imagenet_script.run(
      tmp_path / 'next', training_method='scratch', seed=5, load_mask_dir=path)
  start, source = first_and_source(folder, trained)
  for name, value in start.items():
    if name.endswith('/mask'):
      np.testing.assert_array_equal(value, source[name])
    elif name.endswith('/weights'):
      assert (value != source[name]).any()


def test_parameters_and_nothing_else_are_loaded(trained, tmp_path):
  folder = imagenet_script.run(
      tmp_path / 'next', training_method='rigl', seed=5,
      mask_init_method='random', initial_value_checkpoint=trained)
  start, source = first_and_source(folder, trained)
  assert start['global_step'] == 0
  for name, value in start.items():
    leaf = name.rsplit('/', 1)[-1]
    if leaf == 'mask':
      assert (value != source[name]).any()
    elif leaf == 'Momentum':
      assert not value.any()
    elif leaf in ('weights', 'gamma', 'moving_mean', 'biases'):
      np.testing.assert_array_equal(value, source[name], err_msg=name)


def test_folder_of_another_method_is_left_alone(trained):
  with pytest.raises(ValueError, match='training_method=scratch, not static'):
    imagenet_script.run(trained, training_method='static')


def test_folder_of_another_network_is_left_alone(trained):
  before = pathlib.Path(trained, 'config.gin').read_bytes()
  with pytest.raises(ValueError, match='width=0.125, not 0.25'):
    imagenet_script.run(
        trained, training_method='scratch', width=0.25, train_steps=3)
  assert pathlib.Path(trained, 'config.gin').read_bytes() == before

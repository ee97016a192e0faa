"""Checkpoints and the ImageNet script: published ones, masks, parameters."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import distributions
from rigl.imagenet_resnet import imagenet_config, imagenet_data, imagenet_input, imagenet_model
from rigl.imagenet_resnet import imagenet_train_eval as script
from rigl.training import checkpoints, runner
from tests import (
  checkpoint_values,
  combinations,
  conftest,
  imagenet_script,
  networks,
  quick_sessions,
  script_flags,
)

# As in the README of the 2020 repository.
COMMANDS = {
  'baseline': (
    '--mode=eval_once --training_method=baseline --eval_batch_size=100 '
    '--output_dir={folder} '
    '--eval_once_ckpt_prefix=s80_model.ckpt-1280000 '
    '--use_folder_stub=False'
  ),
  'erk': (
    '--mode=eval_once --output_dir={folder} '
    '--eval_once_ckpt_prefix=model.ckpt-3200000 --use_folder_stub=False '
    '--training_method=rigl --mask_init_method=erdos_renyi_kernel '
    '--first_layer_sparsity=-1'
  ),
  'uniform': (
    '--mode=eval_once --output_dir={folder} '
    '--eval_once_ckpt_prefix=model.ckpt-3200000 --use_folder_stub=False '
    '--training_method=rigl --mask_init_method=random '
    '--first_layer_sparsity=0'
  ),
  'mobilenet_v1': (
    '--mode=eval_once --output_dir={folder} '
    '--eval_once_ckpt_prefix=model.ckpt-3200000 --use_folder_stub=False '
    '--training_method=rigl --mask_init_method=erdos_renyi_kernel '
    '--first_layer_sparsity=-1 --model_architecture=mobilenet_v1'
  ),
}
NETWORKS = {
  'baseline': 'resnet50',
  'erk': 'resnet50_prune_first_layer',
  'uniform': 'resnet50',
  'mobilenet_v1': 'mobilenet_v1',
}

ROOT = pathlib.Path(__file__).resolve().parents[2]


def command_of(page):
  """The flags of the eval_once command of a page, without those of data."""
  text = (ROOT / page).read_text(encoding='utf-8')
  [command] = [
    block for block in re.findall(r'```bash\n(.*?)```', text, re.DOTALL) if 'eval_once' in block
  ]
  flags = [
    word
    for word in command.replace('\\\n', ' ').split()
    if word.startswith('--') and 'data_dir' not in word
  ]
  return re.sub(r'--output_dir=\S+', '--output_dir={folder}', ' '.join(flags))


# For any ResNet-50.
COMMANDS['README'] = command_of('docs/scripts.md')
NETWORKS['README'] = 'resnet50_prune_first_layer'
# The first layer of the checkpoints of 99 % is dense, for any flags.
for name, like in (('erk, 99 %', 'erk'), ('README, 99 %', 'README')):
  COMMANDS[name], NETWORKS[name] = COMMANDS[like], 'resnet50'
COMMANDS['uniform, with a mask'] = COMMANDS['uniform']
NETWORKS['uniform, with a mask'] = 'resnet50_prune_first_layer'

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
      value = rng.standard_normal(shape) * (2.0 / fan_in) ** 0.5
    else:
      value = rng.uniform(-0.1, 0.1, shape) * (leaf != 'threshold')
    values[name] = np.asarray(value, np.float32)
  return values


def last_layer_for(features, labels):
  """Weights with 6 of 12 labels as first and 3 more as second guess."""
  targets = np.zeros([N_IMAGES, 1000])
  for i, label in enumerate(labels):
    targets[i, label] = -1.0 if i >= 9 else 1.0
    if i >= 6:
      targets[i, (label + 500) % 1000] = 2.0
  return np.linalg.pinv(features.astype(np.float64)) @ targets


def variables_of(config, masked_layers=None):
  """{name: shape} of the network of a config."""
  with tf.Graph().as_default():
    imagenet_model.build_logits(tf.zeros([1, 64, 64, 3]), config, masked_layers=masked_layers)
    return checkpoints.names_and_shapes(tf.global_variables())


def write_published(path, network, step):
  """Writes a checkpoint; returns its (top 1, top 5) of the data."""
  data = imagenet_data.find_data(
    '',
    use_synthetic_data=True,
    num_train_images=1281167,
    num_eval_images=N_IMAGES,
    num_classes=1000,
  )
  config = script.experiment_from_flags().config
  values = made_up_values(network, step)
  masked_layers = [name.removesuffix('/mask') for name in values if name.endswith('/mask')]
  with tf.Graph().as_default() as graph, tf.Session(config=quick_sessions.unoptimized()) as session:
    images, labels = session.run(
      tf.data.make_one_shot_iterator(
        imagenet_input.Pipeline(data, N_IMAGES, 'eval', image_size=config.image_size).batches()
      ).get_next()
    )
    tf.train.get_or_create_global_step()
    logits = imagenet_model.build_logits(tf.constant(images), config, masked_layers=masked_layers)
    variables = {v.op.name: v for v in tf.global_variables()}
    assert set(variables) == set(values)
    checkpoints.assign(session, [(v, values[name]) for name, v in variables.items()])
    last = graph.get_operation_by_name('resnet_model/final_dense/MatMul')
    features = session.run(last.inputs[0])
    scope = 'resnet_model/final_dense'
    for leaf, value in (
      ('weights', last_layer_for(features, labels)),
      ('mask', np.ones([features.shape[1], 1000])),
      ('biases', np.zeros([1000])),
    ):
      variables[f'{scope}/{leaf}'].load(value.astype(np.float32), session)
    # No optimizer slots, no last_mask_update_step and the like.
    tf.train.Saver(variables).save(session, str(path), write_meta_graph=False)
    logits = session.run(logits)
  ranks = np.argsort(np.argsort(-logits, axis=1), axis=1)
  ranks = ranks[np.arange(N_IMAGES), labels]
  return np.mean(ranks < 1), np.mean(ranks < 5)


@pytest.mark.parametrize('command', combinations.quick(COMMANDS, 'README, 99 %'))
def test_published_command(command, tmp_path, capsys):
  argv = shlex.split(COMMANDS[command].format(folder=tmp_path))
  name = dict(a[2:].split('=') for a in argv).get('eval_once_ckpt_prefix', 'model.ckpt-3200000')
  step = int(name.rsplit('-', 1)[1])
  # Images of a size and number that fit a test.
  argv += ['--use_synthetic_data', '--image_size=48', f'--num_eval_images={N_IMAGES}']
  with script_flags.parsed(argv):
    tf.get_logger().setLevel('ERROR')
    top_1, top_5 = write_published(tmp_path / name, NETWORKS[command], step)
    assert (top_1, top_5) == (0.5, 0.75)
    (tmp_path / 'checkpoint').unlink()
    with quick_sessions.of_scripts():
      script.main(['imagenet_train_eval.py'])
  first, *rows, total = capsys.readouterr().out.splitlines()
  assert first.startswith(f'step {step}: top 1 50.00%, top 5 75.00%, loss ')
  n_masks = sum(
    name.endswith('/mask') for name in networks.load_golden(NETWORKS[command])['variables']
  )
  sparsities = sorted(row.split()[1] for row in rows)
  assert len(sparsities) == n_masks and sparsities[0] == '0.0000'
  assert {s[:4] for s in sparsities[1:]} <= {'0.49', '0.50'}
  assert total.endswith('of all of them')


# --- Checkpoints that do not fit ---------------------------------------------


@pytest.fixture
def short(monkeypatch):
  imagenet_script.shorten_networks(monkeypatch)


@pytest.fixture(scope='module')
def original(tmp_path_factory):
  """A copy of the folder of a training."""
  with conftest.restored_flags(), pytest.MonkeyPatch.context() as patch:
    imagenet_script.shorten_networks(patch)
    return imagenet_script.run(tmp_path_factory.mktemp('original'), training_method='scratch')


@pytest.fixture
def trained(original, short, tmp_path):
  return str(shutil.copytree(original, tmp_path / 'trained'))


def evaluate_changed(trained, change, **values):
  read = checkpoint_values.of(trained)
  change(read)
  prefix = imagenet_script.write(os.path.join(trained, 'changed'), read)
  imagenet_script.run(trained, mode='eval_once', eval_once_ckpt_prefix='changed', **values)
  return prefix


@pytest.mark.parametrize(
  'name',
  [
    'resnet_model/final_dense/biases',
    'resnet_model/residual_1_block_group1_1_1/mask',
    'resnet_model/batch_normalization/moving_mean',
    'global_step',
  ],
)
def test_missing_variable_is_named(name, trained):
  with pytest.raises(ValueError, match=f'{name} is missing') as error:
    evaluate_changed(trained, lambda read: read.pop(name))
  assert 'layer_sparsity' not in str(error.value)


def test_misshapen_variable_is_named(trained):

  def change(read):
    name = 'resnet_model/final_dense/weights'
    read[name] = read[name][:, :9]

  with pytest.raises(
    ValueError, match=(r'final_dense/weights is \[8, 9\] there and \[8, 10\] here')
  ):
    evaluate_changed(trained, change)


# (layer, network, value of its flag that gives it a mask, one that gives none).
ENDS = [
  ('first', 'resnet', -1.0, 0.0),
  ('first', 'mobilenet_v1', 0.5, 0.0),
  ('first', 'mobilenet_v2', 0.5, -1.0),
  ('last', 'resnet', -1.0, 0.0),
  ('last', 'mobilenet_v1', -1.0, 0.0),
  ('last', 'mobilenet_v2', 0.5, 0.0),
  ('last', 'vgg_a', -1.0, 0.0),
]


@pytest.mark.parametrize('ends, has_mask', combinations.thinned(ENDS, [False, True]))
def test_end_layers_have_the_masks_of_the_checkpoint(ends, has_mask, short):
  """Whatever the flags say; the names of dense layers differ."""
  end, network, with_mask, without = ends
  flag = f'{end}_layer_sparsity'
  given, other = (with_mask, without) if has_mask else (without, with_mask)
  config = imagenet_config.ImageNetConfig(model_architecture=network, resnet_depth=18, width=0.25)
  there = variables_of(dataclasses.replace(config, **{flag: given}))
  here = dataclasses.replace(config, **{flag: other})
  assert variables_of(here) != there
  masked = [name.removesuffix('/mask') for name in there if name.endswith('/mask')]
  assert variables_of(here, masked) == there


def evaluate_folder(folder, *given, mode='eval_once'):
  """Evaluates with these flags, and those of what no run can say."""
  argv = [f'--mode={mode}', f'--output_dir={folder}', '--use_synthetic_data', *given]
  with script_flags.parsed(argv):
    tf.get_logger().setLevel('ERROR')
    with quick_sessions.of_scripts():
      script.main(['imagenet_train_eval.py'])


@pytest.mark.parametrize(
  'values',
  [
    # The tests below read the config of another ResNet.
    pytest.param({'first_layer_sparsity': -1.0}, marks=pytest.mark.slow),
    {'model_architecture': 'mobilenet_v1', 'training_method': 'baseline'},
    {'model_architecture': 'mobilenet_v2', 'expansion_factor': 3.0, 'last_layer_sparsity': 0.0},
    pytest.param({'model_architecture': 'vgg_a', 'width': 0.25}, marks=pytest.mark.slow),
  ],
)
def test_the_folder_is_enough(values, short, tmp_path, capsys):
  """In a folder of its own below another one, as the script makes it."""
  imagenet_script.run(
    tmp_path,
    **{
      'training_method': 'scratch',
      'use_folder_stub': True,
      'train_steps': 1,
      'mode': 'train_and_eval',
      **values,
    },
  )
  (config,) = tmp_path.rglob('config.gin')
  [expected] = [
    line for line in capsys.readouterr().out.splitlines() if line.startswith('step 1: top 1')
  ]
  evaluate_folder(config.parent)
  first, *_, total = capsys.readouterr().out.splitlines()
  assert first == expected
  assert total.endswith('of all of them')
  evaluate_folder(config.parent, mode='eval')
  assert capsys.readouterr().out.splitlines() == [expected]


NETWORK_FLAGS = [
  '--resnet_depth=18',
  '--width=0.125',
  '--image_size=32',
  '--num_label_classes=10',
  '--num_train_images=2048',
  '--num_eval_images=20',
]


@pytest.mark.parametrize(
  'first_layer_sparsity, given',
  combinations.quick(
    itertools.product(
      [0.0, -1.0], [[], ['--first_layer_sparsity=-1'], ['--first_layer_sparsity=0']]
    ),
    (0.0, ['--first_layer_sparsity=-1']),
    (-1.0, []),
  ),
)
def test_masks_are_found_without_a_config(first_layer_sparsity, given, short, tmp_path, capsys):
  """With the flags of the network alone, or with any of the first layer."""
  imagenet_script.run(
    tmp_path, training_method='scratch', train_steps=1, first_layer_sparsity=first_layer_sparsity
  )
  (tmp_path / 'config.gin').unlink()
  (tmp_path / 'checkpoint').unlink()
  capsys.readouterr()
  evaluate_folder(tmp_path, *NETWORK_FLAGS, *given)
  printed = capsys.readouterr().out
  assert printed.startswith('step 1: top 1 ')
  assert ('resnet_model/initial_conv' in printed) == bool(first_layer_sparsity)


@pytest.mark.parametrize('mode', ['eval', 'eval_once'])
def test_a_flag_wins_over_the_folder(mode, trained, capsys):
  evaluate_folder(trained, mode=mode)
  n_of_folder = capsys.readouterr().out
  evaluate_folder(trained, '--num_eval_images=3', mode=mode)
  assert capsys.readouterr().out != n_of_folder


@pytest.mark.parametrize('mode', ['eval', 'eval_once'])
@pytest.mark.parametrize(
  'flag, there',
  [
    ('width=0.25', 'width=0.125, not 0.25'),
    ('num_label_classes=7', 'num_label_classes=10, not 7'),
    ('model_architecture=mobilenet_v2', 'model_architecture=resnet, not mobilenet_v2'),
  ],
)
def test_a_flag_of_another_network_than_that_of_the_folder(flag, there, mode, trained):
  with pytest.raises(ValueError) as error:
    evaluate_folder(trained, f'--{flag}', mode=mode)
  message = str(error.value)
  assert 'does not fit' in message and '\n' not in message
  assert message.startswith(f'The run in {trained} has {there}. Leave out --{flag.split("=")[0]}. ')


def test_a_folder_above_runs_names_them(trained):
  with pytest.raises(ValueError, match=f'Runs are in {re.escape(trained)}'):
    evaluate_folder(os.path.dirname(trained))


def test_another_network_without_a_config(trained):
  pathlib.Path(trained, 'config.gin').unlink()
  with pytest.raises(
    ValueError,
    match=(
      f'No config.gin in {trained} .* Give its flags: --model_architecture, --resnet_depth, --width'
    ),
  ):
    evaluate_folder(trained)


def test_eval_once_lists_layers_as_they_are_built_and_all_of_them(trained, capsys):
  capsys.readouterr()
  imagenet_script.run(trained, mode='eval_once')
  _, *rows, total = capsys.readouterr().out.splitlines()
  masks = {
    name[: -len('/mask')]: mask
    for name, mask in checkpoint_values.of(trained).items()
    if name.endswith('/mask')
  }
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
    return dict.fromkeys(('global_step', 'top_1_accuracy', 'top_5_accuracy', 'cross_loss'), 0)

  monkeypatch.setattr(runner, 'evaluate', evaluate)
  parent, name = os.path.split(trained)
  imagenet_script.run(trained, mode='eval_once')
  imagenet_script.run(parent, mode='eval_once', eval_once_ckpt_prefix=name)
  imagenet_script.run(trained, mode='eval_once', eval_once_ckpt_prefix='model.ckpt-0')
  assert seen == [os.path.join(trained, f'model.ckpt-{step}') for step in (2, 2, 0)]


# --- Masks and parameters of another training --------------------------------


def first_and_source(folder, trained):
  """(initial values of a training, final values of the previous one)."""
  first = checkpoint_values.of(os.path.join(folder, 'model.ckpt-0'))
  return first, checkpoint_values.of(trained)


@pytest.mark.parametrize('as_folder', [True, False])
def test_masks_and_nothing_else_are_loaded(as_folder, trained, tmp_path):
  path = trained if as_folder else os.path.join(trained, 'model.ckpt-2')
  folder = imagenet_script.run(
    tmp_path / 'next', training_method='scratch', seed=5, load_mask_dir=path
  )
  start, source = first_and_source(folder, trained)
  for name, value in start.items():
    if name.endswith('/mask'):
      np.testing.assert_array_equal(value, source[name])
    elif name.endswith('/weights'):
      assert (value != source[name]).any()


def test_parameters_and_nothing_else_are_loaded(trained, tmp_path):
  folder = imagenet_script.run(
    tmp_path / 'next',
    training_method='rigl',
    seed=5,
    mask_init_method='random',
    initial_value_checkpoint=trained,
  )
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
    imagenet_script.run(trained, training_method='scratch', width=0.25, train_steps=3)
  assert pathlib.Path(trained, 'config.gin').read_bytes() == before

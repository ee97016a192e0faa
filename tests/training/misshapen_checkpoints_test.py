"""All readers of checkpoints check the shapes of variables first.

A tf.train.Saver does not: it gives a resource variable a value of any shape,
and the graph then computes with that.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from rigl.compat import tf
from rigl.micronet import cli
from rigl.model_pruning import layers
from rigl.training import checkpoints, export, mask_init, resuming, runner
from tests import checkpoint_values, combinations
from tests.training import one_masked_layer, runner_test, small_checkpoints

CONFIG = runner_test.CONFIG
# Of layer/weights and layer/mask, and of what else belongs to a training.
SHAPE = (6, 4)
WEIGHTS, MASK = 'layer/weights', 'layer/mask'
SLOT, STEP = 'layer/weights/Momentum', 'global_step'

RESHAPED = {
  'transposed': lambda value: value.T,
  'flattened': np.ravel,
  'one axis more': lambda value: value[np.newaxis],
  'one unit more': lambda value: np.append(value, value[:, :1], axis=1),
  'one unit': lambda value: value[:, :1],
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """{name: value} of all variables of a training, after its last step."""
  folder = tmp_path_factory.mktemp('trained')
  runner_test.train(folder, 3)
  return checkpoint_values.of(folder)


def save(folder, values, name, reshape):
  """Writes a checkpoint of `values`, one of them in another shape."""
  return small_checkpoints.save(
    folder, {**values, name: reshape(values[name])}, step=int(values[STEP])
  )


def loop(prefix):
  return runner_test.make_loop(os.path.dirname(prefix), CONFIG, None)


def resume(prefix):
  runner_test.train(pathlib.Path(prefix).parent, 3)


def evaluate(prefix):
  runner.evaluate(loop(prefix), runner_test.input_of(1), prefix)


def follow(prefix):
  list(runner.evaluate_until(loop(prefix), runner_test.input_of(1), 1, timeout_seconds=0.1))


def take_masks(prefix):
  with tf.Graph().as_default():
    one_masked_layer.build(CONFIG)
    mask_init.make_scaffold(CONFIG, load_mask_dir=prefix)


def take_sparsities(prefix):
  with tf.Graph().as_default():
    one_masked_layer.build(CONFIG)
    mask_init.initial_sparsities(CONFIG, load_mask_dir=prefix)


def take_parameters(prefix):
  with tf.Graph().as_default():
    one_masked_layer.build(CONFIG)
    checkpoints.initialize_parameters_from_ckpt(prefix, f'{prefix}-new')


def export_model(prefix):
  export.export_saved_model(
    lambda images: layers.masked_fully_connected(images, SHAPE[1], scope='layer'),
    prefix,
    f'{prefix}-export',
    image_shape=[SHAPE[0]],
  )


# What reads a checkpoint: the variables that it reads.
READERS = {
  resume: (WEIGHTS, MASK, SLOT),
  evaluate: (WEIGHTS, MASK),
  follow: (WEIGHTS,),
  take_masks: (MASK,),
  take_sparsities: (MASK,),
  take_parameters: (WEIGHTS,),
  export_model: (WEIGHTS, MASK),
}


@pytest.mark.parametrize(
  'read_and_name, how',
  combinations.thinned(
    [(read, name) for read, names in READERS.items() for name in names], RESHAPED
  ),
)
def test_variable_of_another_shape_is_named(read_and_name, how, trained, tmp_path):
  read, name = read_and_name
  prefix = save(tmp_path / 'run', trained, name, RESHAPED[how])
  shape = list(RESHAPED[how](np.ones(SHAPE)).shape)
  with pytest.raises(ValueError) as error:
    read(prefix)
  assert f'{name} is {shape} there and {list(SHAPE)} here' in str(error.value)
  assert prefix in str(error.value)


@pytest.mark.parametrize('read', READERS)
def test_fitting_checkpoint_is_read(read, trained, tmp_path):
  """So nothing but the shape makes the test above fail to read one."""
  read(save(tmp_path / 'run', trained, STEP, np.int64))


# What counts the steps of a checkpoint.
COUNTERS = {
  'latest_step': lambda prefix: checkpoints.latest_step(os.path.dirname(prefix)),
  'iterations_done': lambda prefix: resuming.iterations_done(os.path.dirname(prefix), CONFIG),
  'export': export_model,
  'evaluate': evaluate,
  'resume': resume,
}


@pytest.mark.parametrize('count', COUNTERS)
@pytest.mark.parametrize('shape', [[1], [2]])
def test_step_that_is_no_scalar_is_named(count, shape, trained, tmp_path):
  prefix = save(tmp_path / 'run', trained, STEP, lambda step: np.full(shape, step, np.int64))
  with pytest.raises(ValueError) as error:
    COUNTERS[count](prefix)
  assert f'{STEP} is {shape} there and [] here' in str(error.value)


def test_masks_that_are_counted(tmp_path, capsys):
  """Of LeNet, whose layer1 is [784, 300]."""
  prefix = small_checkpoints.save(
    tmp_path / 'run', {'layer1/mask': np.ones([300, 784], np.float32)}
  )
  with pytest.raises(SystemExit):
    cli.main([f'--checkpoint={prefix}', '--architecture=lenet_300_100'])
  message = capsys.readouterr().err
  assert "its layer 'layer1' has the shape (784, 300), the mask (300, 784)" in (message)

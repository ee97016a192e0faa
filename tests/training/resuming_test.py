"""A training resumes with its own settings and with the next batch."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest

from rigl import gin_configs
from rigl.cifar_resnet import cifar_experiment
from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.core import methods
from rigl.imagenet_resnet import imagenet_experiment
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig
from rigl.mnist import mnist_experiment
from rigl.mnist.mnist_config import MnistConfig
from rigl.training import iterations, resuming
from rigl.training.config import SparsityConfig
from tests import sparse_net
from tests.training import one_masked_layer
from tests.training.small_checkpoints import DATA, VALUES, damage, save


@pytest.fixture
def prefix(tmp_path):
  return save(tmp_path / 'run')


# --- check_same_settings -----------------------------------------------------


def check_same_settings(prefix, written, **changes):
  folder = os.path.dirname(prefix)
  if written:
    gin_configs.write(folder, written)
  resuming.check_same_settings(folder, 'save_path', [SparsityConfig(**changes)])


def fields_of(*config_classes):
  return {
    field.name for config_class in config_classes for field in dataclasses.fields(config_class)
  }


@pytest.mark.parametrize('names', ['_LASTING', '_OF_MASKS', '_SCHEDULE', '_FREE'])
def test_settings_that_are_compared_exist(names):
  """One that no config has would never differ."""
  assert set(getattr(resuming, names)) <= fields_of(
    SparsityConfig, MnistConfig, CifarConfig, ImageNetConfig
  )


@pytest.mark.parametrize(
  'experiment',
  [
    mnist_experiment.MnistExperiment,
    cifar_experiment.CifarExperiment,
    imagenet_experiment.ImageNetExperiment,
  ],
)
def test_settings_that_a_script_keeps_are_those_of_its_config(experiment):
  names = {*experiment.network_fields, *experiment.lasting_fields}
  assert names and names <= fields_of(*experiment.schema.hyperparameter_classes)
  assert experiment.schema.folder in fields_of(experiment.schema.settings_class)


def test_settings_of_a_training_must_not_change(prefix):
  with pytest.raises(ValueError) as error:
    check_same_settings(prefix, SparsityConfig(training_method='set'), training_method='rigl')
  for words in (os.path.dirname(prefix), 'training_method=set, not rigl', 'another save_path'):
    assert words in str(error.value)


@pytest.mark.parametrize('method', ['set', 'snip', 'prune', 'baseline'])
@pytest.mark.parametrize(
  'changes', [{'end_sparsity': 0.3}, {'mask_init_method': 'erdos_renyi'}, {'erk_power_scale': 2.0}]
)
def test_masks_are_made_once(method, changes, prefix):
  written = SparsityConfig(training_method=method)
  if method in ('prune', 'baseline'):
    check_same_settings(prefix, written, training_method=method, **changes)
  else:
    (name,) = changes
    with pytest.raises(ValueError, match=f'{name}=.*, not {changes[name]}'):
      check_same_settings(prefix, written, training_method=method, **changes)


def test_other_settings_may_change_with_a_warning(prefix, caplog):
  check_same_settings(prefix, SparsityConfig(), drop_fraction=0.1)
  assert f'The training in {os.path.dirname(prefix)} had' in caplog.text
  assert 'drop_fraction=0.3, not 0.1' in caplog.text


def test_a_longer_training_is_nothing_to_warn_of(tmp_path, caplog):
  @dataclasses.dataclass(frozen=True)
  class LengthConfig:
    num_epochs: int = 2

  prefix = save(tmp_path / 'run')
  folder = os.path.dirname(prefix)
  gin_configs.write(folder, SparsityConfig(), LengthConfig())
  resuming.check_same_settings(folder, 'save_path', (SparsityConfig(), LengthConfig(4)))
  assert not caplog.text


def test_settings_of_a_folder_without_a_training(prefix):
  check_same_settings(prefix, None, training_method='rigl')
  damage(prefix, '.index', 'missing')
  os.remove(os.path.join(os.path.dirname(prefix), 'checkpoint'))
  check_same_settings(prefix, SparsityConfig(training_method='set'), training_method='rigl')


@dataclasses.dataclass(frozen=True)
class ScriptConfig:
  """As scripts have one of their own."""

  batch_size: int = 8
  optimizer: str = 'sgd'
  training_steps_multiplier: float = 1.0


# Updates at the steps 0, 3, 6, ..., 18; 25 steps are done.
TRAINED = {'training_method': 'rigl', 'maskupdate_frequency': 3, 'maskupdate_end_step': 20}


def changed(folder, config=ScriptConfig(), iteration=32, written=TRAINED, **fields):
  """What check_same_settings finds wrong with a training that changes.

  Args:
    iteration: None for a checkpoint that lacks it.
  """
  values = {'global_step': np.array(25), 'last_mask_update_step': np.array(18)}
  if iteration is not None:
    values['iteration'] = np.array(iteration)
  save(folder, values, 25)
  gin_configs.write(str(folder), SparsityConfig(**written), ScriptConfig())
  try:
    resuming.check_same_settings(
      str(folder), 'save_path', (SparsityConfig(**{**written, **fields}), config), ['optimizer']
    )
  except ValueError as error:
    assert str(folder) in str(error) and 'another save_path' in str(error)
    return str(error)
  return ''


@pytest.mark.parametrize(
  'config, words',
  [
    (ScriptConfig(batch_size=9), 'batch_size=8, not 9'),
    (ScriptConfig(optimizer='adam'), 'optimizer=sgd, not adam'),
    (ScriptConfig(training_steps_multiplier=2.0), ''),
  ],
)
def test_settings_of_a_script(config, words, tmp_path):
  found = changed(tmp_path, config)
  assert words in found and bool(words) == bool(found)


def test_seed_never_changes(tmp_path):
  assert 'seed=0, not 1' in changed(tmp_path, seed=1)


@pytest.mark.parametrize('method', ['rigl', 'set'])
@pytest.mark.parametrize(
  'fields, words',
  [
    ({}, ''),
    ({'maskupdate_frequency': 1}, 'maskupdate_frequency=3, not 1'),
    ({'maskupdate_begin_step': 6}, 'maskupdate_begin_step=0, not 6'),
    ({'maskupdate_end_step': 99}, 'maskupdate_end_step=20, not 99'),
    (
      {'config': ScriptConfig(training_steps_multiplier=2.0)},
      'training_steps_multiplier=1.0, not 2.0',
    ),
    ({'grow_init': 'random_normal', 'drop_fraction': 0.1}, ''),
  ],
)
def test_schedule_may_change_unless_batches_are_counted_by_it(method, fields, words, tmp_path):
  """RigL's is what tells an old checkpoint's batches."""
  fields = {**fields, 'written': {**TRAINED, 'training_method': method}}
  assert not changed(tmp_path, **fields)
  found = changed(tmp_path, iteration=None, **fields)
  if method == 'rigl':
    assert words in found and bool(words) == bool(found)
  else:
    assert not found


def test_settings_of_a_remote_training():
  """TensorFlow keeps this folder in memory."""
  prefix = save('ram://b/run')
  with pytest.raises(ValueError, match='training_method=set, not rigl'):
    check_same_settings(prefix, SparsityConfig(training_method='set'), training_method='rigl')


# --- iterations_done: against counting ---------------------------------------


def assert_counts_iterations(folder, config, n_iterations):
  """Trains, saves after each iteration and compares the count with it.

  By the variable and, as earlier versions had to, by the schedule.
  """
  for first_iteration in (0, None):
    with tf.Graph().as_default():
      _, train_op, _ = one_masked_layer.build(config, first_iteration=first_iteration)
      assert_counts(folder, config, n_iterations, train_op)


def assert_counts(folder, config, n_iterations, train_op):
  saver = tf.train.Saver([*tf.global_variables(), *iterations.variables()], max_to_keep=1)
  with sparse_net.quick_session() as session:
    session.run([tf.global_variables_initializer(), tf.tables_initializer()])
    counts = []
    for _ in range(n_iterations):
      saver.save(session, str(folder / 'model.ckpt'), write_meta_graph=False)
      counts.append(resuming.iterations_done(str(folder), config))
      session.run(train_op)
  assert counts == list(range(n_iterations))


@pytest.mark.parametrize('method', methods.METHODS)
def test_iterations_of_every_method(method, tmp_path):
  assert_counts_iterations(
    tmp_path,
    SparsityConfig(
      training_method=method,
      end_sparsity=0.5,
      maskupdate_begin_step=2,
      maskupdate_end_step=6,
      maskupdate_frequency=2,
      pruning_begin_step=1,
      pruning_end_step=4,
      pruning_frequency=1,
    ),
    11,
  )


@pytest.mark.parametrize(
  'begin, end, frequency', [(0, -1, 1), (0, 0, 1), (3, 7, 3), (5, 5, 2), (1, -1, 4)]
)
def test_iterations_of_rigl_which_spends_some_on_masks(begin, end, frequency, tmp_path):
  assert_counts_iterations(
    tmp_path,
    SparsityConfig(
      training_method='rigl',
      end_sparsity=0.5,
      maskupdate_begin_step=begin,
      maskupdate_end_step=end,
      maskupdate_frequency=frequency,
    ),
    15,
  )


def test_no_iterations_without_checkpoint(tmp_path):
  assert resuming.iterations_done(str(tmp_path), SparsityConfig()) == 0
  assert resuming.iterations_done(str(tmp_path / 'x'), SparsityConfig()) == 0


@pytest.mark.parametrize(
  'suffix, how',
  [
    ('.index', 'truncated'),
    ('.index', 'garbage'),
    (DATA, 'truncated'),
    (DATA, 'garbage'),
    (DATA, 'missing'),
  ],
)
def test_counting_in_a_damaged_checkpoint_is_a_named_error(prefix, suffix, how):
  damage(prefix, suffix, how)
  with pytest.raises(ValueError, match='Cannot read') as error:
    resuming.iterations_done(os.path.dirname(prefix), SparsityConfig())
  assert prefix in str(error.value)


def test_counting_without_global_step_is_a_named_error(tmp_path):
  prefix = save(tmp_path / 'run', {'a/mask': VALUES['a/mask']})
  with pytest.raises(ValueError, match='global_step') as error:
    resuming.iterations_done(str(tmp_path / 'run'), SparsityConfig())
  assert prefix in str(error.value)

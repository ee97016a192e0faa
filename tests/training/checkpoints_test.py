"""Checkpoints: found, checked, refused when damaged, and counted right."""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np
import pytest

from rigl.compat import tf
from rigl.training import checkpoints, gin_configs, methods
from rigl.training.config import SparsityConfig
from tests.training import one_masked_layer

VALUES = {
    'a/weights': np.arange(12, dtype=np.float32).reshape(3, 4),
    'a/mask': np.eye(3, 4, dtype=np.float32),
    'b/weights': np.full([5], 7., np.float32),
    'global_step': np.array(30, np.int64),
}


def make_variables(values):
  """Variables of the default graph with the shapes of `values`."""
  return [tf.get_variable(name, value.shape, value.dtype.type)
          for name, value in values.items()]


def save(folder, values=None, step=30):
  """Writes a checkpoint; returns its prefix."""
  values = VALUES if values is None else values
  os.makedirs(folder, exist_ok=True)
  with tf.Graph().as_default(), tf.Session() as session:
    variables = make_variables(values)
    for variable, value in zip(variables, values.values()):
      variable.load(value, session)
    return tf.train.Saver(variables, save_relative_paths=True).save(
        session, os.path.join(folder, 'model.ckpt'), global_step=step)


@pytest.fixture
def prefix(tmp_path):
  return save(tmp_path / 'run')


def variables_like(values):
  with tf.Graph().as_default():
    return make_variables(values)


def damage(prefix, suffix, how):
  """Damages a file of a checkpoint; returns its path."""
  path = pathlib.Path(prefix + suffix)
  content = path.read_bytes()
  if how == 'truncated':
    path.write_bytes(content[:len(content) // 2])
  elif how == 'empty':
    path.write_bytes(b'')
  elif how == 'garbage':
    path.write_bytes(bytes(255 - byte for byte in content))
  else:
    path.unlink()
  return path


# --- resolve -----------------------------------------------------------------


def test_resolves_a_prefix_to_itself(prefix):
  assert checkpoints.resolve(prefix) == prefix


def test_resolves_a_folder_to_its_latest(tmp_path):
  save(tmp_path / 'run', step=10)
  latest = save(tmp_path / 'run', step=9)
  assert checkpoints.resolve(str(tmp_path / 'run')) == latest
  assert checkpoints.resolve(str(tmp_path / 'run') + '/') == latest
  earlier = str(tmp_path / 'run' / 'model.ckpt-10')
  assert checkpoints.resolve(earlier) == earlier


def test_resolves_a_folder_that_was_moved(tmp_path, prefix):
  shutil.move(tmp_path / 'run', tmp_path / 'moved')
  assert checkpoints.resolve(str(tmp_path / 'moved')) == str(
      tmp_path / 'moved' / 'model.ckpt-30')


@pytest.mark.parametrize('make', [
    lambda path: path,  # Nothing there.
    lambda path: path.mkdir() or path,
    lambda path: pathlib.Path(save(path)[:-1] + '1'),  # Another step.
    lambda path: damage(save(path), '.index', 'missing').parent,
], ids=['nothing', 'empty folder', 'other step', 'index removed'])
def test_no_checkpoint_is_an_error_that_names_the_path(make, tmp_path):
  path = str(make(tmp_path / 'x'))
  with pytest.raises(ValueError, match='No checkpoint') as error:
    checkpoints.resolve(path)
  assert path in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('suffix', ['.index', '.data-00000-of-00001'])
def test_a_file_of_a_checkpoint_is_not_its_prefix(prefix, suffix):
  with pytest.raises(ValueError) as error:
    checkpoints.check_fits(
        checkpoints.resolve(prefix + suffix), {'a/mask': (3, 4)})
  assert prefix + suffix in str(error.value)


# --- check_fits --------------------------------------------------------------


def test_fits_when_the_checkpoint_holds_more(prefix):
  checkpoints.check_fits(prefix, {})
  checkpoints.check_fits(prefix, {'a/mask': [3, 4], 'global_step': ()})


def test_misfits_are_named_with_both_shapes(prefix):
  with pytest.raises(ValueError) as error:
    checkpoints.check_fits(prefix, {
        'a/weights': (3, 5), 'a/mask': (3, 4), 'c/weights': (2,),
        'b/weights': ()})
  message = str(error.value)
  for words in (prefix, 'a/weights is [3, 4] there and [3, 5] here',
                'b/weights is [5] there and [] here',
                'c/weights is missing there'):
    assert words in message
  assert 'a/mask' not in message
  assert '\n' not in message


def test_long_lists_of_misfits_are_cut(prefix):
  with pytest.raises(ValueError, match='and 3 more') as error:
    checkpoints.check_fits(prefix, {f'v{i}': () for i in range(8)})
  assert 'v4 is missing' in str(error.value)
  assert 'v5' not in str(error.value)


@pytest.mark.parametrize('how', ['truncated', 'empty', 'garbage', 'missing'])
def test_damaged_index_is_named(prefix, how):
  damage(prefix, '.index', how)
  for use in (checkpoints.open_checkpoint,
              lambda p: checkpoints.check_fits(p, {})):
    with pytest.raises(ValueError, match='Cannot read') as error:
      use(prefix)
    assert prefix in str(error.value)


# --- read_values -------------------------------------------------------------


def test_reads_the_values_of_the_variables_asked_for(prefix):
  wanted = {name: VALUES[name] for name in ('b/weights', 'a/mask')}
  values = checkpoints.read_values(prefix, variables_like(wanted))
  assert set(values) == set(wanted)
  for name, value in wanted.items():
    np.testing.assert_array_equal(values[name], value)


def test_reads_nothing_from_a_misfit(prefix):
  with pytest.raises(ValueError, match='a/mask is .3, 4. there and .2, 2.'):
    checkpoints.read_values(
        prefix, variables_like({'a/mask': np.zeros([2, 2], np.float32)}))


DATA = '.data-00000-of-00001'


@pytest.mark.parametrize('how', ['truncated', 'empty', 'garbage', 'missing'])
def test_damaged_data_is_named(prefix, how):
  damage(prefix, DATA, how)
  with pytest.raises(ValueError, match='Cannot read') as error:
    checkpoints.read_values(prefix, variables_like(VALUES))
  assert prefix in str(error.value)


# --- check_resumable ---------------------------------------------------------


def test_a_folder_without_checkpoint_can_be_started_in(tmp_path):
  checkpoints.check_resumable(str(tmp_path), variables_like(VALUES))
  checkpoints.check_resumable(str(tmp_path / 'x'), variables_like(VALUES))


def test_a_folder_with_a_fitting_checkpoint_can_be_resumed(prefix):
  checkpoints.check_resumable(
      os.path.dirname(prefix), variables_like(VALUES))


def test_a_folder_of_another_network_cannot_be_resumed(prefix):
  other = {**VALUES, 'c/mask': np.zeros([2], np.float32)}
  with pytest.raises(ValueError, match='c/mask is missing'):
    checkpoints.check_resumable(
        os.path.dirname(prefix), variables_like(other))


# --- check_same_settings -----------------------------------------------------


def check_same_settings(prefix, written, **changes):
  folder = os.path.dirname(prefix)
  if written:
    gin_configs.write(folder, written)
  checkpoints.check_same_settings(
      folder, 'save_path', [SparsityConfig(**changes)], ['training_method'])


def test_settings_of_a_training_must_not_change(prefix):
  with pytest.raises(ValueError) as error:
    check_same_settings(
        prefix, SparsityConfig(training_method='set'), training_method='rigl')
  for words in (os.path.dirname(prefix), 'training_method=set, not rigl',
                'another save_path'):
    assert words in str(error.value)


def test_other_settings_may_change(prefix):
  check_same_settings(
      prefix, SparsityConfig(training_method='set'), training_method='set',
      end_sparsity=0.3)


def test_settings_of_a_folder_without_a_training(prefix):
  check_same_settings(prefix, None, training_method='rigl')
  damage(prefix, '.index', 'missing')
  os.remove(os.path.join(os.path.dirname(prefix), 'checkpoint'))
  check_same_settings(
      prefix, SparsityConfig(training_method='set'), training_method='rigl')


# --- iterations_done: against counting ---------------------------------------


def assert_counts_iterations(folder, config, n_iterations):
  """Trains, saves after each iteration and compares the count with it."""
  with tf.Graph().as_default():
    _, train_op, _ = one_masked_layer.build(config)
    saver = tf.train.Saver(max_to_keep=1)
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      counts = []
      for _ in range(n_iterations):
        saver.save(session, str(folder / 'model.ckpt'),
                   write_meta_graph=False)
        counts.append(checkpoints.iterations_done(str(folder), config))
        session.run(train_op)
  assert counts == list(range(n_iterations))


@pytest.mark.parametrize('method', methods.METHODS)
def test_iterations_of_every_method(method, tmp_path):
  assert_counts_iterations(tmp_path, SparsityConfig(
      training_method=method, end_sparsity=0.5, maskupdate_begin_step=2,
      maskupdate_end_step=6, maskupdate_frequency=2, pruning_begin_step=1,
      pruning_end_step=4, pruning_frequency=1), 11)


@pytest.mark.parametrize('begin, end, frequency', [
    (0, -1, 1), (0, 0, 1), (3, 7, 3), (5, 5, 2), (1, -1, 4)])
def test_iterations_of_rigl_which_spends_some_on_masks(
    begin, end, frequency, tmp_path):
  assert_counts_iterations(tmp_path, SparsityConfig(
      training_method='rigl', end_sparsity=0.5, maskupdate_begin_step=begin,
      maskupdate_end_step=end, maskupdate_frequency=frequency), 15)


def test_no_iterations_without_checkpoint(tmp_path):
  assert checkpoints.iterations_done(str(tmp_path), SparsityConfig()) == 0
  assert checkpoints.iterations_done(
      str(tmp_path / 'x'), SparsityConfig()) == 0


@pytest.mark.parametrize('suffix, how', [
    ('.index', 'truncated'), ('.index', 'garbage'), (DATA, 'truncated'),
    (DATA, 'garbage'), (DATA, 'missing')])
def test_counting_in_a_damaged_checkpoint_is_a_named_error(
    prefix, suffix, how):
  damage(prefix, suffix, how)
  with pytest.raises(ValueError, match='Cannot read') as error:
    checkpoints.iterations_done(os.path.dirname(prefix), SparsityConfig())
  assert prefix in str(error.value)


def test_counting_without_global_step_is_a_named_error(tmp_path):
  prefix = save(tmp_path / 'run', {'a/mask': VALUES['a/mask']})
  with pytest.raises(ValueError, match='global_step') as error:
    checkpoints.iterations_done(str(tmp_path / 'run'), SparsityConfig())
  assert prefix in str(error.value)


# --- latest_step -------------------------------------------------------------


def test_latest_step(tmp_path, prefix):
  assert checkpoints.latest_step(os.path.dirname(prefix)) == 30
  assert checkpoints.latest_step(str(tmp_path / 'x')) == 0


def test_latest_step_of_a_damaged_checkpoint_is_a_named_error(prefix):
  damage(prefix, DATA, 'missing')
  with pytest.raises(ValueError, match='Cannot read') as error:
    checkpoints.latest_step(os.path.dirname(prefix))
  assert prefix in str(error.value)


def test_sparsities_of_the_masks_of_a_checkpoint(tmp_path):
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in (('a/mask', [1., 0., 0., 0.]), ('b/c/mask', [1., 1.]),
                        ('a/weights', [0., 0., 0., 0.])):
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model'))
  assert checkpoints.mask_sparsities(prefix) == {'a': 0.75, 'b/c': 0.}

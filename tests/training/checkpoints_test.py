"""Checkpoints: found, checked, refused when damaged."""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np
import pytest

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.training import checkpoints
from tests.training.small_checkpoints import DATA, VALUES, damage, make_variables, save


@pytest.fixture
def prefix(tmp_path):
  return save(tmp_path / 'run')


def variables_like(values):
  with tf.Graph().as_default():
    return make_variables(values)


# --- resolve -----------------------------------------------------------------


def test_resolves_a_prefix_to_itself(prefix):
  assert checkpoint_files.resolve(prefix) == prefix
  assert checkpoint_files.resolve(f'{prefix}.index') == prefix


def test_resolves_a_folder_to_its_latest(tmp_path):
  save(tmp_path / 'run', step=10)
  latest = save(tmp_path / 'run', step=9)
  assert checkpoint_files.resolve(str(tmp_path / 'run')) == latest
  assert checkpoint_files.resolve(str(tmp_path / 'run') + '/') == latest
  earlier = str(tmp_path / 'run' / 'model.ckpt-10')
  assert checkpoint_files.resolve(earlier) == earlier


def test_resolves_a_folder_without_a_state_file_to_the_last_step(tmp_path):
  latest = save(tmp_path / 'run', step=10)
  save(tmp_path / 'run', step=9)
  (tmp_path / 'run' / 'checkpoint').unlink()
  assert checkpoint_files.resolve(str(tmp_path / 'run')) == latest


def test_resolves_a_folder_that_was_moved(tmp_path, prefix):
  shutil.move(tmp_path / 'run', tmp_path / 'moved')
  assert checkpoint_files.resolve(str(tmp_path / 'moved')) == str(
    tmp_path / 'moved' / 'model.ckpt-30'
  )


def without_state_file(folder, *steps, cut):
  """A folder with checkpoints of these steps, one cut short by a kill."""
  for step in steps:
    prefix = save(folder, step=step)
    if step == cut:
      damage(prefix, '.index', 'empty')
  (folder / 'checkpoint').unlink()
  return str(folder)


def test_an_index_cut_short_is_no_checkpoint(tmp_path):
  folder = without_state_file(tmp_path, 0, 9, 10, cut=10)
  assert checkpoint_files.resolve(folder) == f'{folder}/model.ckpt-9'


def test_a_first_checkpoint_cut_short_is_a_new_start(tmp_path):
  assert checkpoint_files.latest(without_state_file(tmp_path, 0, cut=0)) is None


def test_a_later_checkpoint_cut_short_is_not_a_new_start(tmp_path):
  folder = without_state_file(tmp_path, 7, cut=7)
  with pytest.raises(ValueError, match='can be read') as error:
    checkpoint_files.latest(folder)
  assert f'{folder}/model.ckpt-7' in str(error.value)


@pytest.mark.parametrize(
  'make',
  [
    lambda path: path,  # Nothing there.
    lambda path: path.mkdir() or path,
    lambda path: pathlib.Path(save(path)[:-1] + '1'),  # Another step.
    lambda path: damage(save(path), '.index', 'missing').parent,
  ],
  ids=['nothing', 'empty folder', 'other step', 'index removed'],
)
def test_no_checkpoint_is_an_error_that_names_the_path(make, tmp_path):
  path = str(make(tmp_path / 'x'))
  with pytest.raises(ValueError, match='No checkpoint') as error:
    checkpoint_files.resolve(path)
  assert path in str(error.value)
  assert '\n' not in str(error.value)


def test_a_data_file_of_a_checkpoint_is_not_its_prefix(prefix):
  path = f'{prefix}.data-00000-of-00001'
  with pytest.raises(ValueError) as error:
    checkpoint_files.resolve(path)
  assert path in str(error.value)


# --- check_fits --------------------------------------------------------------


def test_fits_when_the_checkpoint_holds_more(prefix):
  checkpoints.check_fits(prefix, {})
  checkpoints.check_fits(prefix, {'a/mask': [3, 4], 'global_step': ()})


def test_misfits_are_named_with_both_shapes(prefix):
  with pytest.raises(ValueError) as error:
    checkpoints.check_fits(
      prefix, {'a/weights': (3, 5), 'a/mask': (3, 4), 'c/weights': (2,), 'b/weights': ()}
    )
  message = str(error.value)
  for words in (
    prefix,
    'a/weights is [3, 4] there and [3, 5] here',
    'b/weights is [5] there and [] here',
    'c/weights is missing there',
  ):
    assert words in message
  assert 'a/mask' not in message
  assert '\n' not in message


def test_long_lists_of_misfits_are_cut(prefix):
  with pytest.raises(ValueError, match='and 3 more') as error:
    checkpoints.check_fits(prefix, {f'v{i}': () for i in range(8)})
  assert 'v4 is missing' in str(error.value)
  assert 'v5' not in str(error.value)


@pytest.mark.parametrize(
  'n, end', [(5, 'v4 is missing there.'), (6, 'v4 is missing there and 1 more.')]
)
def test_only_long_lists_of_misfits_are_cut(prefix, n, end):
  with pytest.raises(ValueError) as error:
    checkpoints.check_fits(prefix, {f'v{i}': () for i in range(n)})
  assert str(error.value).endswith(end)


@pytest.mark.parametrize('how', ['truncated', 'empty', 'garbage', 'missing'])
def test_damaged_index_is_named(prefix, how):
  damage(prefix, '.index', how)
  for use in (checkpoint_files.open_checkpoint, lambda p: checkpoints.check_fits(p, {})):
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
    checkpoints.read_values(prefix, variables_like({'a/mask': np.zeros([2, 2], np.float32)}))


@pytest.mark.parametrize('how', ['truncated', 'empty', 'garbage', 'missing'])
def test_damaged_data_is_named(prefix, how):
  damage(prefix, DATA, how)
  with pytest.raises(ValueError, match='Cannot read') as error:
    checkpoints.read_values(prefix, variables_like(VALUES))
  assert prefix in str(error.value)


@pytest.mark.parametrize('part', ['index', 'data'])
def test_the_way_from_a_damaged_checkpoint_to_an_earlier_one(part, tmp_path):
  folder = tmp_path / 'run'
  earlier, prefix = save(folder, step=20), save(folder, step=30)
  for path in folder.glob(f'model.ckpt-30.{part}*'):
    path.write_bytes(b'damaged')
  variables = variables_like(VALUES)
  with pytest.raises(ValueError, match='Cannot read the checkpoint') as error:
    checkpoints.check_resumable(str(folder), variables)
  assert str(error.value).endswith(
    f' Delete {prefix}.* and {folder / "checkpoint"} to use {earlier}.'
  )
  for path in [*folder.glob('model.ckpt-30.*'), folder / 'checkpoint']:
    path.unlink()
  assert checkpoints.check_resumable(str(folder), variables) == earlier


# --- check_resumable ---------------------------------------------------------


def test_a_folder_without_checkpoint_can_be_started_in(tmp_path):
  checkpoints.check_resumable(str(tmp_path), variables_like(VALUES))
  checkpoints.check_resumable(str(tmp_path / 'x'), variables_like(VALUES))


def test_a_folder_with_a_fitting_checkpoint_can_be_resumed(prefix):
  checkpoints.check_resumable(os.path.dirname(prefix), variables_like(VALUES))


def test_a_folder_of_another_network_cannot_be_resumed(prefix):
  other = {**VALUES, 'c/mask': np.zeros([2], np.float32)}
  with pytest.raises(ValueError, match='c/mask is missing'):
    checkpoints.check_resumable(os.path.dirname(prefix), variables_like(other))


# --- latest_step -------------------------------------------------------------


def test_latest_step(tmp_path, prefix):
  assert checkpoints.latest_step(os.path.dirname(prefix)) == 30
  assert checkpoints.latest_step(str(tmp_path / 'x')) == 0


def test_latest_step_of_a_damaged_checkpoint_is_a_named_error(prefix):
  damage(prefix, DATA, 'missing')
  with pytest.raises(ValueError, match='Cannot read') as error:
    checkpoints.latest_step(os.path.dirname(prefix))
  assert prefix in str(error.value)


# --- describe_latest ----------------------------------------------------------


def test_the_latest_checkpoint_in_words(tmp_path, prefix):
  folder = os.path.dirname(prefix)
  assert prefix in checkpoints.describe_latest(folder)
  assert 'no checkpoint' in checkpoints.describe_latest(str(tmp_path / 'x'))
  pathlib.Path(folder, 'checkpoint').write_text('rubbish')
  assert 'rubbish' not in checkpoints.describe_latest(folder)
  assert f'Delete {folder}' in checkpoints.describe_latest(folder)


# --- initialize_parameters_from_ckpt ------------------------------------------


def start_from(prefix, model_dir, values):
  """The values that variables of these ones start with."""
  with tf.Graph().as_default(), tf.Session() as session:
    variables = {name: tf.get_variable(name, initializer=value) for name, value in values.items()}
    checkpoints.initialize_parameters_from_ckpt(prefix, str(model_dir))
    session.run(tf.global_variables_initializer())
    return {name: list(value) for name, value in session.run(variables).items()}


def save_lists(folder, values):
  return save(folder, {name: np.array(value, np.float32) for name, value in values.items()})


def test_parameters_start_from_those_of_another_training(tmp_path):
  old = {'a/weights': [1.0, 2.0], 'a/mask': [1.0, 0.0], 'a/weights/Momentum': [3.0]}
  new = {'a/weights': [8.0, 9.0], 'a/mask': [0.0, 1.0], 'b/mask': [1.0]}
  prefix = save_lists(tmp_path / 'old', old)
  assert start_from(prefix, tmp_path / 'new', new) == {**new, 'a/weights': [1.0, 2.0]}
  # Once it has a checkpoint of its own, it goes on from that one.
  save_lists(tmp_path / 'new', new)
  assert start_from(prefix, tmp_path / 'new', new) == new


def test_parameters_that_another_training_lacks_are_named(tmp_path):
  prefix = save_lists(tmp_path / 'old', {'a/weights': [1.0, 2.0]})
  with pytest.raises(ValueError, match='b/biases'):
    start_from(prefix, tmp_path / 'new', {'b/biases': [0.0]})


# --- mask_sparsities ----------------------------------------------------------


def test_sparsities_of_the_masks_of_a_checkpoint(tmp_path):
  with tf.Graph().as_default(), tf.Session() as session:
    for name, value in (
      ('a/mask', [1.0, 0.0, 0.0, 0.0]),
      ('b/c/mask', [1.0, 1.0]),
      ('a/weights', [0.0, 0.0, 0.0, 0.0]),
      ('a/unmask', [0.0]),
    ):
      tf.get_variable(name, initializer=value)
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model'))
  assert checkpoints.mask_sparsities(prefix) == {'a': 0.75, 'b/c': 0.0}

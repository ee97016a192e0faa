"""Checkpoints that are being saved when something goes wrong."""

from __future__ import annotations

import contextlib
import pathlib

import numpy as np
import pytest

from rigl.compat import tf
from rigl.training import checkpoints, saving
from tests.training.small_checkpoints import DATA, VALUES, damage, save

pytestmark = pytest.mark.usefixtures('graph')


# --- rewriting ---------------------------------------------------------------


def test_one_that_is_not_the_latest_is_written_again_without_a_copy(tmp_path):
  earlier = save(tmp_path, step=3)
  latest = save(tmp_path, step=5)
  before = sorted(tmp_path.iterdir())
  with saving.rewriting(earlier):
    assert sorted(tmp_path.iterdir()) == before
    assert checkpoints.latest(str(tmp_path)) == latest


@pytest.mark.parametrize('has_state_file', [True, False])
def test_a_copy_is_the_latest_while_one_is_written_again(
    has_state_file, tmp_path):
  prefix = save(tmp_path)
  if not has_state_file:
    (tmp_path / 'checkpoint').unlink()
  with saving.rewriting(prefix):
    damage(prefix, '.index', 'empty')
    damage(prefix, DATA, 'garbage')
    copy = checkpoints.latest(str(tmp_path))
    assert copy == f'{prefix}-former'
    values = checkpoints.read_tensors(copy, VALUES)
    for name, value in VALUES.items():
      np.testing.assert_array_equal(values[name], value)
    assert save(tmp_path) == prefix
  assert checkpoints.latest(str(tmp_path)) == prefix
  assert not list(tmp_path.glob('*former*'))


def cut_short(folder):
  """A checkpoint of step 30, killed while it was written again."""
  save(folder, step=20)
  prefix = save(folder)
  with contextlib.suppress(KeyboardInterrupt):
    with saving.rewriting(prefix):
      damage(prefix, '.index', 'empty')
      damage(prefix, DATA, 'garbage')
      raise KeyboardInterrupt
  return prefix


@pytest.mark.parametrize('is_moved', [False, True])
@pytest.mark.parametrize('is_relative', [False, True])
def test_undoing_gives_a_checkpoint_back(
    is_moved, is_relative, tmp_path, monkeypatch):
  """Also in a folder that was moved meanwhile."""
  monkeypatch.chdir(tmp_path)
  folder = tmp_path / 'run'
  cut_short(pathlib.Path('run') if is_relative else folder)
  if is_moved:
    folder = folder.rename(tmp_path / 'moved')
  given = folder.name if is_relative else str(folder)
  saving.undo_rewriting(given)
  prefix = f'{given}/model.ckpt-30'
  assert checkpoints.latest(given) == prefix
  for name, value in checkpoints.read_tensors(prefix, VALUES).items():
    np.testing.assert_array_equal(value, VALUES[name])
  state = (folder / 'checkpoint').read_text()
  assert '"model.ckpt-30"' in state and 'former' not in state
  saving.remove_leftovers(given)
  assert not list(folder.glob('*former*'))


def test_there_is_nothing_to_undo(tmp_path):
  save(tmp_path / 'run')
  before = {path: path.read_bytes() for path in (tmp_path / 'run').iterdir()}
  for folder in (tmp_path / 'run', tmp_path / 'empty'):
    folder.mkdir(exist_ok=True)
    saving.undo_rewriting(str(folder))
    saving.remove_leftovers(str(folder))
  assert before == {
      path: path.read_bytes() for path in (tmp_path / 'run').iterdir()}


def test_leftovers_of_a_kill_are_removed(tmp_path):
  prefix = cut_short(tmp_path)
  leftovers = [
      'model.ckpt-40_temp/part-00000-of-00001.data.tempstate7',
      'model.ckpt-30.meta.tmp0f', 'checkpoint.tmp0f', 'graph.pbtxt.tmp0f',
      'config.gin.123.tmp', 'a_masks.npz.123.tmp']
  kept = ['notes.tmp', 'model.ckpt-40.meta', 'my_model.ckpt-40_temp']
  before = {path.name for path in tmp_path.iterdir()}
  for name in (*leftovers, *kept):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('x')
  saving.remove_leftovers(str(tmp_path))
  # Among what is left is the copy that is the latest.
  assert {path.name for path in tmp_path.iterdir()} == {*before, *kept}
  assert checkpoints.latest(str(tmp_path)) == f'{prefix}-former'


# --- The state file ----------------------------------------------------------


def test_a_state_file_that_is_gone_is_restored(tmp_path):
  earlier, prefix = save(tmp_path, step=9), save(tmp_path, step=10)
  state = tmp_path / 'checkpoint'
  state.unlink()
  saving.restore_state_file(str(tmp_path))
  assert tf.train.latest_checkpoint(str(tmp_path)) == prefix
  found = tf.train.get_checkpoint_state(str(tmp_path))
  assert found.all_model_checkpoint_paths == [earlier, prefix]
  # So that the folder may be moved.
  assert str(tmp_path) not in state.read_text()


def test_a_state_file_that_is_there_stays(tmp_path):
  save(tmp_path, step=10)
  prefix = save(tmp_path, step=9)
  saving.restore_state_file(str(tmp_path))
  assert checkpoints.latest(str(tmp_path)) == prefix


# --- SaverHook ---------------------------------------------------------------


class Killed(BaseException):
  """Stands for SIGKILL: nothing that handles errors takes it for one."""


def kill_while_writing(saver, session, path, global_step, **_):
  """Leaves of a checkpoint what a kill may: its index is begun."""
  del saver, session
  pathlib.Path(f'{path}-{global_step}.index').write_bytes(b'')
  raise Killed


def train_and_save(folder, periods, n_steps, n_moves=0, listeners=()):
  """Makes n more steps, then moves masks n times; returns how often."""
  with tf.Graph().as_default():
    step = tf.train.get_or_create_global_step()
    moved = tf.get_variable('moved', [], initializer=tf.zeros_initializer())
    make_step, move = step.assign_add(1).op, moved.assign_add(1.).op
    tf.add_to_collection(tf.GraphKeys.SAVERS, tf.train.Saver(max_to_keep=None))
    hook = saving.SaverHook(str(folder), *periods)
    hook._listeners.extend(listeners)  # As the Estimator does.
    with tf.train.MonitoredTrainingSession(
        checkpoint_dir=str(folder), save_checkpoint_steps=None,
        save_checkpoint_secs=None, save_summaries_steps=0,
        log_step_count_steps=0, hooks=[hook]) as session:
      for train_op in [make_step] * n_steps + [move] * n_moves:
        session.run(train_op)


def saved_steps(folder, periods, n_steps):
  """The steps of the checkpoints that n more steps of training leave."""
  train_and_save(folder, periods, n_steps)
  return sorted(int(path.suffixes[0].split('-')[1])
                for path in folder.glob('model.ckpt-*.index'))


def saved_moves(folder):
  """How often masks had moved at the latest checkpoint of a folder."""
  prefix = checkpoints.latest(str(folder))
  return checkpoints.read_tensors(prefix, ['moved'])['moved']


def test_checkpoints_come_at_multiples_of_each_period(tmp_path):
  assert saved_steps(tmp_path, (4, 5), 11) == [0, 4, 5, 8, 10, 11]


def test_a_training_that_goes_on_keeps_to_the_multiples(tmp_path):
  saved_steps(tmp_path, (4,), 6)
  assert saved_steps(tmp_path, (4,), 7) == [0, 4, 6, 8, 12, 13]


def test_each_checkpoint_is_written_once(tmp_path, monkeypatch):
  """Neither again at its end nor when training goes on from it."""
  written = []
  save = tf.train.Saver.save

  def save_and_count(saver, session, path, global_step, **options):
    written.append(int(global_step))
    return save(saver, session, path, global_step=global_step, **options)

  monkeypatch.setattr(tf.train.Saver, 'save', save_and_count)
  train_and_save(tmp_path, (2,), 4)
  train_and_save(tmp_path, (2,), 3)
  assert written == [0, 2, 4, 6, 7]


def test_a_kill_at_the_start_spares_what_training_goes_on_from(
    tmp_path, monkeypatch):
  train_and_save(tmp_path, (2,), 4)
  monkeypatch.setattr(tf.train.Saver, 'save', kill_while_writing)
  with pytest.raises(Killed):
    train_and_save(tmp_path, (2,), 3)
  assert checkpoints.latest_step(str(tmp_path)) == 4


def test_masks_that_moved_without_a_step_are_saved_in_the_end(tmp_path):
  train_and_save(tmp_path, (2,), 2)
  train_and_save(tmp_path, (2,), 0, n_moves=3)
  assert checkpoints.latest(str(tmp_path)) == f'{tmp_path}/model.ckpt-2'
  assert saved_moves(tmp_path) == 3.
  assert not list(tmp_path.glob('*former*'))


@pytest.mark.parametrize('n_steps', [0, 4])
def test_a_kill_while_a_checkpoint_is_written_again(
    n_steps, tmp_path, monkeypatch):
  """Nothing of it is seen after another start, nor is a checkpoint lost."""
  train_and_save(tmp_path, (2,), n_steps, n_moves=1)
  state = (tmp_path / 'checkpoint').read_text()
  with monkeypatch.context() as patch:
    patch.setattr(tf.train.Saver, 'save', kill_while_writing)
    with pytest.raises(Killed):
      train_and_save(tmp_path, (2,), 0, n_moves=1)
  former = f'{tmp_path}/model.ckpt-{n_steps}-former'
  assert checkpoints.latest(str(tmp_path)) == former
  assert saved_moves(tmp_path) == 1.
  train_and_save(tmp_path, (2,), 0, n_moves=1)
  assert saved_moves(tmp_path) == 2.
  assert (tmp_path / 'checkpoint').read_text() == state
  assert not list(tmp_path.glob('*former*'))


def test_no_room_for_a_checkpoint_that_is_written_again(tmp_path, monkeypatch):
  train_and_save(tmp_path, (2,), 2)
  copy = tf.io.gfile.copy

  def copy_half(path, copied, overwrite):
    copy(path, copied, overwrite=overwrite)
    raise tf.errors.ResourceExhaustedError(None, None, 'No space left')

  monkeypatch.setattr(tf.io.gfile, 'copy', copy_half)
  with pytest.raises(OSError, match='No space left') as error:
    train_and_save(tmp_path, (2,), 0, n_moves=1)
  prefix = f'{tmp_path}/model.ckpt-2'
  assert f'The last good checkpoint is {prefix}.' in str(error.value)
  assert checkpoints.latest(str(tmp_path)) == prefix
  assert saved_moves(tmp_path) == 0.
  assert not list(tmp_path.glob('*former*'))


class Listener(tf.train.CheckpointSaverListener):
  """Notes what it is told."""

  def __init__(self):
    self.told = []

  def before_save(self, session, global_step_value):
    self.told.append(('before', int(global_step_value)))

  def after_save(self, session, global_step_value):
    self.told.append(('after', int(global_step_value)))


def test_listeners_are_told_of_the_checkpoint_training_goes_on_from(tmp_path):
  train_and_save(tmp_path, (2,), 2)
  listeners = Listener(), Listener()
  train_and_save(tmp_path, (2,), 2, listeners=listeners)
  for listener in listeners:
    assert listener.told == [
        ('before', 2), ('after', 2), ('before', 4), ('after', 4)]

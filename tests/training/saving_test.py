"""Checkpoints, when saving is interrupted."""

from __future__ import annotations

import pathlib

import pytest

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.training import checkpoints, saving
from tests.training.small_checkpoints import save

pytestmark = pytest.mark.usefixtures('graph')


def test_leftovers_of_a_kill_are_removed(tmp_path):
  prefix = save(tmp_path)
  leftovers = [
    'model.ckpt-40_temp/part-00000-of-00001.data.tempstate7',
    'model.ckpt-30.meta.tmp0f',
    'checkpoint.tmp0f',
    'graph.pbtxt.tmp0f',
    'config.gin.123.tmp',
    'a_masks.npz.123.tmp',
  ]
  kept = ['notes.tmp', 'model.ckpt-40.meta', 'my_model.ckpt-40_temp']
  before = {path.name for path in tmp_path.iterdir()}
  for name in (*leftovers, *kept):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text('x')
  saving.remove_leftovers(str(tmp_path))
  assert {path.name for path in tmp_path.iterdir()} == {*before, *kept}
  assert checkpoint_files.latest(str(tmp_path)) == prefix


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
  assert checkpoint_files.latest(str(tmp_path)) == prefix


# --- SaverHook ---------------------------------------------------------------


class Killed(BaseException):
  """Simulates SIGKILL: no error handler catches it."""


def kill_while_writing(saver, session, path, global_step, **_):
  """Leaves of a checkpoint what a kill may: its index is begun."""
  del saver, session
  pathlib.Path(f'{path}-{global_step}.index').write_bytes(b'')
  raise Killed


def train_and_save(folder, periods, n_steps, n_moves=0, listeners=(), keep=0):
  """Makes n more steps, then moves masks n times."""
  with tf.Graph().as_default():
    step = tf.train.get_or_create_global_step()
    moved = tf.get_variable('moved', [], initializer=tf.zeros_initializer())
    make_step, move = step.assign_add(1).op, moved.assign_add(1.0).op
    hook = saving.SaverHook(str(folder), *periods, keep=keep, listeners=listeners)
    with tf.train.MonitoredTrainingSession(
      checkpoint_dir=str(folder),
      save_checkpoint_steps=None,
      save_checkpoint_secs=None,
      save_summaries_steps=0,
      log_step_count_steps=0,
      hooks=[hook],
    ) as session:
      for train_op in [make_step] * n_steps + [move] * n_moves:
        session.run(train_op)


def saved_steps(folder, periods, n_steps, **options):
  """The steps of the checkpoints that n more steps of training leave."""
  train_and_save(folder, periods, n_steps, **options)
  return sorted(int(path.suffixes[0].split('-')[1]) for path in folder.glob('model.ckpt-*.index'))


def test_checkpoints_come_at_multiples_of_each_period(tmp_path):
  assert saved_steps(tmp_path, (4, 5), 11) == [0, 4, 5, 8, 10, 11]


def test_a_training_that_goes_on_keeps_to_the_multiples(tmp_path):
  saved_steps(tmp_path, (4,), 6)
  assert saved_steps(tmp_path, (4,), 7) == [0, 4, 6, 8, 12, 13]


def test_so_many_are_kept_those_of_an_earlier_process_included(tmp_path):
  assert saved_steps(tmp_path, (2,), 6, keep=3) == [2, 4, 6]
  assert saved_steps(tmp_path, (2,), 4, keep=3) == [6, 8, 10]


def test_each_checkpoint_is_written_once(tmp_path, monkeypatch):
  """Neither again at its end, whatever moved since, nor at a start from it."""
  written = []
  save = tf.train.Saver.save

  def save_and_count(saver, session, path, global_step, **options):
    written.append(int(global_step))
    return save(saver, session, path, global_step=global_step, **options)

  monkeypatch.setattr(tf.train.Saver, 'save', save_and_count)
  train_and_save(tmp_path, (2,), 4, n_moves=1)
  train_and_save(tmp_path, (2,), 3)
  assert written == [0, 2, 4, 6, 7]


def test_the_graph_is_written_once_beside_the_checkpoints(tmp_path):
  train_and_save(tmp_path, (2,), 3)
  (path,) = tmp_path.glob('events.*')
  kinds = [event.WhichOneof('what') for event in tf.train.summary_iterator(str(path))]
  assert kinds.count('graph_def') == kinds.count('meta_graph_def') == 1
  assert not list(tmp_path.glob('*.pbtxt'))


def test_a_kill_at_the_start_spares_what_training_goes_on_from(tmp_path, monkeypatch):
  train_and_save(tmp_path, (2,), 4)
  monkeypatch.setattr(tf.train.Saver, 'save', kill_while_writing)
  with pytest.raises(Killed):
    train_and_save(tmp_path, (2,), 3)
  assert checkpoints.latest_step(str(tmp_path)) == 4


class Listener(tf.train.CheckpointSaverListener):
  """Records its calls."""

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
    assert listener.told == [('before', 2), ('after', 2), ('before', 4), ('after', 4)]

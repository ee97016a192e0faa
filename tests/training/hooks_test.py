"""Hooks: a checkpoint that does not fit, signals that end training."""

from __future__ import annotations

import os
import pathlib
import signal
import threading

import pytest

from rigl.compat import tf
from rigl.training import checkpoints, hooks
from rigl.training.config import SparsityConfig
from tests.training import one_masked_layer

SIGNALS = [signal.SIGINT, signal.SIGTERM]


pytestmark = pytest.mark.usefixtures('graph')


# --- ResumableHook -----------------------------------------------------------


def train(folder, method='rigl', n_units=4, n_steps=1):
  """Trains with the hook; returns the values in the end."""
  with tf.Graph().as_default():
    _, train_op, _ = one_masked_layer.build(
        SparsityConfig(training_method=method, maskupdate_frequency=1000),
        n_units=n_units)
    with tf.train.MonitoredTrainingSession(
        checkpoint_dir=str(folder), hooks=[
            hooks.ResumableHook(str(folder), may_write=True)]) as session:
      for _ in range(n_steps):
        session.run(train_op)
      return one_masked_layer.variables(session._tf_sess())


def test_fresh_and_fitting_folders_are_trained_in(tmp_path):
  train(tmp_path, n_steps=3)
  assert train(tmp_path, n_steps=3)['global_step'] == 5


@pytest.mark.parametrize('change, words', [
    ({'n_units': 5},
     ['layer/weights is [6, 4] there and [6, 5] here', 'layer/mask']),
    ({'method': 'snip'}, ['is_snipped is missing there']),
    ({'method': 'momentum'}, ['layer/dense_gradient_ema is missing there']),
    ({'method': 'baseline'}, ['layer/kernel is missing there']),
])
def test_another_training_is_refused_before_it_starts(
    change, words, tmp_path):
  train(tmp_path)
  before = sorted(os.listdir(tmp_path))
  with pytest.raises(ValueError) as error:
    train(tmp_path, **change)
  for word in [*words, str(tmp_path)]:
    assert word in str(error.value)
  assert sorted(os.listdir(tmp_path)) == before


# --- StopOnSignalHook --------------------------------------------------------


@pytest.fixture
def received():
  """Signals that reach the handlers of before training."""
  received = []
  former = {number: signal.signal(
      number, lambda number, frame: received.append(number))
            for number in SIGNALS}
  yield received
  for number, handler in former.items():
    signal.signal(number, handler)


def count(hook, send, n_runs=10):
  """Runs a counter with the hook until it stops; returns the count.

  Args:
    hook: a StopOnSignalHook.
    send: called with the number of the run, before the run.
    n_runs: runs without a signal.
  """
  step = tf.train.get_or_create_global_step()
  increment = tf.assign_add(step, 1)
  value = 0
  with tf.train.SingularMonitoredSession(hooks=[hook]) as session:
    while not session.should_stop() and value < n_runs:
      send(value)
      value = session.run(increment)
  return value


@pytest.mark.parametrize('number', SIGNALS)
def test_signal_ends_training_after_the_step(number, received):
  hook = hooks.StopOnSignalHook()
  assert hook.stopped_by is None
  assert count(hook, lambda step: step == 4 and os.kill(
      os.getpid(), number)) == 5
  assert hook.stopped_by is number
  assert not received


def test_without_signal_training_goes_on_to_its_end(received):
  hook = hooks.StopOnSignalHook()
  assert count(hook, lambda step: None) == 10
  assert hook.stopped_by is None


@pytest.mark.parametrize('number', SIGNALS)
def test_second_signal_acts_as_it_always_did(number, received):

  def send(step):
    if step == 2:
      os.kill(os.getpid(), number)
      os.kill(os.getpid(), number)

  assert count(hooks.StopOnSignalHook(), send) == 3
  assert received == [number]


def send_all():
  for number in SIGNALS:
    os.kill(os.getpid(), number)


def test_signals_after_training_act_as_before(received):
  count(hooks.StopOnSignalHook(), lambda step: None)
  send_all()
  assert received == SIGNALS


def test_signals_after_a_stop_act_as_before(received):
  count(hooks.StopOnSignalHook(), lambda step: step == 1 and os.kill(
      os.getpid(), signal.SIGTERM))
  send_all()
  assert received == SIGNALS


def test_training_in_another_thread_leaves_signals_alone(received):
  results = []

  def run():
    with tf.Graph().as_default():
      results.append(count(hooks.StopOnSignalHook(), lambda step: None))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert results == [10]


# --- ProgressHook ------------------------------------------------------------


@pytest.mark.parametrize('seconds, text', [
    (0, '0s'), (59.9, '59s'), (60, '1m00s'), (200, '3m20s'),
    (3599, '59m59s'), (3600, '1h00m'), (7530, '2h05m'), (400000, '111h06m')])
def test_seconds_for_people(seconds, text):
  assert hooks.format_seconds(seconds) == text


def progress(capsys, max_steps, every_n_steps, n_runs, moves_masks=(),
             first_step=0):
  """What ProgressHook prints of so many runs, as lists of its columns.

  Args:
    moves_masks: runs, counted from 0, that make no step.
  """
  step = tf.train.get_or_create_global_step()
  increase = tf.placeholder(tf.int64, [])
  increment = tf.assign_add(step, increase)
  hook = hooks.ProgressHook(
      {'loss': tf.constant(0.5), 'accuracy': tf.constant(1.)}, max_steps,
      every_n_steps)
  scaffold = tf.train.Scaffold(init_op=step.assign(first_step).op)
  with tf.train.SingularMonitoredSession(
      hooks=[hook], scaffold=scaffold) as session:
    for i in range(n_runs):
      session.run(increment, {increase: int(i not in moves_masks)})
  return [line.split('  ') for line in capsys.readouterr().out.splitlines()]


def test_progress_at_the_first_step_at_multiples_and_at_the_end(capsys):
  first, *lines = progress(capsys, 8, 3, 8)
  assert first == ['step 1/8', 'loss 0.5000', 'accuracy 1.0000']
  assert [line[:3] for line in lines] == [
      [f'step {step}/8', 'loss 0.5000', 'accuracy 1.0000']
      for step in (3, 6, 8)]
  for line in lines:
    assert line[3].endswith(' steps/s') and line[4].endswith('s left')


@pytest.mark.parametrize('moves_masks', [(0,), (0, 4, 7, 10)])
def test_runs_that_move_masks_are_no_steps_of_the_progress(
    moves_masks, capsys):
  lines = progress(capsys, 8, 3, 8 + len(moves_masks), moves_masks)
  assert [line[0] for line in lines] == [
      'step 1/8', 'step 3/8', 'step 6/8', 'step 8/8']


def test_progress_of_a_training_that_goes_on(capsys):
  lines = progress(capsys, 12, 3, 3, first_step=7)
  assert [line[0] for line in lines] == ['step 8/12', 'step 9/12']


def test_progress_comes_once_a_minute_where_steps_are_slow(
    capsys, monkeypatch):
  now = iter(range(0, 10**6, 10))
  monkeypatch.setattr(hooks.time, 'monotonic', lambda: next(now))
  lines = progress(capsys, 100, 50, 20)
  assert [int(line[0][5:-4]) for line in lines[:3]] == [1, 7, 13]


# --- Checkpoints -------------------------------------------------------------


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
    saver_hook = hooks.SaverHook(str(folder), *periods)
    saver_hook._listeners.extend(listeners)  # As the Estimator does.
    with tf.train.MonitoredTrainingSession(
        checkpoint_dir=str(folder), save_checkpoint_steps=None,
        save_checkpoint_secs=None, save_summaries_steps=0,
        log_step_count_steps=0, hooks=[saver_hook]) as session:
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


@pytest.mark.parametrize('n_steps', [0, 2])
def test_a_kill_while_a_checkpoint_is_written_again(
    n_steps, tmp_path, monkeypatch):
  """The former one is used, and goes as all checkpoints go."""
  train_and_save(tmp_path, (2,), n_steps, n_moves=1)
  with monkeypatch.context() as patch:
    patch.setattr(tf.train.Saver, 'save', kill_while_writing)
    with pytest.raises(Killed):
      train_and_save(tmp_path, (2,), 0, n_moves=1)
  former = f'{tmp_path}/model.ckpt-{n_steps}-former'
  assert checkpoints.latest(str(tmp_path)) == former
  assert saved_moves(tmp_path) == 1.
  train_and_save(tmp_path, (2,), 2, n_moves=1)
  state = tf.train.get_checkpoint_state(str(tmp_path))
  assert former in state.all_model_checkpoint_paths
  assert saved_moves(tmp_path) == 2.


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

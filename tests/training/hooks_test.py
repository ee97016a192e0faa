"""Hooks: a checkpoint that does not fit, signals that end training."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rigl.compat import tf
from rigl.training import history, hooks, iterations, mask_watch
from rigl.training.config import SparsityConfig
from tests.training import one_masked_layer

SIGNALS = [signal.SIGINT, signal.SIGTERM]


pytestmark = pytest.mark.usefixtures('graph')


# --- ResumableHook -----------------------------------------------------------


def train(folder, method='rigl', n_units=4, n_steps=1):
  """Trains with the hook; returns the values in the end."""
  with tf.Graph().as_default():
    _, train_op, _ = one_masked_layer.build(
      SparsityConfig(training_method=method, maskupdate_frequency=1000), n_units=n_units
    )
    with tf.train.MonitoredTrainingSession(
      checkpoint_dir=str(folder), hooks=[hooks.ResumableHook(str(folder), may_write=True)]
    ) as session:
      for _ in range(n_steps):
        session.run(train_op)
      return one_masked_layer.variables(session._tf_sess())


def test_fresh_and_fitting_folders_are_trained_in(tmp_path):
  train(tmp_path, n_steps=3)
  assert train(tmp_path, n_steps=3)['global_step'] == 5


@pytest.mark.parametrize('may_write', [True, False])
def test_a_state_file_that_is_gone_is_restored_by_who_may_write(may_write, tmp_path):
  train(tmp_path)
  state = tmp_path / 'checkpoint'
  state.unlink()
  with tf.Graph().as_default():
    one_masked_layer.build(SparsityConfig(training_method='rigl'), n_units=4)
    hooks.ResumableHook(str(tmp_path), may_write).begin()
  assert state.exists() == may_write


@pytest.mark.parametrize(
  'change, words',
  [
    ({'n_units': 5}, ['layer/weights is [6, 4] there and [6, 5] here', 'layer/mask']),
    ({'method': 'snip'}, ['is_snipped is missing there']),
    ({'method': 'momentum'}, ['layer/dense_gradient_ema is missing there']),
    ({'method': 'baseline'}, ['layer/kernel is missing there']),
  ],
)
def test_another_training_is_refused_before_it_starts(change, words, tmp_path):
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
  former = {
    number: signal.signal(number, lambda number, frame: received.append(number))
    for number in SIGNALS
  }
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
  assert count(hook, lambda step: step == 4 and os.kill(os.getpid(), number)) == 5
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
  count(hooks.StopOnSignalHook(), lambda step: step == 1 and os.kill(os.getpid(), signal.SIGTERM))
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


@pytest.mark.parametrize(
  'seconds, text',
  [
    (0, '0s'),
    (59.9, '59s'),
    (60, '1m00s'),
    (200, '3m20s'),
    (3599, '59m59s'),
    (3600, '1h00m'),
    (7530, '2h05m'),
    (400000, '111h06m'),
  ],
)
def test_seconds_for_people(seconds, text):
  assert hooks.format_seconds(seconds) == text


def progress(
  folder, max_steps, every_n_steps, n_runs, moves_masks=(), first_step=0, saves_at=(), masks_at=()
):
  """Trains under a ProgressHook.

  Args:
    folder: folder of the training.
    moves_masks: runs, counted from 0, that make no step.
    saves_at: steps after which there is a checkpoint.
    masks_at: {step: mask that it begins with}.
  """
  with tf.Graph().as_default():
    step = tf.train.get_or_create_global_step()
    increase = tf.placeholder(tf.int64, [])
    mask = tf.get_variable('layer/mask', [4], initializer=tf.ones_initializer())
    increment = iterations.counted(lambda: step.assign_add(increase).op, step, first_step)
    hook = hooks.ProgressHook(
      {'loss': tf.constant(0.5), 'accuracy': tf.constant(1.0)},
      max_steps,
      every_n_steps,
      str(folder),
      {'learning_rate': tf.constant(0.25), 'drop_fraction': None},
      mask_watch.MaskWatch([mask] if masks_at else []),
    )
    scaffold = tf.train.Scaffold(
      init_op=tf.group(
        step.assign(first_step), mask.assign(dict(masks_at).get(first_step, [1.0] * 4))
      )
    )
    with tf.train.SingularMonitoredSession(hooks=[hook], scaffold=scaffold) as session:
      for i in range(n_runs):
        if first_step + i in masks_at:
          mask.load(masks_at[first_step + i], session.raw_session())
        session.run(increment, {increase: int(i not in moves_masks)})
        if first_step + i + 1 in saves_at:
          hook.save_state()


def printed(capsys):
  """What it has printed, as lists of columns."""
  return [line.split('  ') for line in capsys.readouterr().out.splitlines()]


def test_progress_at_the_first_step_at_multiples_and_at_the_end(tmp_path, capsys):
  progress(tmp_path, 8, 3, 8)
  first, *lines = printed(capsys)
  assert first == ['step 1/8', 'loss 0.5000', 'accuracy 1.0000']
  assert [line[:3] for line in lines] == [
    [f'step {step}/8', 'loss 0.5000', 'accuracy 1.0000'] for step in (3, 6, 8)
  ]
  for line in lines:
    assert line[3].endswith(' steps/s') and line[4].endswith('s left')


@pytest.mark.parametrize('moves_masks', [(0,), (0, 4, 7, 10)])
def test_runs_that_move_masks_are_no_steps_of_the_progress(moves_masks, tmp_path, capsys):
  progress(tmp_path, 8, 3, 8 + len(moves_masks), moves_masks)
  assert [line[0] for line in printed(capsys)] == ['step 1/8', 'step 3/8', 'step 6/8', 'step 8/8']


def test_progress_of_a_training_that_goes_on(tmp_path, capsys):
  progress(tmp_path, 12, 3, 3, first_step=7)
  assert [line[0] for line in printed(capsys)] == ['step 8/12', 'step 9/12']


def test_progress_comes_once_a_minute_where_steps_are_slow(tmp_path, capsys, monkeypatch):
  now = iter(range(0, 10**6, 10))
  monkeypatch.setattr(hooks.time, 'monotonic', lambda: next(now))
  progress(tmp_path, 100, 50, 20)
  assert [int(line[0][5:-4]) for line in printed(capsys)[:3]] == [1, 7, 13]
  # How long steps take is no reason for a row.
  assert history.read(str(tmp_path)) == []


def rows_of(folder):
  return [
    {name: value for name, value in row.items() if name != 'seconds'}
    for row in history.read(str(folder))
  ]


# What step 1, 2, ... begins with: 2 of 4 are active but for the first.
MASKS_AT = {0: [1, 1, 1, 1], 1: [1, 1, 0, 0], 4: [1, 0, 1, 0], 5: [0, 0, 1, 1]}


def test_rows_of_progress_by_hand(tmp_path, capsys):
  progress(tmp_path, 7, 3, 7, masks_at=MASKS_AT)
  same = {
    'split': 'train',
    'loss': 0.5,
    'accuracy': 1.0,
    'learning_rate': 0.25,
    'drop_fraction': 0.0,
    'sparsity': 0.5,
  }
  # From 1100 over 1010 to 0011: both connections are new at step 6. The vector
  # has a unit for each entry. Without a counter of updates the masks are looked
  # at once.
  same.update(itop_rate=1.0, dead_units=2)
  assert rows_of(tmp_path) == [
    {'step': 3, 'moved': 0.0, **same},
    {'step': 6, 'moved': 1.0, **same},
    {'step': 7, 'moved': 0.0, **same},
  ]
  assert printed(capsys)[1][3] == 'sparsity 0.5000'


@pytest.mark.parametrize('saved_at, killed_at', [(3, 4), (4, 4), (5, 7), (5, 5), (6, 7), (7, 7)])
def test_rows_of_a_killed_training_are_those_of_a_whole_one(saved_at, killed_at, tmp_path):
  progress(tmp_path / 'whole', 7, 3, 7, masks_at=MASKS_AT)
  progress(tmp_path / 'parts', 7, 3, killed_at, masks_at=MASKS_AT, saves_at=(2, saved_at))
  last = max(step for step in MASKS_AT if step < saved_at)
  progress(
    tmp_path / 'parts',
    7,
    3,
    7 - saved_at,
    first_step=saved_at,
    masks_at={saved_at: MASKS_AT[last], **MASKS_AT},
  )
  assert rows_of(tmp_path / 'parts') == rows_of(tmp_path / 'whole')

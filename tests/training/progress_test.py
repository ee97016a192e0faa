"""What is printed and recorded while a training goes on."""

from __future__ import annotations

import pytest

from rigl.compat import tf
from rigl.training import history, iterations, mask_watch, progress
from rigl.training.progress import ProgressHook

pytestmark = pytest.mark.usefixtures('graph')


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
  assert progress.format_seconds(seconds) == text


def train(
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
    hook = ProgressHook(
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
  train(tmp_path, 8, 3, 8)
  first, *lines = printed(capsys)
  assert first == ['step 1/8', 'loss 0.5000', 'accuracy 1.0000']
  assert [line[:3] for line in lines] == [
    [f'step {step}/8', 'loss 0.5000', 'accuracy 1.0000'] for step in (3, 6, 8)
  ]
  for line in lines:
    assert line[3].endswith(' steps/s') and line[4].endswith('s left')


@pytest.mark.parametrize('moves_masks', [(0,), (0, 4, 7, 10)])
def test_runs_that_move_masks_are_no_steps_of_the_progress(moves_masks, tmp_path, capsys):
  train(tmp_path, 8, 3, 8 + len(moves_masks), moves_masks)
  assert [line[0] for line in printed(capsys)] == ['step 1/8', 'step 3/8', 'step 6/8', 'step 8/8']


def test_progress_of_a_training_that_goes_on(tmp_path, capsys):
  train(tmp_path, 12, 3, 3, first_step=7)
  assert [line[0] for line in printed(capsys)] == ['step 8/12', 'step 9/12']


def test_progress_comes_once_a_minute_where_steps_are_slow(tmp_path, capsys, monkeypatch):
  now = iter(range(0, 10**6, 10))
  monkeypatch.setattr(progress.time, 'monotonic', lambda: next(now))
  train(tmp_path, 100, 50, 20)
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
  train(tmp_path, 7, 3, 7, masks_at=MASKS_AT)
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
  train(tmp_path / 'whole', 7, 3, 7, masks_at=MASKS_AT)
  train(tmp_path / 'parts', 7, 3, killed_at, masks_at=MASKS_AT, saves_at=(2, saved_at))
  last = max(step for step in MASKS_AT if step < saved_at)
  train(
    tmp_path / 'parts',
    7,
    3,
    7 - saved_at,
    first_step=saved_at,
    masks_at={saved_at: MASKS_AT[last], **MASKS_AT},
  )
  assert rows_of(tmp_path / 'parts') == rows_of(tmp_path / 'whole')

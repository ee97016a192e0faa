"""metrics.jsonl: rows written, read, dropped and saved with checkpoints."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rigl.training import history


def make(folder, at=0, position='step'):
  rows = history.History(str(folder), position)
  return rows, rows.resume(at)


def steps(rows):
  return [(row['step'], row['split']) for row in rows]


def test_rows_are_plain_json_with_the_place_first(tmp_path):
  rows, _ = make(tmp_path / 'new')
  rows.add(
    'train',
    loss=np.float32(0.1),
    epoch=2,
    step=np.int64(7),
    sizes=np.array([3, 4]),
    nothing=None,
    share=np.float64(1 / 3),
    spoilt=float('nan'),
    wild=np.float32('inf'),
    text='a',
  )
  (line,) = (tmp_path / 'new' / 'metrics.jsonl').read_text().splitlines()
  row = json.loads(line, parse_constant=pytest.fail)
  assert list(row)[:3] == ['step', 'epoch', 'split']
  assert row.pop('seconds') >= 0.0
  assert row == {
    'step': 7,
    'epoch': 2,
    'split': 'train',
    'loss': 0.1,
    'sizes': [3, 4],
    'share': 1 / 3,
    'spoilt': None,
    'wild': None,
    'text': 'a',
  }
  assert history.read(str(tmp_path / 'new')) == rows.rows


def test_no_folder_no_rows(tmp_path):
  assert history.read(str(tmp_path / 'none')) == []
  make(tmp_path / 'none')
  assert not (tmp_path / 'none').exists()


def test_rows_after_the_checkpoint_are_dropped_and_others_untouched(tmp_path):
  rows, _ = make(tmp_path)
  for step in (10, 20, 30):
    rows.add('train', step=step)
    rows.add('test', step=step)
  before = (tmp_path / 'metrics.jsonl').read_text()
  for at, n_kept in ((30, 6), (29, 4), (20, 4), (9, 0)):
    again, _ = make(tmp_path, at)
    assert len(again.rows) == n_kept
    text = (tmp_path / 'metrics.jsonl').read_text()
    assert text == ''.join(before.splitlines(True)[:n_kept])


def test_a_row_is_not_written_twice(tmp_path):
  rows, _ = make(tmp_path)
  for split in ('train', 'test', 'test', 'train'):
    rows.add(split, step=5)
  assert steps(rows.rows) == steps(history.read(str(tmp_path))) == [(5, 'train'), (5, 'test')]
  assert rows.has('test', 5) and not rows.has('test', 4)


def test_seconds_go_on(tmp_path):
  rows, _ = make(tmp_path)
  rows.add('train', step=1)
  path = tmp_path / 'metrics.jsonl'
  path.write_text(json.dumps({**rows.rows[0], 'seconds': 1000.0}) + '\n')
  again, _ = make(tmp_path, 1)
  again.add('train', step=2)
  assert 1000.0 <= again.rows[1]['seconds'] < 1100.0


def test_state_comes_back_with_its_checkpoint(tmp_path):
  rows, state = make(tmp_path)
  assert state is None
  for at in (10, 20, 30):
    rows.save_state(at, {'sum': 0.1 * at})
  # A kill may come before the checkpoint of 30 is there.
  for at, expected in ((30, {'sum': 0.1 * 30}), (20, {'sum': 0.1 * 20}), (7, None)):
    assert make(tmp_path, at)[1] == expected
  again, _ = make(tmp_path, 20)
  again.save_state(30, 'other')
  assert make(tmp_path, 20)[1] == {'sum': 0.1 * 20}
  assert make(tmp_path, 30)[1] == 'other'


def test_damaged_state_is_named(tmp_path):
  path = tmp_path / 'metrics_state.json'
  path.write_text('{"1": ')
  with pytest.raises(ValueError, match='metrics_state.json is damaged'):
    make(tmp_path, 1)


def test_rows_of_another_position(tmp_path):
  rows, _ = make(tmp_path, position='iteration')
  rows.add('train', step=5, iteration=6)
  assert len(make(tmp_path, 6, 'iteration')[0].rows) == 1
  assert not make(tmp_path, 5, 'iteration')[0].rows


def test_evaluations_of_a_checkpoint(tmp_path):
  rows, _ = make(tmp_path)
  rows.add('train', step=4, loss=1.0)
  for step in (4, 8, 4):
    history.record_evaluation(str(tmp_path), 'test', {'accuracy': 0.5, 'global_step': step})
  found = history.read(str(tmp_path))
  assert steps(found) == [(4, 'train'), (4, 'test'), (8, 'test')]
  assert [row['accuracy'] for row in history.evaluations(found)] == [0.5, 0.5]
  assert not any(map(math.isnan, (row['seconds'] for row in found)))

"""Statistics of changing masks, by hand and after an interruption."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import pruning
from rigl.training import iterations, mask_watch
from rigl.training.config import SparsityConfig
from tests.training import one_masked_layer

pytestmark = pytest.mark.usefixtures('graph')

A, B, C, DENSE = [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]


class Training:
  """One mask, which a test moves in the place of a method."""

  def __init__(self, first):
    with tf.Graph().as_default():
      self.mask = tf.get_variable('layer/mask', initializer=np.float32(first)[:, None])
      self.session = tf.Session()
      self.session.run(tf.global_variables_initializer())
    self.n_updates = 0
    self.watch = None

  def start(self, is_first, state=None):
    self.watch = mask_watch.MaskWatch([self.mask])
    self.watch.start(self.session, is_first, state)

  def run(self, mask, is_step):
    """An iteration that ends with a mask, the one of before if None."""
    if mask:
      self.n_updates += 1
      self.mask.load(np.float32(mask)[:, None], self.session)
    self.watch.after_run(self.session, [self.n_updates], is_step)

  def row(self):
    return self.watch.row(self.session.run(self.watch.masks))


# (first mask, [(mask that an iteration ends with, whether it made a step)],
# share of the four connections that ever had a chance to train)
RUNS = [
  (A, [(None, True)] * 3, 1 / 2),
  # As SET moves masks: behind a step.
  (A, [(B, True)], 3 / 4),
  (A, [(B, True), (C, True)], 1.0),
  (A, [(None, True), (B, True), (None, True), (A, True)], 3 / 4),
  # As RigL does: in the place of a step, also before the first one.
  (A, [(B, False)], 1 / 2),
  (A, [(B, False), (None, True), (C, False)], 1.0),
  (A, [(None, True), (B, False), (None, True)], 3 / 4),
  # As SNIP: nothing of the dense network trains; as DNW: all of it does.
  (DENSE, [(C, False), (None, True)], 1 / 2),
  (DENSE, [(C, True), (A, True)], 1.0),
]


@pytest.mark.parametrize('first, runs, rate', RUNS)
def test_share_that_was_ever_active(first, runs, rate):
  training = Training(first)
  training.start(is_first=True)
  for run in runs:
    training.run(*run)
  assert training.row()['itop_rate'] == rate


@pytest.mark.parametrize('first, runs, rate', RUNS)
def test_an_interruption_changes_nothing(first, runs, rate):
  for n in range(len(runs) + 1):
    whole, parts = Training(first), Training(first)
    whole.start(is_first=True)
    parts.start(is_first=True)
    for i, run in enumerate(runs):
      if i == n:
        state = json.loads(json.dumps(parts.watch.state()))
        parts.start(is_first=n == 0, state=state)
      whole.run(*run)
      parts.run(*run)
    assert parts.row() == whole.row()


def test_a_checkpoint_without_state_counts_from_there():
  training = Training(A)
  training.start(is_first=False)
  assert training.row()['itop_rate'] == 1 / 2
  training.run(B, False)
  assert training.row() == {'sparsity': 1 / 2, 'moved': 1 / 2, 'itop_rate': 3 / 4, 'dead_units': 0}


def test_without_masks():
  watch = mask_watch.MaskWatch([])
  tf.train.get_or_create_global_step()  # Sessions of empty graphs do not run.
  with tf.Session() as session:
    watch.begin()
    watch.start(session, True, None)
    watch.after_run(session, [], True)
    assert (watch.pictures, session.run(watch.masks)) == ({}, {})
  assert watch.row({}) == {'sparsity': 0.0, 'moved': 0.0, 'itop_rate': 1.0, 'dead_units': 0}


@pytest.mark.parametrize(
  'all_pictures, shown', [(False, ['mask/a']), (True, ['mask/a', 'mask/b/c'])]
)
def test_pictures(all_pictures, shown):
  masks = [tf.get_variable(f'{layer}/mask', [3, 2]) for layer in ('a', 'b/c')]
  watch = mask_watch.MaskWatch(masks, all_pictures)
  watch.begin()
  assert list(watch.pictures) == shown
  # Else they would be made at each summary of the graph, too.
  assert not tf.get_collection(tf.GraphKeys.SUMMARIES)


@pytest.mark.parametrize(
  'method, n_looks',
  [
    # RigL moves the masks at iterations 0, 4 and 8, those of SET at 0, 3, ...
    ('rigl', 3),
    ('set', 4),
    ('momentum', 4),
    ('static', 4),
    # Only at the first iteration of a session.
    ('snip', 1),
    ('dnw', 1),
    ('prune', 1),
    ('scratch', 1),
  ],
)
def test_masks_are_fetched_when_they_may_have_changed(method, n_looks, monkeypatch):
  _, train_op, _ = one_masked_layer.build(
    SparsityConfig(training_method=method, maskupdate_frequency=3, maskupdate_end_step=100),
    first_iteration=0,
  )
  watch = mask_watch.MaskWatch(pruning.get_masks())
  watch.begin()
  with tf.Session() as session:
    session.run([tf.global_variables_initializer(), tf.tables_initializer()])
    watch.start(session, is_first=False, state=None)
    looks = []
    monkeypatch.setattr(watch._explored, 'add', looks.append)
    for _ in range(11):
      _, advanced, updates = session.run([train_op, iterations.advanced(), watch.updates])
      watch.after_run(session, updates, all(advanced))
      # Masks of DNW and of gradual pruning become no larger than at first.
      if method not in ('dnw', 'prune'):
        np.testing.assert_array_equal(looks[-1]['layer'], session.run(watch.masks)['layer'])
  assert len(looks) == n_looks


def test_tags():
  masks = {'a': np.array([[1, 0], [1, 0]]), 'b/c': np.array([[1, 1]])}
  row = mask_watch.MaskWatch([]).row(masks)
  assert mask_watch.tags(row, masks) == {
    'global_sparsity': pytest.approx(1 / 3),
    'moved': 0.0,
    'itop_rate': 1.0,
    'dead_units': 1,
    'density/a': 1 / 2,
    'density/b/c': 1.0,
  }

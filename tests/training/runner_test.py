"""Both loops: checkpoints, hooks, resuming, stopping, evaluation."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.training import history, hooks, resuming, runner, signals, specs, tpu_estimator
from rigl.training.config import SparsityConfig
from tests import checkpoint_values
from tests.training import one_masked_layer, small_checkpoints

CONFIG = SparsityConfig(
  training_method='rigl', end_sparsity=0.5, maskupdate_frequency=3, maskupdate_end_step=6
)


class Journal(tf.train.SessionRunHook):
  """Notes the step of each run, and which of them each checkpoint follows."""

  def __init__(self, send_at, fail_at):
    self.steps = []
    self.steps_noted_at_checkpoint = {}
    self._send_at = send_at
    self._fail_at = fail_at

  def before_run(self, run_context):
    if len(self.steps) == self._fail_at:
      raise KeyError('in a hook')
    if len(self.steps) == self._send_at:
      os.kill(os.getpid(), signal.SIGTERM)

  def after_run(self, run_context, run_values):
    self.steps.append(int(run_context.session.run(tf.train.get_global_step())))


class Listener(tf.train.CheckpointSaverListener):
  def __init__(self, journal):
    self._journal = journal

  def after_save(self, session, global_step_value):
    self._journal.steps_noted_at_checkpoint[int(global_step_value)] = len(self._journal.steps)


_chosen = {'loop': None}


@pytest.fixture(
  scope='module',
  autouse=True,
  params=[
    'session',
    pytest.param(
      'tpu_estimator',
      marks=pytest.mark.skipif(
        not tpu_estimator.is_available(), reason='TensorFlow 2.16 removed Estimator'
      ),
    ),
  ],
)
def _loop(request):
  """Each test runs on each loop."""
  _chosen['loop'] = request.param
  yield
  _chosen['loop'] = None


def make_loop(folder, config, journal, save_steps=3, keep=0):

  def metric_fn(features):
    return {'mean': tf.metrics.mean(features)}

  def model_fn(features, labels, mode):
    first_iteration = None if mode == 'eval' else resuming.iterations_done(str(folder), config)
    loss, train_op, _ = one_masked_layer.build(
      config, features=features, first_iteration=first_iteration
    )
    if mode == 'eval':
      return specs.EvalSpec(loss, metric_fn, [features])
    return specs.TrainSpec(loss, train_op, hooks=[journal])

  return runner.make_loop(
    specs.Job(model_fn, str(folder), seed=1, save_steps=save_steps, keep_checkpoint_max=keep),
    _chosen['loop'],
  )


def input_of(n_iterations, first=0.0):
  """An input_fn of so many batches: first, first + 1, ..."""

  def input_fn():
    dataset = tf.data.Dataset.range(n_iterations)
    return dataset.map(lambda i: (tf.fill([2, 1], first + tf.cast(i, tf.float32)), tf.zeros([2])))

  return input_fn


def train(
  folder, n_iterations, config=CONFIG, save_steps=3, send_at=None, fail_at=None, keep=0, **arguments
):
  """Trains; returns (the signal that stopped it or None, journal)."""
  journal = Journal(send_at, fail_at)
  loop = make_loop(folder, config, journal, save_steps, keep)
  stopped_by = runner.train(
    loop,
    input_of(n_iterations),
    **arguments,
    saving_listeners=[Listener(journal)] if save_steps else (),
  )
  return stopped_by, journal


def assert_same_values(folder, expected_folder):
  found, expected = map(checkpoint_values.of, (folder, expected_folder))
  assert set(found) == set(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def saved_steps(folder):
  return sorted(int(path.stem.split('-')[1]) for path in folder.glob('model.ckpt-*.index'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A training of 10 iterations: masks move at the steps 0, 3 and 6."""
  folder = tmp_path_factory.mktemp('whole')
  stopped_by, journal = train(folder, 10)
  return folder, stopped_by, journal


def test_trains_until_the_data_end(whole):
  folder, stopped_by, journal = whole
  assert stopped_by is None
  assert journal.steps == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7]
  assert checkpoint_values.of(folder)['global_step'] == 7
  assert resuming.iterations_done(str(folder), CONFIG) == 10


def test_checkpoints_come_by_steps_and_in_the_end(whole):
  assert saved_steps(whole[0]) == [0, 3, 6, 7]


def test_an_iteration_is_one_run_of_the_session(tmp_path, session_runs):
  counts = []
  for n_iterations in (10, 25):
    before = len(session_runs)
    _, journal = train(tmp_path / f'{n_iterations}', n_iterations, save_steps=100)
    # The journal makes a run of its own after each.
    counts.append(len(session_runs) - before - len(journal.steps))
  assert counts[1] - counts[0] == 15


def test_hooks_have_seen_a_step_before_it_is_saved(whole):
  """Else what they write would lack the step that the checkpoint holds."""
  noted = whole[2].steps_noted_at_checkpoint
  assert noted == {0: 0, 3: 4, 6: 8, 7: 10}


def test_resumed_training_ends_as_an_uninterrupted_one(whole, tmp_path):
  for n_iterations in (4, 6):
    stopped_by, _ = train(tmp_path, n_iterations)
    assert stopped_by is None
  assert_same_values(tmp_path, whole[0])
  # Both began with the weights of the seed.
  first = [
    tf.train.load_variable(str(folder / 'model.ckpt-0'), 'layer/weights')
    for folder in (whole[0], tmp_path)
  ]
  np.testing.assert_array_equal(*first)
  assert first[0].any()


def test_no_checkpoint_is_written_again(whole, tmp_path):
  """The last of 9 iterations moves masks, after the checkpoint of the step."""
  _, journal = train(tmp_path, 9)
  assert journal.steps[-2:] == [6, 6]
  assert saved_steps(tmp_path) == [0, 3, 6]
  assert checkpoint_values.of(tmp_path)['last_mask_update_step'] == 3
  # Masks are moved again when training goes on.
  assert resuming.iterations_done(str(tmp_path), CONFIG) == 8
  _, journal = train(tmp_path, 2)
  assert journal.steps == [6, 7]
  assert_same_values(tmp_path, whole[0])


def test_stops_at_max_steps_and_keeps_so_many_checkpoints(tmp_path):
  stopped_by, journal = train(tmp_path, 100, max_steps=3, save_steps=1, keep=2)
  assert stopped_by is None
  assert journal.steps == [0, 1, 2, 3]
  assert saved_steps(tmp_path) == [2, 3]


def test_signal_stops_with_a_checkpoint_of_the_step(tmp_path):
  former = signal.signal(signal.SIGTERM, lambda number, frame: None)
  try:
    stopped_by, journal = train(tmp_path, 100, send_at=5)
  finally:
    signal.signal(signal.SIGTERM, former)
  assert stopped_by is signal.SIGTERM
  assert journal.steps == [0, 1, 2, 3, 3, 4]
  assert saved_steps(tmp_path) == [0, 3, 4]
  assert resuming.iterations_done(str(tmp_path), CONFIG) == 6


def test_a_checkpoint_says_how_many_iterations_there_were(whole):
  for step, n in ((0, 0), (3, 4), (6, 8), (7, 10)):
    values = checkpoint_values.of(whole[0] / f'model.ckpt-{step}')
    assert values['iteration'] == n
    assert values['iteration'].dtype == np.int64


def test_a_training_goes_on_from_a_checkpoint_without_iterations(whole, tmp_path):
  """As earlier versions wrote them: the number follows from the step."""
  values = checkpoint_values.of(whole[0] / 'model.ckpt-6')
  del values['iteration']
  small_checkpoints.save(tmp_path, values, step=6)
  assert resuming.iterations_done(str(tmp_path), CONFIG) == 8
  train(tmp_path, 2)
  assert_same_values(tmp_path, whole[0])


@pytest.mark.parametrize('n, iteration, step', [(8, 8, 6), (9, 10, 7), (10, 10, 7)])
def test_training_ends_with_a_step(n, iteration, step, tmp_path):
  """Iteration 9 moves masks."""
  train(tmp_path, 100, hooks=[hooks.LastIterationHook(0, n)])
  values = checkpoint_values.of(tmp_path)
  assert (values['iteration'], values['global_step']) == (iteration, step)


@pytest.mark.parametrize('send_at, step, iteration', [(3, 3, 4), (4, 4, 6), (5, 4, 6), (6, 5, 7)])
def test_a_signal_lets_a_mask_update_be_followed_by_a_step(send_at, step, iteration, tmp_path):
  """It comes before the run with that index; index 4 moves masks."""
  former = signal.signal(signal.SIGTERM, lambda number, frame: None)
  try:
    train(tmp_path, 100, send_at=send_at)
  finally:
    signal.signal(signal.SIGTERM, former)
  values = checkpoint_values.of(tmp_path)
  assert (values['global_step'], values['iteration']) == (step, iteration)


def train_in_turns(folder, total, send_at=None, **arguments):
  journal = Journal(send_at, None)
  runner.train_in_turns(make_loop(folder, CONFIG, journal), input_of(100), total, 4, **arguments)


def test_a_stopped_training_says_what_is_kept_of_it(tmp_path):
  former = signal.signal(signal.SIGTERM, lambda number, frame: None)
  try:
    with pytest.raises(signals.StoppedError) as stopped:
      train_in_turns(tmp_path, 9, send_at=5)
  finally:
    signal.signal(signal.SIGTERM, former)
  assert stopped.value.number == signal.SIGTERM
  assert str(stopped.value) == (
    f'Stopped at step 4 of 9, saved in {tmp_path}. The same command goes on.'
  )


def test_training_in_turns_says_where_it_begins_and_ends(tmp_path, capsys):
  train_in_turns(tmp_path, 3)
  assert capsys.readouterr().out == (f'Trained to step 3: {tmp_path}/model.ckpt-3.\n')
  # Every 4 steps and at the end: in two turns, the second goes on as well.
  train_in_turns(tmp_path, 6, evaluate=lambda prefix: print(prefix[-6:]))
  assert capsys.readouterr().out.splitlines() == [
    f'Going on from {tmp_path}/model.ckpt-3.',
    'ckpt-4',
    'ckpt-6',
    f'Trained to step 6: {tmp_path}/model.ckpt-6.',
  ]
  train_in_turns(tmp_path, 6)
  assert capsys.readouterr().out == f'{tmp_path} already holds 6 steps.\n'


def test_an_evaluation_that_is_missing_comes_first(tmp_path, capsys):
  """As after a kill between a checkpoint and its evaluation."""

  def evaluate(prefix):
    step = int(prefix.rpartition('-')[2])
    print('evaluated', step)
    history.record_evaluation(str(tmp_path), 'test', {'global_step': step, 'accuracy': 0.5})

  def evaluated():
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith('evaluated')]

  train_in_turns(tmp_path, 4)
  for total, steps in ((6, [4, 6]), (6, [6]), (8, [8]), (10, [10])):
    train_in_turns(tmp_path, total, evaluate=evaluate)
    assert evaluated() == [f'evaluated {step}' for step in steps]
  assert [row['step'] for row in history.read(str(tmp_path))] == [4, 6, 8, 10]


@pytest.mark.parametrize('job', ['', 'master', 'chief', 'worker'])
def test_a_process_that_a_scheduler_starts_alone_trains_alone(job, tmp_path, monkeypatch, capsys):
  config = '{"cluster": {"%s": ["localhost:2222"], "ps": []}, "task": {"type": "%s", "index": 0}}'
  monkeypatch.setenv('TF_CONFIG', config % (job, job) if job else '')
  train_in_turns(tmp_path, 2, evaluate=lambda prefix: print(prefix[-6:]))
  assert capsys.readouterr().out.splitlines() == [
    'ckpt-2',
    f'Trained to step 2: {tmp_path}/model.ckpt-2.',
  ]


def test_signals_act_as_before_when_training_failed(tmp_path):
  received = []
  former = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
  try:
    with pytest.raises(KeyError, match='in a hook'):
      train(tmp_path, 100, fail_at=2, save_steps=None)
    os.kill(os.getpid(), signal.SIGTERM)
  finally:
    signal.signal(signal.SIGTERM, former)
  assert received == [signal.SIGTERM]


def test_no_checkpoints(tmp_path):
  stopped_by, _ = train(tmp_path, 3, save_steps=None)
  assert stopped_by is None
  assert not list(tmp_path.glob('model.ckpt*'))
  assert not (tmp_path / 'checkpoint').exists()


def test_checkpoint_of_another_method_is_refused(whole):
  folder, _, _ = whole
  before = saved_steps(folder)
  with pytest.raises(ValueError, match='is_snipped is missing there'):
    train(folder, 10, SparsityConfig(training_method='snip'))
  assert saved_steps(folder) == before


# --- Evaluation --------------------------------------------------------------


def test_evaluates_the_checkpoint_asked_for_on_all_examples(whole):
  loop = make_loop(whole[0], CONFIG, None)
  for step in (3, 7):
    metrics = runner.evaluate(loop, input_of(4, first=10.0), str(whole[0] / f'model.ckpt-{step}'))
    assert metrics['global_step'] == step
    assert metrics['mean'] == pytest.approx(11.5)


def test_checkpoint_to_evaluate_that_is_not_there_is_named(whole):
  loop = make_loop(whole[0], CONFIG, None)
  prefix = str(whole[0] / 'model.ckpt-1')
  with pytest.raises(ValueError) as error:
    runner.evaluate(loop, input_of(1), prefix)
  assert prefix in str(error.value)


@pytest.mark.parametrize('max_steps', [7, 100])
def test_evaluates_until_the_last_step_or_until_no_checkpoint_comes(whole, max_steps):
  loop = make_loop(whole[0], CONFIG, None)
  steps = [
    metrics['global_step']
    for metrics in runner.evaluate_until(loop, input_of(1), max_steps, timeout_seconds=0.1)
  ]
  assert steps == [7]


def test_a_checkpoint_that_is_deleted_meanwhile_is_left_out(whole, monkeypatch):
  def latest_ones(folder):
    yield str(folder / 'model.ckpt-1')
    yield str(folder / 'model.ckpt-7')

  monkeypatch.setattr(
    tf.train, 'checkpoints_iterator', lambda folder, timeout: latest_ones(whole[0])
  )
  loop = make_loop(whole[0], CONFIG, None)
  steps = [metrics['global_step'] for metrics in runner.evaluate_until(loop, input_of(1), 7)]
  assert steps == [7]


@pytest.fixture
def messages(monkeypatch):
  """What runner logs."""
  found = []
  for level in ('info', 'warning'):
    monkeypatch.setattr(runner.logging, level, lambda text, *values: found.append(text % values))
  return found


def evaluated_steps(folder, max_steps):
  loop = make_loop(folder, CONFIG, None)
  return [
    metrics['global_step']
    for metrics in runner.evaluate_until(loop, input_of(1), max_steps, timeout_seconds=0.1)
  ]


def test_evaluation_that_waits_says_so_and_makes_no_folder(tmp_path, messages):
  folder = tmp_path / 'no' / 'such'
  assert evaluated_steps(folder, 7) == []
  assert messages == [
    f'Waiting for a checkpoint in {folder} ...',
    f'No new checkpoint in {folder} for 0 s: evaluation ends without one.',
  ]
  assert not list(tmp_path.iterdir())


def test_damaged_checkpoint_is_not_taken_for_a_deleted_one(whole, tmp_path):
  folder = shutil.copytree(whole[0], tmp_path / 'run')
  for path in folder.glob('model.ckpt-7.data*'):
    path.write_bytes(path.read_bytes()[:5])
  with pytest.raises(ValueError, match='Cannot evaluate the.*model.ckpt-7: '):
    evaluated_steps(folder, 7)


def test_evaluation_that_ends_too_early_says_so(whole, messages):
  assert evaluated_steps(whole[0], 100) == [7]
  assert messages == [f'No new checkpoint in {whole[0]} for 0 s: evaluation ends at step 7.']
  assert evaluated_steps(whole[0], 7) == [7]
  assert len(messages) == 1


@pytest.mark.parametrize('max_steps', [7, 100])
def test_lost_state_file_does_not_hide_the_checkpoint(max_steps, whole, tmp_path):
  folder = shutil.copytree(whole[0], tmp_path / 'run')
  (folder / 'checkpoint').unlink()
  assert evaluated_steps(folder, max_steps) == [7]


def test_damaged_state_file_is_named_and_not_waited_for(whole, tmp_path):
  folder = shutil.copytree(whole[0], tmp_path / 'run')
  (folder / 'checkpoint').write_text('rubbish')
  with pytest.raises(ValueError, match=f'Delete {folder}/checkpoint'):
    evaluated_steps(folder, 7)


def test_evaluation_is_written_for_tensorboard(whole):
  loop = make_loop(whole[0], CONFIG, None)
  folder = whole[0] / 'eval'
  shutil.rmtree(folder, ignore_errors=True)
  tf.summary.FileWriterCache.clear()
  found = runner.evaluate(loop, input_of(4), str(whole[0] / 'model.ckpt-7'))
  (path,) = folder.iterdir()
  events = [
    tf.Event.FromString(record)
    for record in tf2.data.TFRecordDataset(str(path)).as_numpy_iterator()
  ]
  written = {(event.step, value.tag): value for event in events for value in event.summary.value}
  assert set(written) == {(7, 'loss'), (7, 'mean'), (7, 'checkpoint_path')}
  assert written[7, 'mean'].simple_value == found['mean'] == 1.5
  assert written[7, 'loss'].simple_value == found['loss'] > 0.0
  assert (
    tf.make_ndarray(written[7, 'checkpoint_path'].tensor) == str(whole[0] / 'model.ckpt-7').encode()
  )


def test_only_so_many_batches_are_evaluated(whole):
  metrics = runner.evaluate(
    make_loop(whole[0], CONFIG, None),
    input_of(100, first=1.0),
    str(whole[0] / 'model.ckpt-7'),
    steps=2,
  )
  assert metrics['mean'] == 1.5


@pytest.mark.parametrize(
  'value, words',
  [
    (None, 'layer/mask is missing there'),
    (np.zeros([2, 3], 'f'), r'layer/mask is \[2, 3\] there and \[6, 4\] here'),
  ],
)
def test_evaluation_names_what_does_not_fit(value, words, whole, tmp_path):
  values = checkpoint_values.of(whole[0])
  del values['layer/mask']
  if value is not None:
    values['layer/mask'] = value
  prefix = small_checkpoints.save(tmp_path, values, step=7)
  with pytest.raises(ValueError, match=words) as error:
    runner.evaluate(make_loop(whole[0], CONFIG, None), input_of(1), prefix)
  assert prefix in str(error.value)


# --- Which of them -----------------------------------------------------------


@pytest.mark.parametrize(
  'has_estimator, loop, n, use_tpu, chosen',
  [
    (True, None, 1, False, 'tpu_estimator'),
    (True, None, 2, False, 'session'),
    (True, None, 1, True, 'tpu_estimator'),
    (True, 'session', 1, False, 'session'),
    (True, 'session', 2, False, 'session'),
    (True, 'tpu_estimator', 1, False, 'tpu_estimator'),
    (False, None, 1, False, 'session'),
    (False, None, 2, False, 'session'),
    (False, 'session', 2, False, 'session'),
  ],
)
def test_loop_is_the_estimator_where_it_can_run(
  has_estimator, loop, n, use_tpu, chosen, monkeypatch
):
  monkeypatch.setattr(tpu_estimator, 'is_available', lambda: has_estimator)
  assert runner.choose_loop(loop, n, use_tpu) == chosen


@pytest.mark.parametrize(
  'has_estimator, loop, n, use_tpu, words',
  [
    (True, 'tpu_estimator', 2, False, ['2 replicas', 'Use loop=session']),
    (True, 'session', 1, True, ['use_tpu', 'Use loop=tpu_estimator']),
    (False, 'tpu_estimator', 1, False, ['2.15', 'Use loop=session']),
    (False, None, 1, True, ['use_tpu', 'pip install ".[estimator,tpu]"']),
  ],
)
def test_a_loop_that_cannot_run_is_refused_with_a_remedy(
  has_estimator, loop, n, use_tpu, words, monkeypatch
):
  monkeypatch.setattr(tpu_estimator, 'is_available', lambda: has_estimator)
  with pytest.raises(ValueError) as error:
    runner.choose_loop(loop, n, use_tpu)
  assert all(word in str(error.value) for word in words), error.value

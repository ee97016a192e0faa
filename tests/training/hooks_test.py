"""Hooks: a checkpoint that does not fit, signals that end training."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from rigl.compat import tf
from rigl.training import hooks, signals
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


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('trained')
  train(folder)
  return folder


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
def test_another_training_is_refused_before_it_starts(change, words, trained):
  before = sorted(os.listdir(trained))
  with pytest.raises(ValueError) as error:
    train(trained, **change)
  for word in [*words, str(trained)]:
    assert word in str(error.value)
  assert sorted(os.listdir(trained)) == before


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
  hook = signals.StopOnSignalHook()
  assert hook.stopped_by is None
  assert count(hook, lambda step: step == 4 and os.kill(os.getpid(), number)) == 5
  assert hook.stopped_by is number
  assert not received


def test_without_signal_training_goes_on_to_its_end(received):
  hook = signals.StopOnSignalHook()
  assert count(hook, lambda step: None) == 10
  assert hook.stopped_by is None


@pytest.mark.parametrize('number', SIGNALS)
def test_second_signal_acts_as_it_always_did(number, received):

  def send(step):
    if step == 2:
      os.kill(os.getpid(), number)
      os.kill(os.getpid(), number)

  assert count(signals.StopOnSignalHook(), send) == 3
  assert received == [number]


def send_all():
  for number in SIGNALS:
    os.kill(os.getpid(), number)


def test_signals_after_training_act_as_before(received):
  count(signals.StopOnSignalHook(), lambda step: None)
  send_all()
  assert received == SIGNALS


def test_signals_after_a_stop_act_as_before(received):
  count(signals.StopOnSignalHook(), lambda step: step == 1 and os.kill(os.getpid(), signal.SIGTERM))
  send_all()
  assert received == SIGNALS


def test_training_in_another_thread_leaves_signals_alone(received):
  results = []

  def run():
    with tf.Graph().as_default():
      results.append(count(signals.StopOnSignalHook(), lambda step: None))

  thread = threading.Thread(target=run)
  thread.start()
  thread.join()
  assert results == [10]

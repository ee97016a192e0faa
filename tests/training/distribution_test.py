"""Sharing of batches, TF_CONFIG, and the comparison of replicas."""

from __future__ import annotations

import contextlib
import json
import types

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.training import distribution


def tf_config(monkeypatch, cluster, task):
  monkeypatch.setenv(
      'TF_CONFIG', json.dumps({'cluster': cluster, 'task': task}))


@contextlib.contextmanager
def two_replicas():
  """A graph under a strategy of two CPUs, which it gives."""
  with tf.Graph().as_default(), tf.variable_scope(
      tf.get_variable_scope(), use_resource=True):
    strategy = distribution.make_strategy(2)
    with strategy.scope():
      yield strategy


WORKERS = {'worker': ['a:1', 'b:1', 'c:1']}


@pytest.mark.parametrize('cluster, task, n, is_chief', [
    (WORKERS, {'type': 'worker', 'index': 0}, 3, True),
    (WORKERS, {'type': 'worker', 'index': 1}, 3, False),
    ({'chief': ['d:1'], **WORKERS}, {'type': 'worker', 'index': 0}, 4, False),
    ({'chief': ['d:1'], **WORKERS}, {'type': 'chief', 'index': 0}, 4, True),
    (WORKERS, {'type': 'worker', 'index': '0'}, 3, True),
    ({'worker': ['a:1']}, {'type': 'worker', 'index': 0}, 1, True),
    ({}, {}, 1, True),
])
def test_tf_config(cluster, task, n, is_chief, monkeypatch):
  tf_config(monkeypatch, cluster, task)
  assert distribution.n_workers() == n
  assert distribution.is_chief() == is_chief


@pytest.mark.parametrize('text', [
    '{', '[]', '3', '{"cluster": ["a:1"]}', '{"cluster": {"worker": 5}}',
    '{"cluster": {"worker": "a:1"}}',
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": 3}',
    '{"cluster": {"worker": ["a:1", "b:1"]}}',
    *('{"cluster": {"worker": ["a:1", "b:1"]}, "task": %s}' % task for task in (
        '{"type": "worker"}', '{"type": "worker", "index": 2}',
        '{"type": "worker", "index": -1}', '{"type": "chief", "index": 0}',
        '{"type": "worker", "index": "x"}', '{"type": "ps", "index": 0}')),
    # Jobs that would train alone, each in the same folder.
    '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, '
    '"task": {"type": "ps", "index": 0}}',
    '{"cluster": {"master": ["a:1"], "worker": ["b:1"]}, '
    '"task": {"type": "worker", "index": 0}}',
    '{"cluster": {"chief": ["a:1"]}, '
    '"task": {"type": "evaluator", "index": 0}}'])
def test_unreadable_tf_config_is_shown_with_an_example(text, monkeypatch):
  monkeypatch.setenv('TF_CONFIG', text)
  with pytest.raises(ValueError, match='TF_CONFIG=.*"index": 0') as error:
    distribution.n_workers()
  assert text in str(error.value)


@pytest.mark.parametrize('num_replicas, batch_size, mode, words', [
    (0, 8, 'train', ['num_replicas', '>= 1', '0']),
    (3, 8, 'train', ['8', '3 replicas', 'evenly']),
])
def test_what_one_process_cannot_share(num_replicas, batch_size, mode, words):
  with pytest.raises(ValueError) as error:
    distribution.check(num_replicas, batch_size, mode)
  assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize('num_replicas, batch_size, mode, words', [
    (2, 6, 'train', ['num_replicas=2', '3 workers']),
    (1, 8, 'train', ['8', '3 replicas']),
    (1, 6, 'train_and_eval', ['mode=train_and_eval', 'TF_CONFIG']),
    (1, 6, 'eval', ['mode=eval', 'TF_CONFIG']),
])
def test_what_workers_cannot_share(
    num_replicas, batch_size, mode, words, monkeypatch):
  tf_config(monkeypatch, WORKERS, {'type': 'worker', 'index': 0})
  with pytest.raises(ValueError) as error:
    distribution.check(num_replicas, batch_size, mode)
  assert all(word in str(error.value) for word in words), error.value


def test_evaluation_shares_nothing():
  distribution.check(3, 8, 'eval')


def test_replicas_do_not_skip_steps():
  distribution.check(1, 8, on_nan='skip')
  with pytest.raises(ValueError, match='on_nan=skip.*2 replicas'):
    distribution.check(2, 8, on_nan='skip')


def test_fewer_gpus_than_replicas(monkeypatch):
  monkeypatch.setattr(
      tf2.config, 'list_physical_devices', lambda kind: [kind])
  distribution.check(1, 8)
  with pytest.raises(ValueError, match='num_replicas=2.*only 1 GPUs'):
    distribution.check(2, 8)


@pytest.mark.parametrize('n_pipelines, pipeline', [(1, 0), (2, 0), (2, 1)])
def test_parts_of_batches_come_in_turns(n_pipelines, pipeline):
  def input_fn():
    return tf.data.Dataset.from_tensor_slices((
        np.arange(24).reshape(2, 12, 1), np.arange(24).reshape(2, 12)))

  context = types.SimpleNamespace(
      num_replicas_in_sync=4, num_input_pipelines=n_pipelines,
      input_pipeline_id=pipeline)
  with tf.Graph().as_default(), tf.Session() as session:
    dataset = distribution.split_batches(input_fn)(context)
    assert dataset.element_spec[0].shape == [3, 1]
    step = tf.data.make_one_shot_iterator(dataset).get_next()
    n_here = 4 // n_pipelines
    for batch in range(2):
      for replica in range(n_here * pipeline, n_here * (pipeline + 1)):
        images, labels = session.run(step)
        first = 12 * batch + 3 * replica
        np.testing.assert_array_equal(labels, np.arange(first, first + 3))
        np.testing.assert_array_equal(images[:, 0], labels)


class Compared:
  """A mask on two replicas, and the hook that compares it."""

  def __init__(self, session, shape, dtype, strategy):
    def build():
      mask = tf.get_variable(
          'layer/mask', shape, dtype, tf.zeros_initializer(), trainable=False)
      return mask, distribution.AgreementHook(2)

    self._step = tf.train.get_or_create_global_step()
    self.mask, hooks = strategy.extended.call_for_each_replica(build)
    self.hook = strategy.experimental_local_results(hooks)[0]
    self.hook.begin()
    self._session = session
    session.run(tf.global_variables_initializer())

  def load(self, replica, value):
    self.mask.values[replica].load(value, self._session)

  def start(self):
    self.hook.after_create_session(self._session, None)

  def after_run(self, step):
    for copy in self._step.values:
      copy.load(step, self._session)
    fetched = self._session.run(self.hook.before_run(None).fetches)
    self.hook.after_run(types.SimpleNamespace(session=self._session),
                        types.SimpleNamespace(results=fetched))

  def end(self):
    self.hook.end(self._session)


@contextlib.contextmanager
def compared(shape, dtype=tf.float32):
  with two_replicas() as strategy, tf.Session(
      config=distribution.session_config(2)) as session:
    yield Compared(session, shape, dtype, strategy)


DIFFERS = 'do not agree on layer/mask'


@pytest.mark.parametrize('dtype', [
    tf.float32, tf.float64, tf.bfloat16, tf.int64, tf.int32, tf.bool])
def test_a_difference_in_one_place_stops_training(dtype):
  with compared([3, 4], dtype) as both:
    both.start()
    for step in range(1, 5):
      both.after_run(step)
    both.end()
    value = np.zeros([3, 4])
    value[1, 2] = 1
    both.load(1, value.astype(dtype.as_numpy_dtype))
    both.after_run(5)
    both.after_run(5)  # A mask update is no step.
    with pytest.raises(ValueError, match=DIFFERS):
      both.after_run(6)
    for function in (both.end, both.start):
      with pytest.raises(ValueError, match=DIFFERS):
        function()


def test_an_exchange_of_two_values_is_a_difference():
  with compared([4]) as both:
    both.load(0, [0, 1, 1, 0])
    both.load(1, [1, 0, 0, 1])
    with pytest.raises(ValueError, match=DIFFERS):
      both.start()


def test_workers_that_differ_at_the_start_start_again(monkeypatch):
  with compared([1]) as both:
    both.load(1, [1])
    tf_config(monkeypatch, WORKERS, {'type': 'worker', 'index': 0})
    for n in ('0', '2'):
      monkeypatch.setenv('RIGL_N_STARTS', n)
      with pytest.raises(distribution.WorkerLostError, match=DIFFERS):
        both.start()
    monkeypatch.setenv('RIGL_N_STARTS', '3')
    with pytest.raises(ValueError, match=DIFFERS):
      both.start()


@pytest.mark.parametrize('first_step', [0, 7])
def test_worker_starts_again_from_another_checkpoint(first_step):
  """One that came after the position in the input was read."""
  hook = distribution.WorkerHook(first_step)
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.get_or_create_global_step()
    hook.begin()
    session.run(step.initializer)
    if first_step:
      with pytest.raises(distribution.WorkerLostError, match='step 0'):
        hook.after_create_session(session, None)
      return
    hook.after_create_session(session, None)
    with pytest.raises(distribution.WorkerLostError, match='session was lost'):
      hook.after_create_session(session, None)

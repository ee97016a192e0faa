"""Sharing of batches, TF_CONFIG, and the comparison of replicas."""

from __future__ import annotations

import contextlib
import json
import types

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.training import distribution


@contextlib.contextmanager
def two_replicas():
  """A graph under a strategy of two CPUs; yields the strategy."""
  with tf.Graph().as_default(), tf.variable_scope(tf.get_variable_scope(), use_resource=True):
    strategy = distribution.make_strategy(2)
    with strategy.scope():
      yield strategy


WORKERS = {'worker': ['a:1', 'b:1', 'c:1']}
CHIEF_AND_WORKERS = {'chief': ['d:1'], **WORKERS}


def task(job, index):
  return {'type': job, 'index': index}


# TF_CONFIG of which schedulers and people: (text, workers, whether chief).
USABLE = {
  'empty': ('', 1, True),
  'blank': (' \n', 1, True),
  'no cluster, no task': ('{}', 1, True),
  # gcloud ai-platform local train.
  'empty cluster and task': (
    {'cluster': {}, 'task': {}, 'environment': 'cloud', 'job': {'job_name': 'rigl', 'args': []}},
    1,
    True,
  ),
  # Go programs write an empty map or list as null.
  'null': ({'cluster': None, 'task': None}, 1, True),
  # AI Platform on one machine; "job" is text that is JSON itself.
  'lone master': (
    {
      'cluster': {'master': ['127.0.0.1:2222']},
      'environment': 'cloud',
      'task': {**task('master', 0), 'trial': '1', 'cloud': 'c3b1'},
      'job': '{\n "scale_tier": "BASIC"\n}',
    },
    1,
    True,
  ),
  # Vertex AI on one machine.
  'lone chief': (
    {
      'cluster': {'chief': ['127.0.0.1:2222']},
      'environment': 'cloud',
      'task': task('chief', 0),
      'job': '{}',
    },
    1,
    True,
  ),
  # SageMaker's multi_worker_mirrored_strategy on one machine.
  'lone worker': (
    {'cluster': {'worker': ['algo-1:8890']}, 'environment': 'cloud', 'task': task('worker', 0)},
    1,
    True,
  ),
  # Kubeflow, with replicas of 0.
  'lone worker, empty jobs': (
    {
      'cluster': {
        'chief': [],
        'ps': [],
        'master': None,
        'evaluator': [],
        'worker': ['w-0.ns.svc:2222'],
      },
      'task': task('worker', 0),
      'environment': 'cloud',
    },
    1,
    True,
  ),
  'lone master, no workers': (
    {'cluster': {'master': ['a:1'], 'worker': [], 'ps': []}, 'task': task('master', 0)},
    1,
    True,
  ),
  'first worker': ({'cluster': WORKERS, 'task': task('worker', 0)}, 3, True),
  'last worker': ({'cluster': WORKERS, 'task': task('worker', 2)}, 3, False),
  'worker, empty jobs': (
    {
      'cluster': {'chief': [], 'ps': [], **WORKERS},
      'task': task('worker', 1),
      'environment': 'cloud',
    },
    3,
    False,
  ),
  'first worker, empty jobs': (
    {
      'cluster': {'chief': [], 'ps': [], **WORKERS},
      'task': task('worker', 0),
      'environment': 'cloud',
    },
    3,
    True,
  ),
  'chief and workers': ({'cluster': CHIEF_AND_WORKERS, 'task': task('chief', 0)}, 4, True),
  'worker of a chief': ({'cluster': CHIEF_AND_WORKERS, 'task': task('worker', 0)}, 4, False),
}
# What is wrong with it: (text, words of the error).
UNUSABLE = {
  'no JSON': ('{', 'Expecting property name'),
  'Python': ("{'cluster': {}}", 'Expecting property name'),
  'a list': ('[]', 'a cluster and a task'),
  'a number': ('3', 'a cluster and a task'),
  'cluster: text': (
    {'cluster': 'a:1', 'task': task('worker', 0)},
    'its cluster must be of the form',
  ),
  'cluster: list': (
    {'cluster': ['a:1', 'b:1'], 'task': task('worker', 0)},
    'its cluster must be of the form',
  ),
  **{
    f'job: {name}': (
      {'cluster': {'worker': job}, 'task': task('worker', 0)},
      'the job worker must be of the form',
    )
    for name, job in {
      'number': 5,
      'text': 'a:1',
      'list of lists': [['a:1']],
      'list of numbers': [2222],
      'list of empty text': [''],
      'no port': ['a', 'b'],
      # tf.train.ClusterSpec takes it; each process knows itself alone.
      'sparse': {'0': 'a:1'},
    }.items()
  },
  # Kubeflow with enableDynamicWorker: each would train alone.
  'sparseCluster, worker': (
    {'sparseCluster': {'worker': {'1': 'a:1'}, 'ps': []}, 'task': task('worker', 1)},
    'its cluster has no worker 1',
  ),
  'sparseCluster, chief': (
    {'sparseCluster': {'worker': {}, 'ps': []}, 'task': task('chief', 0)},
    'its cluster has no chief 0',
  ),
  'task alone': ({'task': task('worker', 0)}, 'its cluster has no worker 0'),
  'only empty jobs': (
    {'cluster': {'worker': [], 'ps': []}, 'task': task('worker', 0)},
    'its cluster has no worker 0',
  ),
  'two chiefs': (
    {'cluster': {'chief': ['a:1', 'b:1']}, 'task': task('chief', 1)},
    'only one chief',
  ),
  # AI Platform before TensorFlow 2.1, SageMaker with parameter servers.
  **{
    f'master and others: {job}': (
      {'cluster': {'master': ['a:1'], 'worker': ['b:1'], **ps}, 'task': task(job, 0)},
      f'not master{words}',
    )
    for job, ps, words in (
      ('master', {}, ''),
      ('worker', {}, ''),
      ('ps', {'ps': ['c:1']}, ' or ps'),
    )
  },
  **{
    f'{job} of {other} and worker': (
      {'cluster': {'worker': ['a:1'], other: ['b:1']}, 'task': task(job, 0)},
      f'chief and worker, not {other}',
    )
    for other in ('ps', 'evaluator', 'trainer')
    for job in ('worker', other)
  },
  'lone ps': ({'cluster': {'ps': ['a:1']}, 'task': task('ps', 0)}, 'not ps'),
  # In Estimator's form: it is not of the cluster.
  'evaluator outside': (
    {'cluster': {'chief': ['a:1']}, 'task': task('evaluator', 0)},
    'its cluster has no evaluator 0',
  ),
  **{
    f'{n} workers, task {name}': ({'cluster': {'worker': WORKERS['worker'][:n]}, **entry}, words)
    for n in (1, 3)
    for name, entry, words in (
      ('missing', {}, 'a type and an index'),
      ('a number', {'task': 3}, 'a type and an index'),
      ('without index', {'task': {'type': 'worker'}}, 'a type and an index'),
      ('without type', {'task': {'index': 0}}, 'a type and an index'),
      ('behind the last', {'task': task('worker', n)}, f'its cluster has no worker {n}'),
      ('negative', {'task': task('worker', -1)}, 'its cluster has no worker -1'),
      ('of another job', {'task': task('chief', 0)}, 'its cluster has no chief 0'),
      ('of no job', {'task': task(['worker'], 0)}, 'its cluster has no'),
      ('text', {'task': task('worker', '0')}, 'without quotes, got "0"'),
      ('words', {'task': task('worker', 'x')}, 'without quotes, got "x"'),
      ('true', {'task': task('worker', True)}, 'got true'),
      ('a fraction', {'task': task('worker', 0.5)}, 'got 0.5'),
      ('null', {'task': task('worker', None)}, 'got null'),
    )
  },
}


def set_tf_config(monkeypatch, config):
  """Sets it to a text, or to JSON as people write it, over several lines."""
  text = config if isinstance(config, str) else json.dumps(config, indent=2)
  monkeypatch.setenv('TF_CONFIG', text)


@pytest.mark.parametrize('name', USABLE)
def test_tf_config(name, monkeypatch):
  config, n, is_chief = USABLE[name]
  set_tf_config(monkeypatch, config)
  assert distribution.n_workers() == n
  assert distribution.is_chief() == is_chief


@pytest.mark.parametrize('name', UNUSABLE)
def test_unusable_tf_config_is_shown_in_one_line(name, monkeypatch):
  config, words = UNUSABLE[name]
  set_tf_config(monkeypatch, config)
  for function in (distribution.n_workers, distribution.is_chief, distribution.tidy_tf_config):
    with pytest.raises(ValueError) as error:
      function()
    line = str(error.value)
    assert words in line and '\n' not in line
    text = config if isinstance(config, str) else json.dumps(config)
    given = line.removeprefix('TF_CONFIG=').partition(' cannot be used: ')[0]
    assert given.replace(' ', '') == text.replace(' ', '')
    assert distribution._EXAMPLE in line
    assert line.endswith('Unset it for a process that works alone.')


def test_no_tf_config_is_one_process(monkeypatch):
  monkeypatch.delenv('TF_CONFIG', raising=False)
  distribution.tidy_tf_config()
  assert distribution.n_workers() == 1 and distribution.is_chief()


@pytest.mark.parametrize('name', USABLE)
def test_tensorflow_takes_what_is_left_of_tf_config(name, monkeypatch):
  config, n, is_chief = USABLE[name]
  set_tf_config(monkeypatch, config)
  for _ in range(2):
    distribution.tidy_tf_config()
    assert distribution.n_workers() == n
    assert distribution.is_chief() == is_chief
    resolver = tf2.distribute.cluster_resolver.TFConfigClusterResolver()
    jobs = resolver.cluster_spec().as_dict()
    assert all(jobs.values())
    assert sum(map(len, jobs.values())) == (n if n > 1 else 0)
    if n > 1:
      given = config['task']
      assert (resolver.task_type, resolver.task_id) == (given['type'], given['index'])


@pytest.mark.parametrize(
  'num_replicas, batch_size, mode, words',
  [(0, 8, 'train', ['num_replicas', '>= 1', '0']), (3, 8, 'train', ['8', '3 replicas', 'evenly'])],
)
def test_what_one_process_cannot_share(num_replicas, batch_size, mode, words):
  with pytest.raises(ValueError) as error:
    distribution.check(num_replicas, batch_size, mode)
  assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
  'num_replicas, batch_size, mode, words',
  [
    (2, 6, 'train', ['num_replicas=2', '3 workers']),
    (1, 8, 'train', ['8', '3 replicas']),
    (1, 6, 'train_and_eval', ['mode=train_and_eval', 'TF_CONFIG']),
    (1, 6, 'eval', ['mode=eval', 'TF_CONFIG']),
  ],
)
def test_what_workers_cannot_share(num_replicas, batch_size, mode, words, monkeypatch):
  set_tf_config(monkeypatch, {'cluster': WORKERS, 'task': task('worker', 0)})
  with pytest.raises(ValueError) as error:
    distribution.check(num_replicas, batch_size, mode)
  assert all(word in str(error.value) for word in words), error.value


def test_evaluation_shares_nothing():
  distribution.check(3, 8, 'eval')


def test_fewer_gpus_than_replicas(monkeypatch):
  monkeypatch.setattr(tf2.config, 'list_physical_devices', lambda kind: [kind])
  distribution.check(1, 8)
  with pytest.raises(ValueError, match='num_replicas=2.*only 1 GPUs'):
    distribution.check(2, 8)


@pytest.mark.parametrize('n_pipelines, pipeline', [(1, 0), (2, 0), (2, 1)])
def test_parts_of_batches_come_in_turns(n_pipelines, pipeline):
  def input_fn():
    return tf.data.Dataset.from_tensor_slices(
      (np.arange(24).reshape(2, 12, 1), np.arange(24).reshape(2, 12))
    )

  context = types.SimpleNamespace(
    num_replicas_in_sync=4, num_input_pipelines=n_pipelines, input_pipeline_id=pipeline
  )
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
      mask = tf.get_variable('layer/mask', shape, dtype, tf.zeros_initializer(), trainable=False)
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
    self.hook.after_run(
      types.SimpleNamespace(session=self._session), types.SimpleNamespace(results=fetched)
    )

  def end(self):
    self.hook.end(self._session)


@contextlib.contextmanager
def compared(shape, dtype=tf.float32):
  with two_replicas() as strategy, tf.Session(config=distribution.session_config(2)) as session:
    yield Compared(session, shape, dtype, strategy)


DIFFERS = 'do not agree on layer/mask'


@pytest.mark.parametrize(
  'dtype', [tf.float32, tf.float64, tf.bfloat16, tf.int64, tf.int32, tf.bool]
)
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


@pytest.mark.parametrize('first_step', [0, 7])
def test_a_worker_ends_at_another_checkpoint(first_step):
  """A checkpoint written after the position in the input was read."""
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
    with pytest.raises(distribution.WorkerLostError, match='Start all workers'):
      hook.after_create_session(session, None)

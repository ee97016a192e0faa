"""Training on several devices of a machine, or in several processes.

A tf.distribute strategy runs the model_fn once for each replica. Each batch of
the input pipeline is split among the replicas, so the number of replicas
changes neither the batches nor their order.

The environment variable TF_CONFIG names the processes, called workers; each has
one replica. All workers read the folder of the training, and one of them, the
chief, writes it.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Callable, Optional

from rigl import replicas
from rigl.compat import tf, tf2
from rigl.core import messages
from rigl.training import saving, specs

# After this time a worker gives up a step: one that dies or hangs may leave the others waiting.
STEP_TIMEOUT_SECONDS = 600

_EXAMPLE = (
  '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


def _read_cluster(cluster: Any) -> dict[str, list[str]]:
  """{job: addresses of its processes}, without empty jobs, checked."""
  if not isinstance(cluster, dict):
    raise ValueError('its cluster must be of the form {"job": ["host:port"]}')
  cluster = {job: addresses for job, addresses in cluster.items() if addresses}
  for job, addresses in cluster.items():
    if not isinstance(addresses, list) or not all(
      isinstance(address, str) and re.fullmatch(r'\S+:\d+', address) for address in addresses
    ):
      raise ValueError(f'the job {job} must be of the form ["host:port"]')
  # Some schedulers call a process that trains alone `master`.
  is_one = sum(map(len, cluster.values())) == 1
  known = {'chief', 'worker', *(['master'] if is_one else [])}
  unknown = sorted(set(cluster) - known)
  if unknown:
    raise ValueError(
      f'the jobs that train together are chief and worker, not {" or ".join(unknown)}'
    )
  if len(cluster.get('chief', ())) > 1:
    raise ValueError('there can be only one chief')
  return cluster


def _read_task(task: Any, cluster: dict[str, list[str]]) -> tuple[str, int]:
  """(job, number) of this process, which must be one of the cluster."""
  if not isinstance(task, dict) or not {'type', 'index'} <= set(task):
    raise ValueError('its task must have a type and an index')
  job, index = task['type'], task['index']
  if type(index) is not int:
    raise ValueError(
      f'the index of its task must be a number without quotes, got {json.dumps(index)}'
    )
  if not 0 <= index < len(cluster.get(str(job), ())):
    raise ValueError(f'its cluster has no {job} {index}')
  return job, index


def _read_tf_config() -> tuple[dict[str, list[str]], str, int]:
  """({job: addresses of its processes}, job and number of this one)."""
  text = ' '.join(os.environ.get('TF_CONFIG', '').split())
  try:
    config = json.loads(text or '{}')
    if not isinstance(config, dict):
      raise ValueError('it must have a cluster and a task')
    cluster, task = config.get('cluster') or {}, config.get('task') or {}
    if not cluster and not task:
      return {}, '', 0
    cluster = _read_cluster(cluster)
    return (cluster, *_read_task(task, cluster))
  except ValueError as error:
    raise ValueError(
      f'TF_CONFIG={text} cannot be used: {error}. An example: {_EXAMPLE}. '
      'Unset it for a process that works alone.'
    ) from error


def _workers(cluster: dict[str, list[str]]) -> list[str]:
  return [*cluster.get('chief', ()), *cluster.get('worker', ())]


def n_workers() -> int:
  """The number of processes that train together, by TF_CONFIG.

  Raises:
    ValueError: TF_CONFIG is malformed.
  """
  return max(1, len(_workers(_read_tf_config()[0])))


def is_chief() -> bool:
  """Whether this process writes the folder of the training."""
  cluster, job, index = _read_tf_config()
  return n_workers() == 1 or job == 'chief' or ('chief' not in cluster and index == 0)


def total_replicas(num_replicas: int) -> int:
  """The number of replicas that share a batch; one per worker."""
  return max(num_replicas, n_workers())


def tidy_tf_config() -> None:
  """Rewrites TF_CONFIG in the form that TensorFlow needs.

  A single process has none, because Estimators would require it to be a chief.
  For several, empty jobs are left out, because TensorFlow counts them.

  Raises:
    ValueError: TF_CONFIG is malformed.
  """
  cluster, job, index = _read_tf_config()
  if len(_workers(cluster)) > 1:
    os.environ['TF_CONFIG'] = json.dumps(
      {'cluster': cluster, 'task': {'type': job, 'index': index}}
    )
  else:
    os.environ.pop('TF_CONFIG', None)


def check(num_replicas: int, batch_size: int, mode: str = 'train') -> None:
  """Raises ValueError unless a mode can work with the replicas, and they share a batch evenly."""
  if num_replicas < 1:
    raise ValueError(f'num_replicas must be >= 1, got {num_replicas}.')
  workers = n_workers()
  if workers > 1:
    if num_replicas > 1:
      raise ValueError(
        f'num_replicas={num_replicas} and the {workers} workers '
        'of TF_CONFIG exclude each other: a worker has one.'
      )
    if mode != 'train':
      raise ValueError(
        f'mode={mode} does not work with the {workers} workers of TF_CONFIG. Use train there, and '
        'eval in a process without TF_CONFIG.'
      )
  elif num_replicas > 1:
    n_gpus = len(tf2.config.list_physical_devices('GPU'))
    if 0 < n_gpus < num_replicas:
      raise ValueError(f'num_replicas={num_replicas}, but there are only {n_gpus} GPUs.')
  if 'train' not in mode:
    return
  n = total_replicas(num_replicas)
  if batch_size % n:
    raise ValueError(f'A batch of {batch_size} cannot be shared by {n} replicas evenly.')


def make_strategy(num_replicas: int) -> Optional[tf.distribute.Strategy]:
  """A strategy for GPUs if there are any, else logical CPU devices; None for one device.

  With a TF_CONFIG of several workers, each has one replica. Call it inside a
  graph: outside, a strategy of workers would start a server of its own.
  """
  if n_workers() > 1:
    return tf.distribute.experimental.MultiWorkerMirroredStrategy()
  if num_replicas == 1:
    return None
  kind = 'gpu' if tf2.config.list_physical_devices('GPU') else 'cpu'
  return tf.distribute.MirroredStrategy([f'/{kind}:{i}' for i in range(num_replicas)])


def session_config(
  num_replicas: int, strategy: Optional[tf.distribute.Strategy] = None
) -> tf.ConfigProto:
  """The config of sessions with as many logical CPU devices as replicas, see `make_strategy`."""
  config = tf.ConfigProto(allow_soft_placement=True)
  if num_replicas > 1:
    config.device_count['CPU'] = num_replicas
  if n_workers() > 1:
    config.operation_timeout_in_ms = 1000 * STEP_TIMEOUT_SECONDS
  # A second pass of Grappler takes longer than it saves.
  rewriting = config.graph_options.rewrite_options
  rewriting.meta_optimizer_iterations = rewriting.ONE
  return strategy.update_config_proto(config) if strategy else config


def server_target(config: tf.ConfigProto) -> str:
  """The target of this process's sessions; '' unless it is a worker.

  Starts the server of a worker, which runs until the process ends.
  """
  if n_workers() == 1:
    return ''
  cluster, job, index = _read_tf_config()
  server_config = tf.ConfigProto()
  server_config.CopyFrom(config)
  # Device filters keep a session on its own worker; servers need all workers.
  del server_config.device_filters[:]
  return tf.distribute.Server(
    tf.train.ClusterSpec(cluster), job, index, config=server_config
  ).target


def split_batches(input_fn: specs.InputFn) -> Callable[..., tf.data.Dataset]:
  """Splits the batches of an input_fn, nested tensors [batch, ...], among the replicas.

  Returns:
    input_context -> dataset of parts of batches, which the replicas of this
    process take in turns.
  """

  def split_input_fn(input_context: tf.distribute.InputContext) -> tf.data.Dataset:
    n = input_context.num_replicas_in_sync
    n_here = n // input_context.num_input_pipelines
    first = n_here * input_context.input_pipeline_id

    def cut(tensor: tf.Tensor) -> tf.Tensor:
      shape = tf.concat([[n, -1], tf.shape(tensor)[1:]], 0)
      parts = tf.reshape(tensor, shape)[first : first + n_here]
      n_examples = tensor.shape[0] // n if tensor.shape[0] else None
      parts.set_shape([n_here, n_examples, *tensor.shape[1:]])
      return parts

    return input_fn().flat_map(
      lambda *batch: tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(cut, batch))
    )

  return split_input_fn


def _fingerprint(variable: tf.Variable) -> tf.Tensor:
  """A 63-bit hash of the value of a variable, int64 scalar."""
  return tf.strings.to_hash_bucket_fast(tf.io.serialize_tensor(variable.read_value()), 2**63 - 1)


class WorkerLostError(ConnectionError):
  """This worker cannot train on with the others: all must start again."""

  def __init__(self, reason: str):
    super().__init__(
      f'This worker cannot go on with the others: {reason}. Start all '
      'workers again; they resume from the last checkpoint.'
    )


class AgreementHook(tf.train.SessionRunHook):
  """Stops a training whose replicas hold different values of a variable.

  Compares them at the start, where workers could have restored different
  checkpoints, before each checkpoint is saved, and (not with workers) at the
  end.
  """

  def __init__(self, *periods: int):
    """Adds the comparison of all variables to the graph; `periods` as for saving.SaverHook."""
    self._timer = saving.MultiplesTimer(periods)
    variables = tf.global_variables()
    self._names = [replicas.name_of(v) for v in variables]
    self._differs = replicas.differences(tf.stack([_fingerprint(v) for v in variables]))

  def begin(self) -> None:
    self._global_step = tf.train.get_global_step()

  def after_create_session(self, session: Any, coord: Any) -> None:
    del coord
    self._timer.update_last_triggered_step(session.run(self._global_step))
    self._check(session)

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    return tf.train.SessionRunArgs(self._global_step)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    # This value may be one step old, so use it only to rule a check out.
    if not self._timer.should_trigger_for_step(run_values.results + 1):
      return
    step = run_context.session.run(self._global_step)
    if self._timer.should_trigger_for_step(step):
      self._timer.update_last_triggered_step(step)
      self._check(run_context.session)

  def end(self, session: Any) -> None:
    # Workers cannot sum once one of them has reached the end of its data.
    if n_workers() == 1:
      self._check(session)

  def _check(self, session: Any) -> None:
    found = [name for name, differs in zip(self._names, session.run(self._differs)) if differs]
    if found:
      raise ValueError(
        f'The replicas do not agree on {messages.first_few(found, 3)}. Start '
        'all of them again, from the same checkpoint.'
      )


class WorkerHook(tf.train.SessionRunHook):
  """Ends a worker that has lost another or whose input is out of step."""

  def __init__(self, first_step: int):
    """`first_step` is the global step of the checkpoint at which the input starts."""
    self._first_step = first_step
    self._has_session = False

  def begin(self) -> None:
    self._global_step = tf.train.get_global_step()

  def after_create_session(self, session: Any, coord: Any) -> None:
    del coord
    # TensorFlow would continue in a new session, but once a process has lost a
    # worker, no sum over workers works in it any more.
    if self._has_session:
      raise WorkerLostError('one of them is gone')
    self._has_session = True
    step = session.run(self._global_step)
    if step != self._first_step:
      raise WorkerLostError(
        f'its input begins at step {self._first_step}, but the last '
        f'checkpoint is now that of step {step}'
      )

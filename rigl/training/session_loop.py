"""Trains and evaluates in sessions: on TensorFlow 2.15 and later.

On one device, the replicas of this process or the workers of TF_CONFIG, see
distribution.py. A TPU needs tpu_estimator.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from typing import Any, Optional, Sequence

from rigl import replicas
from rigl.compat import tf
from rigl.training import checkpoints, distribution, saving, specs

# The collection from which TensorFlow's hooks take the global step. Otherwise
# they make a tensor that also computes the initial value of the step, which a
# worker would broadcast, waiting for all others.
_STEP_READ = 'global_step_read_op_cache'


def _run_at_start(op: tf.Operation) -> None:
  """Makes each new session run an op before the first step."""
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, op)


def _build_replica(job: specs.Job, features: Any, labels: Any) -> specs.TrainSpec:
  """The training graph of one replica."""
  spec = job.model_fn(features, labels, 'train')
  if not replicas.in_replica():
    return spec
  agreement = distribution.AgreementHook(*job.saving_periods or (1000,))
  return dataclasses.replace(
    spec, train_op=tf.group(spec.train_op, *spec.replica_means), hooks=[*spec.hooks, agreement]
  )


def _make_replicas(
  job: specs.Job, strategy: Optional[tf.distribute.Strategy], input_fn: specs.InputFn
) -> Sequence[specs.TrainSpec]:
  """The spec of each replica in this process."""
  if strategy is None:
    iterator = tf.data.make_initializable_iterator(input_fn())
    _run_at_start(iterator.initializer)
    return [_build_replica(job, *iterator.get_next())]
  iterator = strategy.make_input_fn_iterator(distribution.split_batches(input_fn))
  _run_at_start(iterator.initializer)
  found = strategy.extended.call_for_each_replica(
    # No autograph: plain Python builds the graph.
    tf.autograph.experimental.do_not_convert(_build_replica),
    args=(job, *iterator.get_next()),
  )
  return strategy.experimental_local_results(found)


def _all_hooks(
  job: specs.Job, spec: specs.TrainSpec, listeners: Sequence[tf.train.CheckpointSaverListener]
) -> list[Any]:
  """The hooks of the job. Saving comes last, after all others."""
  if not distribution.is_chief():
    return list(spec.hooks)
  found = [*spec.hooks, *spec.chief_hooks]
  if job.saving_periods:
    found.append(
      saving.SaverHook(
        job.folder,
        *job.saving_periods,
        keep=job.keep_checkpoint_max,
        listeners=[*spec.listeners, *listeners],
      )
    )
  return found


class SessionLoop(specs.Loop):
  """A loop of tf.train.MonitoredTrainingSession.

  Attributes:
    folder: folder of the job.
  """

  def __init__(self, job: specs.Job, num_replicas: int = 1):
    """Runs `job`; `num_replicas` devices of this process share a training batch."""
    self.folder = job.folder
    self._job = job
    self._num_replicas = num_replicas

  def train(
    self,
    input_fn: specs.InputFn,
    max_steps: Optional[int],
    hooks: Sequence[tf.train.SessionRunHook],
    listeners: Sequence[tf.train.CheckpointSaverListener],
  ) -> None:
    job = self._job
    with tf.Graph().as_default():
      strategy = distribution.make_strategy(self._num_replicas)
      with strategy.scope() if strategy else contextlib.nullcontext():
        tf.set_random_seed(job.seed)
        global_step = tf.train.get_or_create_global_step()
        tf.add_to_collection(_STEP_READ, tf.identity(global_step))
        found = _make_replicas(job, strategy, input_fn)
        all_hooks = [*hooks, *_all_hooks(job, found[0], listeners)]
        if max_steps is not None:
          all_hooks.append(tf.train.StopAtStepHook(last_step=max_steps))
        train_op = tf.group(*(spec.train_op for spec in found), *self._writing_ops(found[0]))
        config = distribution.session_config(self._num_replicas, strategy)
        with tf.train.MonitoredTrainingSession(
          distribution.server_target(config),
          checkpoint_dir=job.folder,
          scaffold=found[0].make_scaffold(),
          hooks=all_hooks,
          config=config,
          save_checkpoint_steps=0,
          save_summaries_secs=None,
          save_summaries_steps=0,
          log_step_count_steps=0,
        ) as session:
          while not session.should_stop():
            session.run(train_op)

  def _writing_ops(self, spec: specs.TrainSpec) -> Sequence[tf.Operation]:
    """Ops to run at each step, which write summaries when they are due."""
    if not spec.host_call or not distribution.is_chief():
      return ()
    function, arguments = spec.host_call
    return function(**arguments)

  def evaluate(
    self, input_fn: specs.InputFn, checkpoint: str, steps: Optional[int]
  ) -> dict[str, Any]:
    with tf.Graph().as_default():
      tf.set_random_seed(self._job.seed)
      global_step = tf.train.get_or_create_global_step()
      batches = input_fn()
      iterator = tf.data.make_initializable_iterator(
        batches if steps is None else batches.take(steps)
      )
      spec = self._job.model_fn(*iterator.get_next(), 'eval')
      variables = tf.global_variables()
      checkpoints.check_fits(checkpoint, checkpoints.names_and_shapes(variables))
      metrics = {**spec.metric_fn(*spec.tensors), 'loss': tf.metrics.mean(spec.loss)}
      update = tf.group(*(update for _, update in metrics.values()))
      values = {name: value for name, (value, _) in metrics.items()}
      with tf.Session(config=distribution.session_config(1)) as session:
        tf.train.Saver(variables).restore(session, checkpoint)
        session.run([tf.local_variables_initializer(), iterator.initializer])
        with contextlib.suppress(tf.errors.OutOfRangeError):
          while True:
            session.run(update)
        found = session.run({**values, 'global_step': global_step})
      self._write_summary(found, checkpoint)
    return found

  def _write_summary(self, values: dict[str, Any], checkpoint: str) -> None:
    """Writes the metrics of a checkpoint for TensorBoard."""
    summary = tf.Summary(
      value=[
        tf.Summary.Value(tag=tag, simple_value=float(value))
        for tag, value in values.items()
        if tag != 'global_step'
      ]
    )
    summary.value.add(tag='checkpoint_path', tensor=tf.make_tensor_proto(checkpoint))
    writer = tf.summary.FileWriterCache.get(os.path.join(self.folder, 'eval'))
    writer.add_summary(summary, values['global_step'])
    writer.flush()

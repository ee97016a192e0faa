"""Training on TPUEstimator, for all scripts."""

from __future__ import annotations

import signal
from typing import Any, Callable, Iterator, Optional, Sequence

from absl import logging

from rigl import compat, replicas
from rigl.compat import tf
from rigl.core import messages
from rigl.training import checkpoints, distribution, saving
from rigl.training import hooks as training_hooks
from rigl.training import tpu as tpu_lib


def make_estimator(model_fn: Callable[..., Any],
                   model_dir: str,
                   *,
                   seed: int,
                   train_batch_size: int,
                   save_checkpoints_steps: Optional[int],
                   keep_checkpoint_max: int,
                   eval_batch_size: Optional[int] = None,
                   save_summary_steps: int = 100,
                   export_steps: int = 0,
                   params: Optional[dict[str, Any]] = None,
                   tpu: Optional[tpu_lib.TpuSetup] = None,
                   num_replicas: int = 1) -> Any:
  """A TPUEstimator that runs on CPU or GPU, or on a TPU if one is given.

  With the workers of a TF_CONFIG it is one of them, see distribution.py.

  Args:
    model_fn: (features, labels, mode, params) -> TPUEstimatorSpec.
    model_dir: folder of checkpoints and summaries.
    seed: seed of the graph, and so of initial weights.
    train_batch_size: examples in a training batch.
    save_checkpoints_steps: steps between checkpoints; None for none at all.
    keep_checkpoint_max: checkpoints to keep; 0 for all.
    eval_batch_size: examples in an evaluation batch.
    save_summary_steps: steps between the summaries of the graph.
    export_steps: steps between exports, which are made of checkpoints: without
      a TPU, which saves between two loops only, there is one for each. 0 for
      no exports.
    params: passed to model_fn and input_fn.
    tpu: the TPU, with the replicas that share a batch.
    num_replicas: devices of this process that share a batch, without a TPU.

  Returns:
    The TPUEstimator.
  """
  estimator_lib = compat.estimator_module()
  distribution.tidy_tf_config()
  is_chief = distribution.is_chief()
  # Outside of a graph the strategy of workers would start a server.
  with tf.Graph().as_default():
    run_config = estimator_lib.tpu.RunConfig(
        **(_tpu_run_config(tpu, save_checkpoints_steps) if tpu else
           _run_config(num_replicas)),
        model_dir=model_dir,
        tf_random_seed=seed,
        save_checkpoints_secs=None,
        save_summary_steps=save_summary_steps if is_chief else 0,
        keep_checkpoint_max=keep_checkpoint_max or None,
        log_step_count_steps=None)
    return estimator_lib.tpu.TPUEstimator(
        # On a TPU the Estimator saves between two loops, when no step is
        # running.
        model_fn=model_fn if tpu else _with_saving_hooks(
            model_fn, model_dir, save_checkpoints_steps, export_steps,
            is_chief),
        config=run_config,
        use_tpu=tpu is not None,
        batch_axis=list(tpu.batch_axis) if tpu else None,
        train_batch_size=train_batch_size,
        eval_batch_size=eval_batch_size,
        params=params)


def _with_saving_hooks(model_fn: Callable[..., Any], model_dir: str,
                       save_steps: Optional[int], export_steps: int,
                       is_chief: bool) -> Callable[..., Any]:
  """A model_fn whose training also saves and compares its replicas."""

  def model_fn_with_hooks(features, labels, mode, params):
    spec = model_fn(features, labels, mode, params)
    if mode != 'train':
      return spec
    hooks = list(spec.training_hooks)
    periods = [steps for steps in (save_steps, export_steps) if steps]
    if replicas.in_replica():
      hooks.append(distribution.AgreementHook(*periods or [1000]))
    if periods and is_chief:
      # The Estimator would run its own before all other hooks: what they write
      # about a step would then be missing beside the checkpoint of the step.
      hooks.append(saving.SaverHook(model_dir, *periods))
    return spec._replace(training_hooks=tuple(hooks))

  return model_fn_with_hooks


def _run_config(num_replicas: int) -> dict[str, Any]:
  """The arguments of RunConfig without a TPU."""
  strategy = distribution.make_strategy(num_replicas)
  return {
      'train_distribute': strategy,
      'session_config': strategy and distribution.session_config(num_replicas),
      'save_checkpoints_steps': None,  # SaverHook does.
  }


def _tpu_run_config(tpu: tpu_lib.TpuSetup,
                    save_checkpoints_steps: Optional[int]) -> dict[str, Any]:
  """The arguments of RunConfig that only a TPU needs."""
  return {
      'cluster': tpu.resolver,
      'tpu_config': compat.estimator_module().tpu.TPUConfig(
          iterations_per_loop=tpu.iterations_per_loop, num_shards=tpu.n_cores,
          tpu_job_name=tpu.job_name, per_host_input_for_training=True),
      'save_checkpoints_steps': save_checkpoints_steps,
  }


def train_spec(loss: tf.Tensor,
               train_op: tf.Operation,
               make_scaffold: Callable[[], tf.train.Scaffold],
               hooks: Sequence[tf.train.SessionRunHook] = (),
               chief_hooks: Sequence[tf.train.SessionRunHook] = (),
               host_call: Optional[tuple[Callable[..., Any],
                                         dict[str, tf.Tensor]]] = None) -> Any:
  """The TPUEstimatorSpec of a model_fn in mode 'train'.

  Args:
    loss: scalar.
    train_op: one training step.
    make_scaffold: called once the graph of the step stands.
    hooks: run with the training, on the host.
    chief_hooks: likewise, but only in the process that writes.
    host_call: (function that writes summaries, its arguments).
  """
  is_chief = distribution.is_chief()
  return compat.estimator_module().tpu.TPUEstimatorSpec(
      'train', loss=loss, train_op=tf.group(train_op, *replicas.means()),
      scaffold_fn=lambda: replicas.outside(make_scaffold),
      training_hooks=[*hooks, *(chief_hooks if is_chief else ())],
      host_call=host_call if is_chief else None)


def eval_spec(loss: tf.Tensor, metric_fn: Callable[..., dict[str, Any]],
              tensors: Sequence[tf.Tensor]) -> Any:
  """The TPUEstimatorSpec of a model_fn in mode 'eval'.

  Args:
    loss: scalar.
    metric_fn: called with `tensors`; returns {name: tf.metrics pair}.
    tensors: [batch, ...] each.
  """
  return compat.estimator_module().tpu.TPUEstimatorSpec(
      'eval', loss=loss, eval_metrics=(metric_fn, list(tensors)))


def train(estimator: Any,
          input_fn: Callable[[dict[str, Any]], tf.data.Dataset],
          *,
          max_steps: Optional[int] = None,
          first_step: Optional[int] = None,
          hooks: Sequence[tf.train.SessionRunHook] = (),
          saving_listeners: Sequence[Any] = (),
          says_resumed: bool = True) -> Optional[signal.Signals]:
  """Trains until the data end or the global step reaches `max_steps`.

  A checkpoint in the estimator's folder is continued from.

  Args:
    estimator: from `make_estimator`.
    input_fn: gives the training batches, from the next one on.
    max_steps: the global step to stop at; None for the end of the data.
    first_step: global step of the checkpoint after which `input_fn` begins, if
      it does not look for it itself.
    hooks: further ones of the session, of the process that writes.
    saving_listeners: called around each checkpoint; not by workers.
    says_resumed: whether to print which checkpoint is continued from.

  Returns:
    The signal that stopped training; None if it ran to its end.

  Raises:
    ValueError: the folder holds a checkpoint of another network or method.
  """
  is_chief = distribution.is_chief()
  resumable = training_hooks.ResumableHook(
      estimator.model_dir, is_chief, is_chief and says_resumed)
  if distribution.n_workers() > 1:
    if first_step is None:
      first_step = checkpoints.latest_step(estimator.model_dir)
    _train_with_workers(estimator, input_fn, max_steps, [
        distribution.WorkerHook(first_step), resumable,
        *(hooks if is_chief else ())])
    return None
  if estimator.config.train_distribute:
    input_fn = distribution.split_batches(input_fn)
  stop = training_hooks.StopOnSignalHook()
  try:
    estimator.train(
        input_fn, max_steps=max_steps, hooks=[resumable, stop, *hooks],
        saving_listeners=list(saving_listeners))
  finally:
    stop.restore()
  return stop.stopped_by


def _train_with_workers(estimator: Any, input_fn: Callable[..., Any],
                        max_steps: Optional[int],
                        hooks: Sequence[tf.train.SessionRunHook]) -> None:
  """Trains as one of several workers; starts again if another is lost."""
  estimator_lib = compat.estimator_module()
  input_fn = distribution.split_batches(input_fn)
  try:
    # Outside of a graph the strategy would start a server of its own.
    with tf.Graph().as_default():
      estimator_lib.train_and_evaluate(
          estimator,
          estimator_lib.TrainSpec(input_fn, max_steps, hooks),
          estimator_lib.EvalSpec(input_fn))
  except (distribution.WorkerLostError, tf.errors.AbortedError,
          tf.errors.CancelledError, tf.errors.UnavailableError) as error:
    distribution.start_again(error)


def end_at_once(model_dir: str, length: str) -> None:
  """Says that a training is over already; clears up after its process.

  Args:
    model_dir: folder of the training.
    length: how long it was, such as '10 steps'.
  """
  print(f'{model_dir} already holds {length}.')
  if distribution.is_chief():
    saving.remove_leftovers(model_dir)


def train_in_turns(estimator: Any,
                   input_fn: Callable[[dict[str, Any]], tf.data.Dataset],
                   total: int,
                   chunk: int,
                   evaluate: Optional[Callable[[str], Any]] = None,
                   **arguments: Any) -> None:
  """Trains to the global step `total`, in turns with `evaluate`, if given.

  A training that is over already still evaluates its last checkpoint: what
  stopped the process may have come between the two.

  Args:
    estimator: from `make_estimator`.
    input_fn: gives the training batches, from the next one on.
    total: the global step to stop at.
    chunk: steps between evaluations, which come at its multiples and at the
      end.
    evaluate: called with the prefix of a checkpoint; None trains in one go.
    **arguments: further ones of `train`.

  Raises:
    ValueError: see `train`.
    hooks.StoppedError: a signal has stopped training.
  """
  folder = estimator.model_dir
  step = checkpoints.latest_step(folder)
  if step >= total:
    end_at_once(folder, f'{step} steps')
    if evaluate:
      evaluate(checkpoints.resolve(folder))
    return
  is_first = True
  while step < total:
    step = min(step - step % chunk + chunk, total) if evaluate else total
    stopped_by = train(estimator, input_fn, max_steps=step, **arguments,
                       says_resumed=is_first)
    is_first = False
    if stopped_by:
      raise training_hooks.StoppedError(
          stopped_by, f'Stopped at step {checkpoints.latest_step(folder)} of '
          f'{total}, saved in {folder}. The same command goes on.')
    if evaluate:
      evaluate(checkpoints.resolve(folder))
  if distribution.is_chief():
    print(f'Trained to step {checkpoints.latest_step(folder)}: '
          f'{checkpoints.resolve(folder)}.', flush=True)


class _CheckpointFits(tf.train.SessionRunHook):
  """Names what a checkpoint lacks before the session looks for it."""

  def __init__(self, checkpoint: str):
    self._checkpoint = checkpoint

  def begin(self) -> None:
    checkpoints.check_fits(
        self._checkpoint, checkpoints.names_and_shapes(tf.global_variables()))


def evaluate(estimator: Any,
             input_fn: Callable[[dict[str, Any]], tf.data.Dataset],
             checkpoint: str,
             steps: Optional[int] = None) -> dict[str, float]:
  """Evaluates one checkpoint on all examples of `input_fn`.

  Args:
    estimator: from `make_estimator`.
    input_fn: gives every example once.
    checkpoint: its prefix. It needs the variables of the network and the
      global step; others, such as optimizer slots, may be there or not.
    steps: batches to evaluate, which a TPU must know; None for all.

  Returns:
    {metric: value}, with the step as 'global_step'.

  Raises:
    ValueError: the checkpoint or an example cannot be read, or the checkpoint
      lacks a variable or has it in another shape; names it.
  """
  checkpoints.open_checkpoint(checkpoint)
  try:
    return estimator.evaluate(
        input_fn, steps=steps, checkpoint_path=checkpoint,
        hooks=[_CheckpointFits(checkpoint)])
  except tf.errors.OpError as error:
    raise ValueError(f'Cannot evaluate the checkpoint {checkpoint}: '
                     f'{messages.reason(error)}') from error


def _checkpoints_of(model_dir: str, timeout_seconds: float) -> Iterator[str]:
  """The newest checkpoint at each look, until none comes for so long."""
  first = checkpoints.latest(model_dir)
  # TensorFlow does not find it without the file that names it.
  is_alone = first is not None and not tf.train.latest_checkpoint(model_dir)
  if first is None:
    logging.info('Waiting for a checkpoint in %s ...', model_dir)
  elif is_alone:
    yield first
  for prefix in tf.train.checkpoints_iterator(
      model_dir, timeout=timeout_seconds):
    if not is_alone or prefix != first:
      yield prefix


def evaluate_until(estimator: Any,
                   input_fn: Callable[[dict[str, Any]], tf.data.Dataset],
                   max_steps: int,
                   timeout_seconds: float = 3600.,
                   steps: Optional[int] = None
                  ) -> Iterator[dict[str, float]]:
  """Evaluates the newest checkpoint of a running training, again and again.

  Those that training writes during an evaluation are left out, but for the
  newest of them, and so is one that it deletes before it is evaluated. Ends
  after the checkpoint of `max_steps`, or when none came for so long.

  Args:
    estimator: from `make_estimator`.
    input_fn: gives every example once.
    max_steps: the global step of the last checkpoint.
    timeout_seconds: to wait for the next checkpoint.
    steps: batches to evaluate, which a TPU must know; None for all.

  Yields:
    The metrics of each checkpoint, as `evaluate`.

  Raises:
    ValueError: the folder is damaged, see checkpoints.latest; or a checkpoint
      is, see `evaluate`.
  """
  last_step = None
  for checkpoint in _checkpoints_of(estimator.model_dir, timeout_seconds):
    try:
      metrics = evaluate(estimator, input_fn, checkpoint, steps)
    except ValueError:
      if tf.train.checkpoint_exists(checkpoint):
        raise
      logging.warning('%s was deleted before it was evaluated. Keep more by '
                      '--keep_checkpoint_max.', checkpoint)
      continue
    yield metrics
    last_step = metrics['global_step']
    if last_step >= max_steps:
      return
  logging.warning(
      'No new checkpoint in %s for %d s: evaluation ends %s.',
      estimator.model_dir, timeout_seconds,
      'without one' if last_step is None else f'at step {last_step}')

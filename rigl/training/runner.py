"""Training on TPUEstimator, for all scripts."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Optional, Sequence

from rigl import compat
from rigl.compat import tf
from rigl.training import checkpoints
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
                   params: Optional[dict[str, Any]] = None,
                   tpu: Optional[tpu_lib.TpuSetup] = None) -> Any:
  """A TPUEstimator that runs on CPU or GPU, or on a TPU if one is given.

  Args:
    model_fn: (features, labels, mode, params) -> TPUEstimatorSpec.
    model_dir: folder of checkpoints and summaries.
    seed: of the graph, and so of initial weights.
    train_batch_size: examples in a training batch.
    save_checkpoints_steps: steps between checkpoints; None for none at all.
    keep_checkpoint_max: checkpoints to keep; 0 for all.
    eval_batch_size: examples in an evaluation batch.
    save_summary_steps: steps between the summaries of the graph.
    params: passed to model_fn and input_fn.
    tpu: the TPU, with the replicas that share a batch.

  Returns:
    The TPUEstimator.
  """
  estimator_lib = compat.estimator_module()
  run_config = estimator_lib.tpu.RunConfig(
      **_tpu_run_config(tpu),
      model_dir=model_dir,
      tf_random_seed=seed,
      save_checkpoints_steps=save_checkpoints_steps,
      save_checkpoints_secs=None,
      save_summary_steps=save_summary_steps,
      keep_checkpoint_max=keep_checkpoint_max or None,
      log_step_count_steps=None)

  def model_fn_with_checkpoints(features, labels, mode, params):
    spec = model_fn(features, labels, mode, params)
    # On a TPU the Estimator saves between two loops, when no step is running.
    if mode != 'train' or save_checkpoints_steps is None or tpu is not None:
      return spec
    # The Estimator would run its own before all other hooks: what they write
    # about a step would then be missing beside the checkpoint of the step.
    saver = training_hooks.SaverHook(
        model_dir, save_steps=save_checkpoints_steps)
    return spec._replace(training_hooks=(*spec.training_hooks, saver))

  return estimator_lib.tpu.TPUEstimator(
      model_fn=model_fn_with_checkpoints,
      config=run_config,
      use_tpu=tpu is not None,
      batch_axis=list(tpu.batch_axis) if tpu else None,
      train_batch_size=train_batch_size,
      eval_batch_size=eval_batch_size,
      params=params)


def _tpu_run_config(tpu: Optional[tpu_lib.TpuSetup]) -> dict[str, Any]:
  """The arguments of RunConfig that only a TPU needs."""
  if tpu is None:
    return {}
  return {
      'cluster': tpu.resolver,
      'tpu_config': compat.estimator_module().tpu.TPUConfig(
          iterations_per_loop=tpu.iterations_per_loop, num_shards=tpu.n_cores,
          tpu_job_name=tpu.job_name, per_host_input_for_training=True),
  }


def train_spec(loss: tf.Tensor,
               train_op: tf.Operation,
               make_scaffold: Callable[[], tf.train.Scaffold],
               hooks: Sequence[tf.train.SessionRunHook] = (),
               host_call: Optional[tuple[Callable[..., Any],
                                         dict[str, tf.Tensor]]] = None) -> Any:
  """The TPUEstimatorSpec of a model_fn in mode 'train'.

  Args:
    loss: scalar.
    train_op: one training step.
    make_scaffold: called once the graph of the step stands.
    hooks: run with the training, on the host.
    host_call: (function that writes summaries, its arguments).
  """
  return compat.estimator_module().tpu.TPUEstimatorSpec(
      'train', loss=loss, train_op=train_op, scaffold_fn=make_scaffold,
      training_hooks=list(hooks), host_call=host_call)


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
          hooks: Sequence[tf.train.SessionRunHook] = (),
          saving_listeners: Sequence[Any] = ()) -> bool:
  """Trains until the data end or the global step reaches `max_steps`.

  A checkpoint in the estimator's folder is continued from.

  Args:
    estimator: from `make_estimator`.
    input_fn: gives the training batches, from the next one on.
    max_steps: the global step to stop at; None for the end of the data.
    hooks: further ones of the session.
    saving_listeners: called around each checkpoint.

  Returns:
    Whether training ran to its end, as opposed to a signal that stopped it.

  Raises:
    ValueError: the folder holds a checkpoint of another network or method.
  """
  stop = training_hooks.StopOnSignalHook()
  try:
    estimator.train(
        input_fn, max_steps=max_steps,
        saving_listeners=list(saving_listeners),
        hooks=[training_hooks.CheckpointFitsHook(estimator.model_dir), stop,
               *hooks])
  finally:
    stop.restore()
  return not stop.was_stopped


class _CheckpointFits(tf.train.SessionRunHook):
  """Names what a checkpoint lacks before the session looks for it."""

  def __init__(self, checkpoint: str):
    self._checkpoint = checkpoint

  def begin(self) -> None:
    checkpoints.check_fits(self._checkpoint, {
        v.op.name: v.shape.as_list() for v in tf.global_variables()})


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
    ValueError: the checkpoint cannot be read, or it lacks a variable or has it
      in another shape; names it.
  """
  checkpoints.open_checkpoint(checkpoint)
  return estimator.evaluate(
      input_fn, steps=steps, checkpoint_path=checkpoint,
      hooks=[_CheckpointFits(checkpoint)])


def evaluate_until(estimator: Any,
                   input_fn: Callable[[dict[str, Any]], tf.data.Dataset],
                   max_steps: int,
                   timeout_seconds: float = 3600.,
                   steps: Optional[int] = None
                  ) -> Iterator[dict[str, float]]:
  """Evaluates checkpoints as a running training writes them.

  Ends after the checkpoint of `max_steps`, or when none came for so long.

  Args:
    estimator: from `make_estimator`.
    input_fn: gives every example once.
    max_steps: the global step of the last checkpoint.
    timeout_seconds: to wait for the next checkpoint.
    steps: batches to evaluate, which a TPU must know; None for all.

  Yields:
    The metrics of each checkpoint, as `evaluate`.
  """
  for checkpoint in tf.train.checkpoints_iterator(
      estimator.model_dir, timeout=timeout_seconds):
    metrics = evaluate(estimator, input_fn, checkpoint, steps)
    yield metrics
    if metrics['global_step'] >= max_steps:
      return

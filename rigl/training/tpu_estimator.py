"""Trains and evaluates by TPUEstimator, which needs TensorFlow 2.15.

The only module that uses TPUEstimator. A TPU needs it. On one device it gives
the same bits as session_loop.py.
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence

from rigl.compat import tf
from rigl.training import checkpoints, saving, specs
from rigl.training import tpu as tpu_lib


def _estimator_module() -> Any:
  """tf.estimator, or None if TensorFlow does not have it."""
  try:
    module = tf.estimator
    # The module is loaded lazily, so errors show only when it is used.
    _ = module.tpu.TPUEstimator
  except (AttributeError, ImportError):
    return None
  return module


def is_available() -> bool:
  """Whether the installed TensorFlow has TPUEstimator."""
  return _estimator_module() is not None


def _without_nan(loss: tf.Tensor) -> tf.Tensor:
  """The loss with NaN replaced by infinity.

  An Estimator aborts on NaN before stop_at_nan.NotFiniteHook, used in every training
  without a TPU, can report the step and a remedy.
  """
  return tf.where_v2(tf.math.is_nan(loss), tf.constant(float('inf'), loss.dtype), loss)


class _CheckpointFits(tf.train.SessionRunHook):
  """Checks that a checkpoint fits before the session restores it."""

  def __init__(self, checkpoint: str):
    self._checkpoint = checkpoint

  def begin(self) -> None:
    checkpoints.check_fits(self._checkpoint, checkpoints.names_and_shapes(tf.global_variables()))


class EstimatorLoop(specs.Loop):
  """A loop of TPUEstimator, the attribute `estimator`."""

  def __init__(self, job: specs.Job, tpu: Optional[tpu_lib.TpuSetup] = None):
    """Runs `job` on a TPU; on CPU or GPU if None."""
    self.folder = job.folder
    self._job = job
    self._tpu = tpu
    self._listeners: Sequence[tf.train.CheckpointSaverListener] = ()
    lib = _estimator_module().tpu
    run_config = lib.RunConfig(
      tpu_config=tpu
      and lib.TPUConfig(
        iterations_per_loop=tpu.iterations_per_loop,
        num_shards=tpu.n_cores,
        tpu_job_name=tpu.job_name,
        per_host_input_for_training=True,
      ),
      cluster=tpu and tpu.resolver,
      model_dir=job.folder,
      tf_random_seed=job.seed,
      save_checkpoints_secs=None,
      # On a TPU the Estimator saves between two loops of steps.
      save_checkpoints_steps=job.save_steps if tpu else None,
      save_summary_steps=job.save_summary_steps if tpu else 0,
      keep_checkpoint_max=job.keep_checkpoint_max or None,
      log_step_count_steps=None,
    )
    self.estimator = lib.TPUEstimator(
      model_fn=self._model_fn,
      config=run_config,
      params={},
      use_tpu=tpu is not None,
      batch_axis=list(tpu.batch_axis) if tpu else None,
      train_batch_size=tpu.train_batch_size if tpu else None,
      eval_batch_size=tpu.eval_batch_size if tpu else None,
    )

  def _model_fn(self, features: Any, labels: Any, mode: str, params: dict[str, Any]) -> Any:
    """The TPUEstimatorSpec of a mode."""
    del params
    make_spec = _estimator_module().tpu.TPUEstimatorSpec
    spec = self._job.model_fn(features, labels, mode)
    if mode == 'eval':
      return make_spec(mode, loss=spec.loss, eval_metrics=(spec.metric_fn, list(spec.tensors)))
    hooks = [*spec.hooks, *spec.chief_hooks]
    if not self._tpu and self._job.saving_periods:
      # Save last, so that logs of a step exist when its checkpoint does. The
      # Estimator's own saver would run before all other hooks.
      hooks.append(
        saving.SaverHook(
          self.folder,
          *self._job.saving_periods,
          keep=self._job.keep_checkpoint_max,
          listeners=[*spec.listeners, *self._listeners],
        )
      )
    return make_spec(
      mode,
      loss=spec.loss if self._tpu else _without_nan(spec.loss),
      train_op=spec.train_op,
      scaffold_fn=spec.make_scaffold,
      training_hooks=hooks,
      host_call=spec.host_call and (spec.host_call[0], dict(spec.host_call[1])),
    )

  def _with_params(self, input_fn: specs.InputFn) -> Callable[..., Any]:
    """An input_fn with the signature that TPUEstimator expects."""

    def input_of_host(params: dict[str, Any]) -> tf.data.Dataset:
      if not self._tpu:
        return input_fn()
      _, host_index, n_hosts, _ = params['context'].current_input_fn_deployment()
      return input_fn(host_index, n_hosts)

    return input_of_host

  def train(
    self,
    input_fn: specs.InputFn,
    max_steps: Optional[int],
    hooks: Sequence[tf.train.SessionRunHook],
    listeners: Sequence[tf.train.CheckpointSaverListener],
  ) -> None:
    self._listeners = listeners
    self.estimator.train(
      self._with_params(input_fn),
      max_steps=max_steps,
      hooks=list(hooks),
      saving_listeners=list(listeners) if self._tpu else None,
    )

  def evaluate(
    self, input_fn: specs.InputFn, checkpoint: str, steps: Optional[int]
  ) -> dict[str, Any]:
    return self.estimator.evaluate(
      self._with_params(input_fn),
      steps=steps,
      checkpoint_path=checkpoint,
      hooks=[_CheckpointFits(checkpoint)],
    )

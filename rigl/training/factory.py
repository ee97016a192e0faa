"""Makes optimizers and train ops from configs."""

from __future__ import annotations

import dataclasses
import re
from typing import Mapping, Optional, Sequence

from absl import logging

from rigl import replicas, sparse_optimizers
from rigl.compat import tf
from rigl.core import checks, methods
from rigl.model_pruning import pruning
from rigl.optimizer_wrapper import GradsAndVars
from rigl.training import iterations, stop_at_nan
from rigl.training.config import INNER_OPTIMIZERS, SparsityConfig

SparsityMap = Optional[Mapping[str, float]]

# Optimizers whose slots hold squares, which must not become negative.
_KEEP_SQUARES = (tf.train.AdamOptimizer, tf.train.RMSPropOptimizer, tf.train.AdagradOptimizer)


def make_inner_optimizer(
  name: str, learning_rate: tf.Tensor, momentum: float, use_nesterov: bool
) -> tf.train.Optimizer:
  """The optimizer that trains the weights, one of config.INNER_OPTIMIZERS.

  `momentum` is the coefficient of 'momentum' and 'rmsprop', and `use_nesterov`
  is for 'momentum'.

  Raises:
    ValueError: unknown name.
  """
  checks.one_of('optimizer', name, INNER_OPTIMIZERS)
  if name == 'sgd':
    return tf.train.GradientDescentOptimizer(learning_rate)
  if name == 'momentum':
    return tf.train.MomentumOptimizer(learning_rate, momentum, use_nesterov=use_nesterov)
  if name == 'adam':
    return tf.train.AdamOptimizer(learning_rate)
  if name == 'rmsprop':
    return tf.train.RMSPropOptimizer(learning_rate, momentum=momentum)
  return tf.train.AdagradOptimizer(learning_rate)


def make_optimizer(
  config: SparsityConfig,
  inner: tf.train.Optimizer,
  use_tpu: bool = False,
  custom_sparsity_map: SparsityMap = None,
  pruning_hparams: str = '',
) -> tf.train.Optimizer:
  """Wraps `inner` for the training method of `config`, if that needs it.

  With `use_tpu`, dense gradients are summed over the replicas of a TPU, where
  `inner` is already a CrossShardOptimizer. The map is {layer name: sparsity} of
  exceptions, and `pruning_hparams` 'name=value,...' override those of `config`.
  """
  method = config.make_method()
  if method.when == 'never':
    return inner
  if method.prunes_gradually:
    hparams = pruning_hparams_of(config, custom_sparsity_map)
    return sparse_optimizers.GradualPruningOptimizer(inner, hparams.parse(pruning_hparams))
  if getattr(method, 'initial_acc_scale', 0.0) and isinstance(inner, _KEEP_SQUARES):
    logging.warning(
      'rigl_acc_scale=%g makes squares negative that %s keeps: weights may become NaN.',
      config.rigl_acc_scale,
      inner.get_name(),
    )
  return sparse_optimizers.MethodOptimizer(
    inner,
    method,
    config.seed,
    config.end_sparsity,
    config.mask_init_method,
    custom_sparsity_map,
    config.erk_power_scale,
    use_tpu=use_tpu,
  )


def pruning_hparams_of(
  config: SparsityConfig, custom_sparsity_map: SparsityMap = None
) -> pruning.PruningHParams:
  """The gradual pruning schedule of `config`."""
  method = dataclasses.replace(config, training_method='prune').make_method()
  custom = (custom_sparsity_map or {}).items()
  return pruning.PruningHParams.of(
    method, [f'^{re.escape(layer)}/:{sparsity!r}' for layer, sparsity in custom]
  )


def warn_of_late_pruning(
  config: SparsityConfig, total_steps: int, pruning_hparams: str = ''
) -> None:
  """Warns if training ends before gradual pruning, by a scaled config, reaches its target."""
  if not config.method.prunes_gradually:
    return
  hparams = pruning_hparams_of(config).parse(pruning_hparams)
  # Pruning goes by the global step before the training step.
  if hparams.sparsity_function_end_step >= total_steps:
    logging.warning(
      'prune reaches end_sparsity=%g in the training step after step %d, but '
      'training ends at step %d.',
      hparams.target_sparsity,
      hparams.sparsity_function_end_step,
      total_steps,
    )


def annealed_drop_fraction(config: SparsityConfig, step: tf.Tensor) -> Optional[tf.Tensor]:
  """The drop fraction of a mask update in an iteration, due or not.

  A float32 scalar; None for methods that drop nothing. `step` is an integer
  scalar, the global step before the iteration.
  """
  method = config.make_method()
  if not isinstance(method, methods.DropAndGrow):
    return None
  return method.drop_fraction_at(method.seen_step(step))


def compute_gradients(optimizer: tf.train.Optimizer, loss: tf.Tensor) -> GradsAndVars:
  """Gradients of a replica, whose sum over replicas is that of the batch.

  The loss is a scalar, the mean over this replica's part of the batch.
  """
  return optimizer.compute_gradients(replicas.scale_loss(loss))


def make_train_op(
  optimizer: tf.train.Optimizer,
  loss: tf.Tensor,
  global_step: tf.Variable,
  gradients: Optional[GradsAndVars] = None,
  not_finite: Optional[stop_at_nan.NotFiniteHook] = None,
  first_iteration: Optional[int] = None,
  reported: Sequence[Optional[tf.Tensor]] = (),
) -> tf.Operation:
  """One training step, after the ops in the collection UPDATE_OPS, such as moving averages.

  Args:
    optimizer: from `make_optimizer`.
    loss: scalar.
    global_step: int64 scalar variable.
    gradients: from `compute_gradients`, for callers that also use them.
    not_finite: observes loss and gradients of the step; None on a TPU.
    first_iteration: iterations before this session, see training.iterations;
      None to count none, as on a TPU.
    reported: tensors to compute before the step changes variables; Nones are
      left out.
  """
  if gradients is None:
    gradients = compute_gradients(optimizer, loss)
  if not_finite:
    not_finite.observe(loss, gradients)
    reported = [*reported, not_finite.observed]

  def step():
    # The loss is reported as it was before the step: without the dependency a
    # term without gradient could read the weights after it.
    with tf.control_dependencies([loss, *tf.get_collection(tf.GraphKeys.UPDATE_OPS)]):
      return optimizer.apply_gradients(gradients, global_step)

  with tf.control_dependencies([t for t in reported if t is not None]):
    return (
      step() if first_iteration is None else iterations.counted(step, global_step, first_iteration)
    )

"""The one place where a config becomes an optimizer and a train op."""

from __future__ import annotations

import re
from typing import Callable, Mapping, Optional, Sequence

from absl import logging

from rigl import replicas
from rigl.compat import tf
from rigl.core import checks
from rigl.model_pruning import pruning
from rigl.training import finite, iterations
from rigl.training.config import INNER_OPTIMIZERS, SparsityConfig

SparsityMap = Optional[Mapping[str, float]]

# Slots of these must not become negative.
_KEEP_SQUARES = (
    tf.train.AdamOptimizer, tf.train.RMSPropOptimizer,
    tf.train.AdagradOptimizer)


def make_inner_optimizer(name: str, learning_rate: tf.Tensor, momentum: float,
                         use_nesterov: bool) -> tf.train.Optimizer:
  """The optimizer that trains the weights.

  Args:
    name: one of config.INNER_OPTIMIZERS.
    learning_rate: scalar.
    momentum: coefficient of 'momentum' and 'rmsprop'.
    use_nesterov: whether 'momentum' is Nesterov's.

  Raises:
    ValueError: unknown name.
  """
  checks.one_of('optimizer', name, INNER_OPTIMIZERS)
  if name == 'sgd':
    return tf.train.GradientDescentOptimizer(learning_rate)
  if name == 'momentum':
    return tf.train.MomentumOptimizer(
        learning_rate, momentum, use_nesterov=use_nesterov)
  if name == 'adam':
    return tf.train.AdamOptimizer(learning_rate)
  if name == 'rmsprop':
    return tf.train.RMSPropOptimizer(learning_rate, momentum=momentum)
  return tf.train.AdagradOptimizer(learning_rate)


def make_optimizer(config: SparsityConfig,
                   inner: tf.train.Optimizer,
                   use_tpu: bool = False,
                   custom_sparsity_map: SparsityMap = None
                  ) -> tf.train.Optimizer:
  """Wraps `inner` for the training method of `config`.

  Args:
    config: the hyperparameters.
    inner: trains the weights; already a CrossShardOptimizer on a TPU.
    use_tpu: whether to sum dense gradients over the replicas of a TPU.
    custom_sparsity_map: {layer name: sparsity} of exceptions.

  Returns:
    `inner` itself for methods that need no wrapper.
  """
  method = config.method
  if method.optimizer_class is None:
    return inner
  if method.is_dynamic:
    arguments = {
        'begin_step': config.maskupdate_begin_step,
        'end_step': config.maskupdate_end_step,
        'frequency': config.maskupdate_frequency,
        'drop_fraction': config.drop_fraction,
        'drop_fraction_anneal': config.drop_fraction_anneal,
        'grow_init': config.grow_init,
        'stateless_seed_offset': config.seed,
    }
  else:
    arguments = {
        'default_sparsity': config.end_sparsity,
        'mask_init_method': config.mask_init_method,
        'custom_sparsity_map': custom_sparsity_map,
        'erk_power_scale': config.erk_power_scale,
    }
  if method.uses_gradient:
    arguments['use_tpu'] = use_tpu
  if (config.rigl_acc_scale and isinstance(inner, _KEEP_SQUARES) and
      'initial_acc_scale' in method.hyperparameters):
    logging.warning(
        'rigl_acc_scale=%g makes squares negative that %s keeps: weights may '
        'become NaN.', config.rigl_acc_scale, inner.get_name())
  arguments.update({
      argument: getattr(config, field)
      for argument, field in method.hyperparameters.items()
  })
  return method.optimizer_class(inner, **arguments)


def pruning_hparams_of(config: SparsityConfig,
                       custom_sparsity_map: SparsityMap = None
                      ) -> pruning.PruningHParams:
  """The gradual pruning schedule of `config`.

  Args:
    config: the hyperparameters.
    custom_sparsity_map: {layer name: sparsity} of exceptions.
  """
  return pruning.PruningHParams(
      begin_pruning_step=config.pruning_begin_step,
      end_pruning_step=config.pruning_end_step,
      pruning_frequency=config.pruning_frequency,
      threshold_decay=config.threshold_decay,
      target_sparsity=config.end_sparsity,
      sparsity_function_begin_step=config.pruning_begin_step,
      sparsity_function_end_step=config.pruning_end_step,
      weight_sparsity_map=tuple(
          f'^{re.escape(layer)}/:{sparsity!r}'
          for layer, sparsity in (custom_sparsity_map or {}).items()))


def warn_of_late_pruning(config: SparsityConfig, total_steps: int,
                         pruning_hparams: str = '') -> None:
  """Warns of a gradual pruning that does not get as far as it is to.

  Args:
    config: the hyperparameters, already stretched.
    total_steps: the global step at which training ends.
    pruning_hparams: 'name=value,...' that override those of `config`.
  """
  if not config.method.prunes_gradually:
    return
  hparams = pruning_hparams_of(config).parse(pruning_hparams)
  # A pruning goes by the step before the training step that it follows.
  if hparams.sparsity_function_end_step >= total_steps:
    logging.warning(
        'prune reaches end_sparsity=%g in the training step after step %d, but '
        'training ends at step %d.', hparams.target_sparsity,
        hparams.sparsity_function_end_step, total_steps)


def _skip_step_op(config: SparsityConfig, optimizer: tf.train.Optimizer,
                  global_step: tf.Variable) -> tf.Operation:
  """Counts a step that is left out, and so the mask update it would be."""
  if config.method.is_dynamic:
    return optimizer.skip_step_op(global_step)
  return global_step.assign_add(tf.ones_like(global_step)).op


def _train_if(is_finite: tf.Tensor, train: Callable[[], tf.Operation],
              config: SparsityConfig, optimizer: tf.train.Optimizer,
              global_step: tf.Variable,
              skip_pruning: Optional[Callable[[], tf.Operation]]
             ) -> tf.Operation:
  """Runs what `train` builds if `is_finite`, else counts the step."""
  has_drop_fraction = config.method.is_dynamic

  def train_branch():
    with tf.control_dependencies([train()]):
      values = (
          (optimizer.drop_fraction, optimizer.annealed_drop_fraction)
          if has_drop_fraction else (0., 0.))
      return [tf.identity(tf.convert_to_tensor(value, tf.float32))
              for value in values]

  def skip_branch():
    annealed = optimizer.get_drop_fraction(
        optimizer.schedule_step(global_step.read_value()),
        tf.constant(True)) if has_drop_fraction else tf.constant(0.)
    with tf.control_dependencies([annealed]):
      count = _skip_step_op(config, optimizer, global_step)
    if skip_pruning is not None:
      with tf.control_dependencies([count]):
        count = skip_pruning()
    with tf.control_dependencies([count]):
      return [tf.constant(0.), tf.identity(annealed)]

  # The branch that trains is traced first: it creates what the other counts.
  drop_fraction, annealed = tf.cond(is_finite, train_branch, skip_branch)
  if has_drop_fraction:
    # A tensor inside of a branch cannot be fetched.
    optimizer.drop_fraction = drop_fraction
    optimizer.annealed_drop_fraction = annealed
  return drop_fraction.op


def compute_gradients(optimizer: tf.train.Optimizer,
                      loss: tf.Tensor) -> finite.GradsAndVars:
  """The gradients of a replica, whose sum is that of the whole batch.

  Args:
    optimizer: from `make_optimizer`.
    loss: scalar, of this replica's part of the batch.
  """
  return optimizer.compute_gradients(replicas.share_of(loss))


def make_train_op(config: SparsityConfig,
                  optimizer: tf.train.Optimizer,
                  loss: tf.Tensor,
                  global_step: tf.Variable,
                  custom_sparsity_map: SparsityMap = None,
                  pruning_hparams: str = '',
                  gradients: Optional[finite.GradsAndVars] = None,
                  on_nan: str = 'stop',
                  update_ops: Sequence[tf.Operation] = (),
                  first_iteration: Optional[int] = None) -> tf.Operation:
  """One training step, with gradual pruning after it if that is the method.

  Args:
    config: the hyperparameters.
    optimizer: from `make_optimizer`.
    loss: scalar.
    global_step: int64 scalar variable.
    custom_sparsity_map: {layer name: sparsity} of exceptions.
    pruning_hparams: 'name=value,...' that override those of `config`.
    gradients: from `compute_gradients`, for a caller that looks at them too.
    on_nan: one of config.ON_NAN. With `skip`, a step whose loss or gradients
      are not finite leaves weights, masks, slots and what `update_ops` move as
      they are, and only the counters of steps go on. With `stop`, that is left
      to finite.NotFiniteHook.
    update_ops: run before the step; updates of moving averages.
    first_iteration: iterations before this session, see training.iterations;
      None to count none, as on a TPU.

  Raises:
    ValueError: `skip` for replicas, which would have to agree to skip.
  """
  if (on_nan == 'skip' and
      tf.distribute.get_strategy().num_replicas_in_sync > 1):
    raise ValueError('on_nan=skip does not work with several replicas. Use '
                     'on_nan=stop.')
  if gradients is None:
    gradients = compute_gradients(optimizer, loss)
  is_snipped = getattr(optimizer, 'is_snipped', None)
  is_finite = finite.watch(
      loss, gradients,
      None if is_snipped is None else is_snipped.read_value())
  pruner, step_before = None, None
  if config.method.prunes_gradually:
    hparams = pruning_hparams_of(config, custom_sparsity_map)
    pruner = pruning.Pruning(hparams.parse(pruning_hparams), global_step)
    # Pruning goes by the step as it was before training: nothing that depends
    # on whether to train may run before it is read.
    step_before = global_step.read_value()
    with tf.control_dependencies([step_before]):
      is_finite = tf.identity(is_finite)

  def train():
    if pruner is None:
      return optimizer.apply_gradients(gradients, global_step)
    with tf.control_dependencies([step_before]):
      train_op = optimizer.apply_gradients(gradients, global_step)
    with tf.control_dependencies([train_op]):
      return pruner.conditional_mask_update_op(step_before)

  def step():
    if on_nan == 'stop':
      # The loss is reported as the step finds it: without the dependency a part
      # that has no gradient may see the weights after it.
      with tf.control_dependencies([loss, *update_ops]):
        return train()
    with tf.control_dependencies(
        [finite.only_if(is_finite, update) for update in update_ops]):
      return _train_if(
          is_finite, train, config, optimizer, global_step,
          None if pruner is None else (
              lambda: pruner.skip_update_op(step_before)))

  return step() if first_iteration is None else iterations.counted(
      step, global_step, first_iteration)

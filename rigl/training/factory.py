"""The one place where a config becomes an optimizer and a train op."""

from __future__ import annotations

import re
from typing import Mapping, Optional, Sequence

from rigl.compat import tf
from rigl.model_pruning import pruning
from rigl.training.config import SparsityConfig

SparsityMap = Optional[Mapping[str, float]]
GradsAndVars = Sequence[tuple[Optional[tf.Tensor], tf.Variable]]

INNER_OPTIMIZERS = ('sgd', 'momentum', 'adam', 'rmsprop', 'adagrad')


def make_inner_optimizer(name: str, learning_rate: tf.Tensor, momentum: float,
                         use_nesterov: bool) -> tf.train.Optimizer:
  """The optimizer that trains the weights.

  Args:
    name: one of INNER_OPTIMIZERS.
    learning_rate: scalar.
    momentum: of 'momentum' and 'rmsprop'.
    use_nesterov: of 'momentum'.

  Raises:
    ValueError: unknown name.
  """
  if name == 'sgd':
    return tf.train.GradientDescentOptimizer(learning_rate)
  if name == 'momentum':
    return tf.train.MomentumOptimizer(
        learning_rate, momentum, use_nesterov=use_nesterov)
  if name == 'adam':
    return tf.train.AdamOptimizer(learning_rate)
  if name == 'rmsprop':
    return tf.train.RMSPropOptimizer(learning_rate, momentum=momentum)
  if name == 'adagrad':
    return tf.train.AdagradOptimizer(learning_rate)
  raise ValueError(f'optimizer {name!r} is not one of '
                   f'{", ".join(INNER_OPTIMIZERS)}.')


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
  if method.uses_dense_gradient:
    arguments['use_tpu'] = use_tpu
  arguments.update({
      argument: getattr(config, field)
      for argument, field in method.hyperparameters.items()
  })
  return method.optimizer_class(inner, **arguments)


def pruning_hparams_of(config: SparsityConfig,
                       custom_sparsity_map: SparsityMap = None
                      ) -> pruning.PruningHParams:
  """The gradual pruning schedule of `config`."""
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


def make_train_op(config: SparsityConfig,
                  optimizer: tf.train.Optimizer,
                  loss: tf.Tensor,
                  global_step: tf.Variable,
                  custom_sparsity_map: SparsityMap = None,
                  pruning_hparams: str = '',
                  gradients: Optional[GradsAndVars] = None) -> tf.Operation:
  """One training step, with gradual pruning after it if that is the method.

  Args:
    config: the hyperparameters.
    optimizer: from `make_optimizer`.
    loss: scalar.
    global_step: int64 scalar variable.
    custom_sparsity_map: {layer name: sparsity} of exceptions.
    pruning_hparams: 'name=value,...' that override those of `config`.
    gradients: `optimizer.compute_gradients(loss)`, from a caller that looks at
      them too.
  """
  if gradients is None:
    gradients = optimizer.compute_gradients(loss)
  train_op = optimizer.apply_gradients(gradients, global_step)
  if not config.method.prunes_gradually:
    return train_op
  hparams = pruning_hparams_of(config, custom_sparsity_map)
  pruner = pruning.Pruning(hparams.parse(pruning_hparams), global_step)
  with tf.control_dependencies([train_op]):
    return pruner.conditional_mask_update_op()

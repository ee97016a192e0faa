"""Sparse training methods as wrappers of tf.compat.v1.train optimizers.

    optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
    optimizer = SparseRigLOptimizer(optimizer, begin_step=0, end_step=25000,
                                    frequency=100, drop_fraction=0.3)
    train_op = optimizer.minimize(loss, global_step)

They act on the layers registered by `rigl.model_pruning`.
"""

from __future__ import annotations

import functools
from typing import Mapping, Optional

from rigl.compat import tf
from rigl.core import methods
from rigl.graph_optimizer import SparseOptimizer
from rigl.model_pruning import pruning
from rigl.optimizer_wrapper import OptimizerWrapper, schedule_step
from rigl.sparse_optimizers_base import SparseRigLOptimizerBase, SparseSETOptimizerBase


class PruningGetterTf1Mixin:
  """Finds the masked layers in the registry of rigl.model_pruning."""

  def get_weights(self):
    return pruning.get_weights()

  def get_masks(self):
    return pruning.get_masks()

  def get_masked_weights(self):
    return pruning.get_masked_weights()

  def dense_gradient_sources(self):
    return [layer.dense_gradient_source for layer in pruning.masked_layers()]


class MethodOptimizer(PruningGetterTf1Mixin, SparseOptimizer):
  """Any method of rigl.core.methods, see SparseOptimizer."""


class SparseSETOptimizer(PruningGetterTf1Mixin, SparseSETOptimizerBase):
  """SET, see SparseSETOptimizerBase."""


class SparseRigLOptimizer(PruningGetterTf1Mixin, SparseRigLOptimizerBase):
  """RigL, see SparseRigLOptimizerBase."""


class SparseStaticOptimizer(SparseSETOptimizer):
  """The control experiment of SET, see methods.Static."""

  method_class = methods.Static

  def __init__(
    self,
    optimizer: tf.train.Optimizer,
    begin_step: int,
    end_step: int,
    frequency: int,
    drop_fraction: float = 0.1,
    drop_fraction_anneal: str = 'constant',
    use_locking: bool = False,
    grow_init: str = 'zeros',
    name: str = 'SparseStaticOptimizer',
    stateless_seed_offset: int = 0,
  ):
    """See SparseSETOptimizerBase."""
    super().__init__(
      optimizer,
      begin_step,
      end_step,
      frequency,
      drop_fraction,
      drop_fraction_anneal,
      use_locking,
      grow_init,
      name,
      stateless_seed_offset=stateless_seed_offset,
    )


class SparseMomentumOptimizer(SparseSETOptimizer):
  """SNFS, see methods.SNFS."""

  def __init__(
    self,
    optimizer: tf.train.Optimizer,
    begin_step: int,
    end_step: int,
    frequency: int,
    drop_fraction: float = 0.1,
    drop_fraction_anneal: str = 'constant',
    use_locking: bool = False,
    grow_init: str = 'zeros',
    momentum: float = 0.9,
    use_tpu: bool = False,
    name: str = 'SparseMomentumOptimizer',
    stateless_seed_offset: int = 0,
  ):
    """See SparseRigLOptimizerBase, and methods.SNFS for `momentum`."""
    self.method_class = functools.partial(methods.SNFS, momentum=momentum)
    super().__init__(
      optimizer,
      begin_step,
      end_step,
      frequency,
      drop_fraction,
      drop_fraction_anneal,
      use_locking,
      grow_init,
      name,
      stateless_seed_offset=stateless_seed_offset,
    )
    self._use_tpu = use_tpu


class _KeepBestOptimizer(MethodOptimizer):
  """Keeps the connections of highest score, at given sparsities."""

  _method: methods.Method

  def __init__(
    self,
    optimizer: tf.train.Optimizer,
    default_sparsity: float,
    mask_init_method: str,
    custom_sparsity_map: Optional[Mapping[str, float]] = None,
    use_locking: bool = False,
    use_tpu: bool = False,
    name: Optional[str] = None,
    erk_power_scale: float = 1.0,
  ):
    """See SparseOptimizer."""
    super().__init__(
      optimizer,
      self._method,
      0,
      default_sparsity,
      mask_init_method,
      custom_sparsity_map,
      erk_power_scale,
      use_locking,
      use_tpu,
      name or type(self).__name__,
    )


class SparseSnipOptimizer(_KeepBestOptimizer):
  """SNIP, see methods.SNIP."""

  _method = methods.SNIP()

  @property
  def is_snipped(self) -> tf.Variable:
    """bool scalar variable, whether the masks of the train op are set."""
    return self._get_memory()


class SparseDNWOptimizer(_KeepBestOptimizer):
  """Discovering neural wirings, see methods.DNW."""

  _method = methods.DNW()


class GradualPruningOptimizer(OptimizerWrapper):
  """Gradual pruning by the schedule of rigl.model_pruning.pruning."""

  def __init__(
    self,
    optimizer: tf.train.Optimizer,
    hparams: Optional[pruning.PruningHParams] = None,
    global_step: Optional[tf.Variable] = None,
    use_locking: bool = False,
    name: str = 'GradualPruningOptimizer',
  ):
    """Prunes by a schedule, the default one if None, and by the graph's step if None is given."""
    super().__init__(optimizer, use_locking, name)
    self._pruning = pruning.Pruning(hparams, global_step)

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Trains, then prunes by the global step before training."""
    step = schedule_step(global_step).read_value()
    with tf.control_dependencies([step]):
      trained = self._train_weights(grads_and_vars, global_step, name)
    with tf.control_dependencies([trained]):
      return self._pruning.conditional_mask_update_op(step)

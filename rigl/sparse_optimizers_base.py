"""SET and RigL for any library of masked layers, as in 2020.

A subclass gives `get_weights`, `get_masks` and `get_masked_weights`.
"""

from __future__ import annotations

import functools
from typing import Callable

from rigl.compat import tf
from rigl.core import methods
from rigl.graph_optimizer import SparseOptimizer


class SparseSETOptimizerBase(SparseOptimizer):
  """SET around any library of masked layers, see methods.SET."""

  method_class: Callable[..., methods.DropAndGrow] = methods.SET

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
    name: str = 'SparseSETOptimizer',
    use_stateless: bool = True,
    stateless_seed_offset: int = 0,
  ):
    """Wraps `optimizer`.

    Args:
      optimizer: trains the weights.
      begin_step: first step that may move masks.
      end_step: last such step; negative for no end.
      frequency: steps between updates.
      drop_fraction: share of the active connections that an update moves.
      drop_fraction_anneal: constant, cosine or exponential_<exponent>.
      use_locking: as in tf.train.Optimizer.
      grow_init: initial values of new connections, see rigl.core.grow_init.
      name: name of this optimizer.
      use_stateless: accepted for compatibility; False logs a warning. Random
        numbers are always stateless, so that replicas and resumed runs agree.
      stateless_seed_offset: the user's seed.

    Raises:
      ValueError: a value out of its range or unknown; names the options.
    """
    if not use_stateless:
      tf.logging.warning(
        'use_stateless=False has no effect: draws are stateless, so that '
        'replicas and resumed runs agree.'
      )
    super().__init__(
      optimizer,
      self.method_class(
        begin_step, end_step, frequency, drop_fraction, drop_fraction_anneal, grow_init
      ),
      stateless_seed_offset,
      use_locking=use_locking,
      name=name,
    )


class SparseRigLOptimizerBase(SparseSETOptimizerBase):
  """RigL around any library of masked layers, see methods.RigL."""

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
    initial_acc_scale: float = 0.0,
    use_tpu: bool = False,
    name: str = 'SparseRigLOptimizer',
    stateless_seed_offset: int = 0,
  ):
    """See SparseSETOptimizerBase, and methods.RigL for `initial_acc_scale`.

    `use_tpu` says whether to sum dense gradients over the replicas of a TPU.
    """
    self.method_class = functools.partial(methods.RigL, initial_acc_scale=initial_acc_scale)
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

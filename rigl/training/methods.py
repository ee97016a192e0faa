"""The sparse training methods as rows of a table.

Scripts and the rest of `rigl.training` ask a row what it can do; nobody
compares names.
"""

from __future__ import annotations

import dataclasses
from typing import Mapping, Optional

from rigl import sparse_optimizers
from rigl.compat import tf


@dataclasses.dataclass(frozen=True)
class Method:
  """One training method and its capabilities.

  Attributes:
    description: one line, for help texts.
    paper: where it is described.
    uses_masks: whether layers carry masks at all.
    inits_masks: whether training starts from random masks (or loaded ones)
      rather than from all ones.
    optimizer_class: wraps the inner optimizer; None leaves it alone.
    is_dynamic: whether it moves masks on the schedule of the
      `maskupdate_*` hyperparameters.
    uses_dense_gradient: whether the optimizer takes dense gradients, which
      replicas must sum.
    allows_gradient_grow_init: whether `grow_init` may be made of them.
    hyperparameters: {argument of the optimizer class: field of
      SparsityConfig} of what only this method has.
    skips_gradient_on_update: whether an update step trains nothing and does
      not advance the global step.
    prunes_gradually: whether masks follow the gradual pruning schedule.
  """

  description: str
  paper: str = ''
  uses_masks: bool = True
  inits_masks: bool = True
  optimizer_class: Optional[type[tf.train.Optimizer]] = None
  is_dynamic: bool = False
  uses_dense_gradient: bool = False
  allows_gradient_grow_init: bool = False
  hyperparameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
  skips_gradient_on_update: bool = False
  prunes_gradually: bool = False


METHODS: dict[str, Method] = {
    'baseline': Method(
        'dense training', uses_masks=False, inits_masks=False),
    'scratch': Method('a fixed random mask'),
    'set': Method(
        'drops the smallest weights, grows at random',
        'https://doi.org/10.1038/s41467-018-04316-3',
        optimizer_class=sparse_optimizers.SparseSETOptimizer,
        is_dynamic=True),
    'momentum': Method(
        'SNFS: grows by the averaged dense gradient',
        'https://arxiv.org/abs/1907.04840',
        optimizer_class=sparse_optimizers.SparseMomentumOptimizer,
        is_dynamic=True, uses_dense_gradient=True,
        hyperparameters={'momentum': 's_momentum'}),
    'rigl': Method(
        'grows where the dense gradient is largest',
        'https://arxiv.org/abs/1911.11134',
        optimizer_class=sparse_optimizers.SparseRigLOptimizer,
        is_dynamic=True, uses_dense_gradient=True,
        allows_gradient_grow_init=True, skips_gradient_on_update=True,
        hyperparameters={'initial_acc_scale': 'rigl_acc_scale'}),
    'static': Method(
        'a fixed mask; re-initialises what SET would drop',
        'https://arxiv.org/abs/1911.11134',
        optimizer_class=sparse_optimizers.SparseStaticOptimizer,
        is_dynamic=True),
    'snip': Method(
        'prunes once before training, by |gradient * weight|',
        'https://arxiv.org/abs/1810.02340', inits_masks=False,
        optimizer_class=sparse_optimizers.SparseSnipOptimizer,
        uses_dense_gradient=True),
    'dnw': Method(
        'trains all weights, uses the largest',
        'https://arxiv.org/abs/1906.00586', inits_masks=False,
        optimizer_class=sparse_optimizers.SparseDNWOptimizer,
        uses_dense_gradient=True),
    'prune': Method(
        'gradual magnitude pruning of a dense network',
        'https://arxiv.org/abs/1710.01878', inits_masks=False,
        prunes_gradually=True),
}

"""The sparse training methods as rows of a table.

Scripts and the rest of `rigl.training` ask a row what it can do; nobody
compares names.
"""

from __future__ import annotations

import dataclasses
from typing import Mapping, Optional, Union

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
    optimizer: class that wraps the inner optimizer, or the name of one in
      rigl.sparse_optimizers; None leaves the inner optimizer alone.
    hyperparameters: {argument of the optimizer class: field of
      SparsityConfig} of what only this method has.
    prunes_gradually: whether masks follow the gradual pruning schedule.
  """

  description: str
  paper: str = ''
  uses_masks: bool = True
  inits_masks: bool = True
  optimizer: Union[None, str, type[tf.train.Optimizer]] = None
  hyperparameters: Mapping[str, str] = dataclasses.field(default_factory=dict)
  prunes_gradually: bool = False

  @property
  def optimizer_class(self) -> Optional[type[tf.train.Optimizer]]:
    """The class that `optimizer` is or names."""
    if not isinstance(self.optimizer, str):
      return self.optimizer
    # Loads TensorFlow, which flags do without: they only describe methods.
    from rigl import sparse_optimizers
    return getattr(sparse_optimizers, self.optimizer)

  @property
  def is_dynamic(self) -> bool:
    """Whether it moves masks by the `maskupdate_*` hyperparameters."""
    return self._says('is_dynamic')

  @property
  def uses_gradient(self) -> bool:
    """Whether its masks depend on gradients, which replicas must sum."""
    return self._says('uses_gradient')

  @property
  def allows_gradient_grow_init(self) -> bool:
    """Whether `grow_init` may be made of them."""
    return self._says('allows_gradient_grow_init')

  @property
  def skips_gradient_on_update(self) -> bool:
    """Whether a step that moves masks trains nothing and is not counted."""
    return self._says('skips_gradient_on_update')

  def _says(self, attribute: str) -> bool:
    return getattr(self.optimizer_class, attribute, False)


METHODS: dict[str, Method] = {
    'baseline': Method(
        'dense training', uses_masks=False, inits_masks=False),
    'scratch': Method('a fixed random mask'),
    'set': Method(
        'drops the smallest weights, grows at random',
        'https://doi.org/10.1038/s41467-018-04316-3',
        optimizer='SparseSETOptimizer'),
    'momentum': Method(
        'SNFS: grows by the averaged dense gradient',
        'https://arxiv.org/abs/1907.04840',
        optimizer='SparseMomentumOptimizer',
        hyperparameters={'momentum': 's_momentum'}),
    'rigl': Method(
        'grows where the dense gradient is largest',
        'https://arxiv.org/abs/1911.11134',
        optimizer='SparseRigLOptimizer',
        hyperparameters={'initial_acc_scale': 'rigl_acc_scale'}),
    'static': Method(
        'a fixed mask; re-initialises what SET would drop',
        'https://arxiv.org/abs/1911.11134',
        optimizer='SparseStaticOptimizer'),
    'snip': Method(
        'prunes once before training, by |gradient * weight|',
        'https://arxiv.org/abs/1810.02340', inits_masks=False,
        optimizer='SparseSnipOptimizer'),
    'dnw': Method(
        'trains all weights, uses the largest',
        'https://arxiv.org/abs/1906.00586', inits_masks=False,
        optimizer='SparseDNWOptimizer'),
    'prune': Method(
        'gradual magnitude pruning of a dense network',
        'https://arxiv.org/abs/1710.01878', inits_masks=False,
        prunes_gradually=True),
}

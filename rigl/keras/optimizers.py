"""The methods of rigl.core.methods as optimizers of Keras.

All take the arguments of `SparseOptimizer` and the hyperparameters of their
method as keywords; `help(rigl.keras.RigL)` lists them.
"""

from __future__ import annotations

import keras

from rigl.core import methods
from rigl.keras.sparse_optimizer import SparseOptimizer

_register = keras.saving.register_keras_serializable('rigl')


@_register
class RigL(SparseOptimizer):
  """Grows where the dense gradient is largest, https://arxiv.org/abs/1911.11134.

  Every `frequency` steps, from begin_step to end_step, a batch is used to
  replace `drop_fraction` of the connections instead of training.
  """

  method_class = methods.RigL


@_register
class SET(SparseOptimizer):
  """Grows at random, https://doi.org/10.1038/s41467-018-04316-3."""

  method_class = methods.SET


@_register
class SNFS(SparseOptimizer):
  """Grows by the averaged dense gradient, https://arxiv.org/abs/1907.04840.

  Stores that average, which is as large as the dense network.
  """

  method_class = methods.SNFS


@_register
class Static(SparseOptimizer):
  """A fixed mask whose smallest weights restart, the control of SET."""

  method_class = methods.Static


@_register
class Scratch(SparseOptimizer):
  """A fixed mask."""

  method_class = methods.Scratch


@_register
class SNIP(SparseOptimizer):
  """Prunes once, by the first batch, https://arxiv.org/abs/1810.02340.

  That batch does not train the weights.
  """

  method_class = methods.SNIP


@_register
class DNW(SparseOptimizer):
  """Trains all weights, uses the largest, https://arxiv.org/abs/1906.00586.

  Stores the weights of inactive connections too. A `kernel_regularizer` acts
  only on the active ones, which then fall below the others: use the
  weight_decay of the inner optimizer, which acts on all.
  """

  method_class = methods.DNW


@_register
class GradualPruning(SparseOptimizer):
  """Prunes a dense network step by step, https://arxiv.org/abs/1710.01878.

  The sparsity rises from `initial_sparsity` at begin_step to the final one at
  end_step, or up to `frequency` steps later.
  """

  method_class = methods.GradualPruning

  @classmethod
  def hyperparameters(cls):
    """The same hyperparameters of the schedule as for other methods."""
    found = super().hyperparameters()
    found['end_step'] = found['end_step'].replace(default=1000)
    names = 'begin_step end_step frequency initial_sparsity exponent threshold_decay'
    return {name: found[name] for name in names.split()}

  @classmethod
  def make_method(cls, sparsities, **hyperparameters):
    """See SparseOptimizer."""
    cls.check_hyperparameters(hyperparameters)
    values = {name: parameter.default for name, parameter in cls.hyperparameters().items()}
    values.update(hyperparameters)
    begin, end, frequency = (values[name] for name in ('begin_step', 'end_step', 'frequency'))
    # The last update must not come before the end of the ramp.
    first = max(begin, frequency)
    last = first + max(0, -(-(end - first) // frequency)) * frequency
    return methods.GradualPruning(
      **{**values, 'end_step': last},
      target_sparsity=sparsities.highest,
      ramp_begin_step=begin,
      ramp_end_step=end,
    )

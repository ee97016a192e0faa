"""What every optimizer wrapper of this library is made of.

An `OptimizerWrapper` delegates to the optimizer it wraps and asks a subclass
for the masked layers; `DenseGradientMixin` adds dense gradients.
"""

from __future__ import annotations

from typing import Any, Iterable, Optional, Sequence

from rigl import replicas
from rigl.compat import tf

GradsAndVars = Sequence[tuple[Optional[tf.Tensor], tf.Variable]]


def root_variable(name: str, shape: Sequence[int], dtype: tf.DType,
                  value: Any) -> tf.Variable:
  """A non-trainable variable whose name has no enclosing scope.

  Args:
    name: of the variable.
    shape: of the variable.
    dtype: of the variable.
    value: it starts with, everywhere.
  """
  # Of the graph's kind: a resource variable assigned from a reference variable
  # (the global step, say) would share its memory and change along with it.
  root = tf.VariableScope(reuse=replicas.reuses_variables(), name='')
  with tf.init_scope(), tf.variable_scope(root, auxiliary_name_scope=False):
    return tf.get_variable(
        name, shape, dtype, tf.constant_initializer(value),
        trainable=False)


class OptimizerWrapper(tf.train.Optimizer):
  """Delegates to the wrapped optimizer whatever it does not change."""

  def __init__(self, optimizer: tf.train.Optimizer, use_locking: bool,
               name: str):
    if not isinstance(optimizer, tf.train.Optimizer):
      raise ValueError('optimizer must be a tf.compat.v1.train.Optimizer, got '
                       f'{optimizer!r}.')
    super().__init__(use_locking, name)
    self._optimizer = optimizer

  def compute_gradients(self, loss, *args, **kwargs) -> GradsAndVars:
    return self._optimizer.compute_gradients(loss, *args, **kwargs)

  def apply_gradients(self, grads_and_vars: GradsAndVars, global_step=None,
                      name: Optional[str] = None) -> tf.Operation:
    """One step of the method, on every replica if there are several.

    Args:
      grads_and_vars: from `compute_gradients`.
      global_step: incremented by the wrapped optimizer. When None the method
        reads the graph's global step, which then does not advance.
      name: of the gradient op.

    Returns:
      The train op.
    """
    if replicas.in_replica():
      return replicas.update_each(self, grads_and_vars, global_step, name)
    return self.apply_local_gradients(grads_and_vars, global_step, name)

  def apply_local_gradients(self, grads_and_vars: GradsAndVars,
                            global_step: Optional[tf.Variable],
                            name: Optional[str]) -> tf.Operation:
    """`apply_gradients` for the one copy of the variables on this device.

    Gradients, dense ones included, are those of the whole batch. A method
    that does more than to train overrides this one.

    Args:
      grads_and_vars: summed over replicas.
      global_step: as in `apply_gradients`.
      name: of the gradient op.
    """
    return self._train_weights(grads_and_vars, global_step, name)

  def _train_weights(self, grads_and_vars: GradsAndVars,
                     global_step: Optional[tf.Variable],
                     name: Optional[str]) -> tf.Operation:
    """Has the wrapped optimizer apply gradients."""
    inner = self._optimizer
    if not replicas.is_updating():
      return inner.apply_gradients(grads_and_vars, global_step, name)
    if isinstance(inner, OptimizerWrapper):
      return inner.apply_local_gradients(grads_and_vars, global_step, name)
    return inner.apply_gradients(
        grads_and_vars, global_step, name, skip_gradients_aggregation=True)

  def create_slots(self, var_list: Sequence[tf.Variable]) -> None:
    """Creates, ahead of its time, every variable a step will ask for.

    Args:
      var_list: the variables that are trained.
    """
    if isinstance(self._optimizer, OptimizerWrapper):
      self._optimizer.create_slots(var_list)
    else:
      # The part of a tf.train.Optimizer that subclasses implement.
      self._optimizer._create_slots(var_list)

  def share_slots(self, other: OptimizerWrapper) -> None:
    """Makes the slots of `other`, the same wrapper elsewhere, its own.

    Args:
      other: a wrapper of the same class.
    """
    self._optimizer = other._optimizer

  def get_slot(self, var, name):
    return self._optimizer.get_slot(var, name)

  def get_slot_names(self):
    """As tf.train.Optimizer.get_slot_names, of the wrapped optimizer."""
    return self._optimizer.get_slot_names()

  def variables(self):
    return self._optimizer.variables()

  def get_weights(self) -> Sequence[tf.Variable]:
    """The masked weight variables."""
    raise NotImplementedError

  def get_masks(self) -> Sequence[tf.Variable]:
    """The mask variables, in the order of `get_weights()`."""
    raise NotImplementedError

  def get_masked_weights(self) -> Sequence[tf.Tensor]:
    """The tensors mask * weights, in the order of `get_weights()`."""
    raise NotImplementedError


class DenseGradientMixin:
  """Adds dense gradients to `compute_gradients` without a second backward pass.

  The dense gradient is that of the loss with respect to a masked weights
  tensor. It lies on the way to the weights' own gradient, so asking for both
  at once costs one backward pass.

  Attributes:
    _weight2masked_grads: {weights.name: dense gradient}, filled by
      `compute_gradients`.
  """

  def compute_gradients(self, loss, var_list: Optional[Iterable] = None,
                        **kwargs) -> GradsAndVars:
    """As tf.train.Optimizer.compute_gradients.

    Raises:
      ValueError: the loss does not depend on a masked layer; names it.
    """
    if var_list is None:
      var_list = tf.trainable_variables()
    var_list = list(var_list)
    masked_weights = list(self.get_masked_weights())
    gradients = self._optimizer.compute_gradients(
        loss, var_list=var_list + masked_weights, **kwargs)
    self._set_masked_grads([g for g, _ in gradients[len(var_list):]])
    return gradients[:len(var_list)]

  def _set_masked_grads(self, dense_gradients: Sequence[tf.Tensor]) -> None:
    pairs = list(zip(dense_gradients, self.get_weights()))
    for gradient, weights in pairs:
      if gradient is None:
        raise ValueError(
            f'The loss does not depend on the masked layer {weights.name}.')
    self._weight2masked_grads = {
        weights.name: gradient for gradient, (_, weights) in zip(
            self._sum_over_replicas(pairs), pairs)}

  def _sum_over_replicas(
      self, pairs: Sequence[tuple[tf.Tensor, tf.Variable]]
  ) -> Sequence[tf.Tensor]:
    """The gradients of (gradient, weights) pairs, of the whole batch.

    Growth must rank the same gradient on every replica, and not that of one
    shard.
    """
    if self._use_tpu:
      return [tf.tpu.cross_replica_sum(gradient) for gradient, _ in pairs]
    if replicas.in_replica():
      return replicas.sum_over(pairs)
    return [gradient for gradient, _ in pairs]

  def dense_gradient(self, weights: tf.Variable) -> tf.Tensor:
    """The dense gradient of a masked layer, [...] like `weights`.

    Args:
      weights: variable of the layer.

    Raises:
      ValueError: `compute_gradients` of this optimizer was not called.
    """
    if weights.name not in getattr(self, '_weight2masked_grads', {}):
      raise ValueError(
          f'No dense gradient of {weights.name}: call compute_gradients (or '
          'minimize) of this optimizer before apply_gradients.')
    return self._weight2masked_grads[weights.name]

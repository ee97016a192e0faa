"""The base class of all optimizer wrappers of this library.

An `OptimizerWrapper` delegates to the optimizer that it wraps. Subclasses give
the masked layers.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterable, Optional, Sequence

from rigl import replicas, subgraphs
from rigl.compat import tf

GradsAndVars = Sequence[tuple[Optional[tf.Tensor], tf.Variable]]

# Marked stateful by TensorFlow, but deterministic.
_REPEATABLE = ('RestoreV2',)
# Collection of the global steps that a train op uses to set masks at step 0.
_CLAIMED_STEPS = 'rigl/claimed_steps'


def root_variable(name: str, shape: Sequence[int], dtype: tf.DType, value: Any) -> tf.Variable:
  """A non-trainable variable whose name has no enclosing scope, filled with `value`.

  The name gets a number at its end if the graph has a variable of that name.
  """
  # A variable of the same kind as the graph's: a resource variable assigned
  # from a reference variable, such as the global step, would share its memory
  # and change with it.
  root = tf.VariableScope(
    reuse=replicas.reuses_variables(), name='', use_resource=tf.get_variable_scope().use_resource
  )
  with tf.init_scope(), tf.variable_scope(root, auxiliary_name_scope=False):
    if not root.reuse:
      taken = {replicas.name_of(v) for v in tf.global_variables()}
      numbered = (f'{name}_{i}' for i in itertools.count(1))
      name = next(free for free in itertools.chain([name], numbered) if free not in taken)
    return tf.get_variable(name, shape, dtype, tf.constant_initializer(value), trainable=False)


def initial_value_of(variable: tf.Variable, must_repeat: bool = False) -> tf.Tensor:
  """The initial value, evaluated lazily in the branch that uses it.

  Args:
    variable: the copy on this device, not a variable of a strategy.
    must_repeat: whether the result must equal the value that the variable was
      initialized with.

  Raises:
    ValueError: `must_repeat`, and the initializer is random without a seed.
  """
  value = variable.initial_value
  stateful = {
    op.type
    for op in subgraphs.ancestors(value)
    if op.op_def.is_stateful and op.type not in _REPEATABLE
  }
  if not stateful:
    return subgraphs.copy_here(value)
  # Workers broadcast initial values, and all of them must do so at once.
  if must_repeat and not any(op_type.startswith('Collective') for op_type in stateful):
    raise ValueError(
      f'grow_init initial_dist needs the initial values of {variable.name}, '
      f'but its initializer ({", ".join(sorted(stateful))}) draws others at '
      'each evaluation. Use one of rigl.model_pruning.initializers.'
    )
  return value


def schedule_step(global_step: Optional[tf.Variable]) -> tf.Variable:
  """The step that a schedule reads: the one a train op advances, or the graph's if None."""
  return global_step if global_step is not None else tf.train.get_or_create_global_step()


def claim_step_0(name: str, global_step: Optional[tf.Variable]) -> None:
  """Checks that a train op has its own global step, to set masks at step 0.

  Raises:
    ValueError: it has none, or shares it with another train op.
  """
  if global_step is None:
    raise ValueError(f'{name} needs a global_step to know the first step.')
  if replicas.reuses_variables():
    return
  if any(step is global_step for step in tf.get_collection(_CLAIMED_STEPS)):
    raise ValueError(
      f'Another train op of {name} advances {global_step.name}, and {name} '
      'sets masks at step 0 only. Give each train op a global_step of '
      'its own: tf.Variable(0, trainable=False, dtype=tf.int64).'
    )
  tf.add_to_collection(_CLAIMED_STEPS, global_step)


class OptimizerWrapper(tf.train.Optimizer):
  """Delegates all methods that it does not override to another optimizer."""

  _has_train_op = False

  def __init__(self, optimizer: tf.train.Optimizer, use_locking: bool, name: str):
    if not isinstance(optimizer, tf.train.Optimizer):
      raise ValueError(f'optimizer must be a tf.compat.v1.train.Optimizer, got {optimizer!r}.')
    super().__init__(use_locking, name)
    self._optimizer = optimizer

  def compute_gradients(self, loss, *args, **kwargs) -> GradsAndVars:
    return self._optimizer.compute_gradients(loss, *args, **kwargs)

  def apply_gradients(
    self, grads_and_vars: GradsAndVars, global_step=None, name: Optional[str] = None
  ) -> tf.Operation:
    """One step of the method, on every replica if there are several.

    Args:
      grads_and_vars: iterable of (gradient, variable) pairs from
        `compute_gradients`, clipped or otherwise changed or not.
      global_step: the variable to advance. If None, the method reads the
        graph's global step, which does not advance.
      name: name of the gradient op.

    Returns:
      The train op.
    """
    grads_and_vars = list(grads_and_vars)
    if self._has_train_op:
      self._begin_another_train_op()
    self._has_train_op = True
    if replicas.in_replica():
      return self._apply_on_replicas(grads_and_vars, global_step, name)
    return self.apply_local_gradients(grads_and_vars, global_step, name)

  def _apply_on_replicas(
    self, grads_and_vars: GradsAndVars, global_step: Optional[tf.Variable], name: Optional[str]
  ) -> tf.Operation:
    """Applies the sums of the gradients on every replica."""
    pairs = [(g, v) for g, v in grads_and_vars if g is not None]
    if not pairs:
      raise ValueError('No variable has a gradient.')
    variables = [v for _, v in pairs]

    def share_slots(optimizers):
      optimizers[0].create_slots(variables)
      for other in optimizers[1:]:
        other.share_slots(optimizers[0])

    def update(optimizer, step, sums):
      return optimizer.apply_local_gradients(
        list(zip(sums, variables)), None if global_step is None else step, name
      )

    return replicas.update_each_device(self, pairs, schedule_step(global_step), share_slots, update)

  def _begin_another_train_op(self) -> None:
    """Forgets the variables of this train op, so that the next gets its own.

    Each train op updates the masks of its layers on its own schedule.
    """

  def apply_local_gradients(
    self, grads_and_vars: GradsAndVars, global_step: Optional[tf.Variable], name: Optional[str]
  ) -> tf.Operation:
    """`apply_gradients` for the copies of the variables on this device.

    All gradients, dense ones too, are those of the whole batch, summed over
    replicas. Subclasses override this to do more than train.
    """
    return self._train_weights(grads_and_vars, global_step, name)

  def _train_weights(
    self, grads_and_vars: GradsAndVars, global_step: Optional[tf.Variable], name: Optional[str]
  ) -> tf.Operation:
    """Applies gradients with the wrapped optimizer."""
    inner = self._optimizer
    if not replicas.in_update():
      return inner.apply_gradients(grads_and_vars, global_step, name)
    if isinstance(inner, OptimizerWrapper):
      return inner.apply_local_gradients(grads_and_vars, global_step, name)
    return inner.apply_gradients(grads_and_vars, global_step, name, skip_gradients_aggregation=True)

  def _trained_layers(self, grads_and_vars: GradsAndVars) -> list[tuple[tf.Variable, tf.Variable]]:
    """(mask, weights) of the masked layers among the trained variables, checked."""
    layers = list(zip(self.get_masks(), self.get_weights()))
    if not layers:
      raise ValueError('The graph has no masked layers; build them with rigl.model_pruning.layers.')
    if tf.control_flow_v2_enabled() and not all(hasattr(mask, 'handle') for mask, _ in layers):
      raise ValueError(
        'The masked layers have reference variables, which tf.cond cannot assign here. Call '
        'tf.enable_resource_variables() before they are built, or tf.disable_control_flow_v2().'
      )
    trained = {replicas.name_of(v) for gradient, v in grads_and_vars if gradient is not None}
    return [(mask, weights) for mask, weights in layers if replicas.name_of(weights) in trained]

  def create_slots(self, var_list: Sequence[tf.Variable]) -> None:
    """Creates all variables of a training step ahead of time."""
    if isinstance(self._optimizer, OptimizerWrapper):
      self._optimizer.create_slots(var_list)
    else:
      # Subclasses of tf.train.Optimizer create their slots here.
      self._optimizer._create_slots(var_list)

  def _create_slots_first(self, grads_and_vars: GradsAndVars) -> None:
    """Creates slots before the method's own variables, as in 2020."""
    if not replicas.in_update():  # Else they exist already.
      with tf.init_scope():
        OptimizerWrapper.create_slots(
          self, [v for gradient, v in grads_and_vars if gradient is not None]
        )

  def share_slots(self, other: OptimizerWrapper) -> None:
    """Uses the slots of `other`, the wrapper of another replica."""
    self._optimizer = other._optimizer

  def _slot_owner(self) -> tf.train.Optimizer:
    """The innermost wrapped optimizer, which has the slots."""
    owner = self._optimizer
    # The wrapper for mixed precision does not report the slots inside it.
    while not owner.get_slot_names() and isinstance(
      getattr(owner, '_optimizer', None), tf.train.Optimizer
    ):
      owner = owner._optimizer
    return owner

  def get_slot(self, var, name):
    return self._slot_owner().get_slot(var, name)

  def get_slot_names(self):
    """As tf.train.Optimizer.get_slot_names, of the wrapped optimizer."""
    return self._slot_owner().get_slot_names()

  def _reset_slots(
    self,
    weights: tf.Variable,
    where: tf.Tensor,
    values: Callable[[tf.Variable, tf.Variable], tf.Tensor],
  ) -> tf.Operation:
    """Sets every slot of `weights` to values(weights, slot) at `where`.

    A slot whose shape differs from that of the weights (e.g. a norm) has no
    value per connection: it is left unchanged, with a warning.
    """
    resets = []
    for name in self.get_slot_names():
      slot = self.get_slot(weights, name)
      if slot is None:
        continue
      if slot.shape != weights.shape:
        tf.logging.warning(
          'The slot %s of shape %s is not reset at new connections of %s.',
          slot.name,
          slot.shape,
          weights.name,
        )
      else:
        resets.append(slot.assign(tf.where(where, values(weights, slot), slot.read_value())))
    return tf.group(*resets)

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

  def dense_gradient_sources(self) -> Sequence[Any]:
    """Tensors to differentiate by for dense gradients, one per layer."""
    return self.get_masked_weights()

  def compute_dense_gradients(
    self, loss: tf.Tensor, var_list: Optional[Iterable] = None, *args: Any, **kwargs: Any
  ) -> tuple[GradsAndVars, list[tuple[tf.Tensor, tf.Variable]]]:
    """Ordinary and dense gradients in one backward pass.

    The dense gradient is the gradient of the loss with respect to
    mask * weights. Backpropagation computes it on the way to the gradient of
    the weights, so it costs nothing extra.

    Takes the arguments of tf.train.Optimizer.compute_gradients.

    Returns:
      (gradient, variable) pairs, and (dense gradient, weights) pairs of the
      masked layers among them.

    Raises:
      ValueError: the loss does not depend on a masked layer whose weights are
        in `var_list`; names it.
    """
    if var_list is None:
      var_list = tf.trainable_variables()
    var_list = list(var_list)
    names = {replicas.name_of(v) for v in var_list}
    layers = [
      (weights, source)
      for weights, source in zip(self.get_weights(), self.dense_gradient_sources())
      if replicas.name_of(weights) in names
    ]
    pairs = self._optimizer.compute_gradients(
      loss, var_list + [source for _, source in layers], *args, **kwargs
    )
    dense = []
    for (gradient, _), (weights, _) in zip(pairs[len(var_list) :], layers):
      if gradient is None:
        raise ValueError(
          f'The loss does not depend on the masked layer {weights.name}. (tf.recompute_grad hides '
          'it: give the function the masked weights as an argument.)'
        )
      # The gradient of an embedding lookup is an IndexedSlices.
      dense.append((tf.convert_to_tensor(gradient), weights))
    return pairs[: len(var_list)], dense

"""The parts of a sparse optimizer that differ between the backends of Keras.

TensorFlow runs a step on each replica of a `tf.distribute` strategy, and a
branch of tf.cond may assign variables. In JAX a branch must return their values
instead. PyTorch runs eagerly.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Sequence

import keras

from rigl.core import arrays


class Backend:
  """PyTorch; base class of the other backends."""

  @property
  def is_tracing(self) -> bool:
    """Whether a graph is being traced."""
    return False

  def once(self, step: Callable[[Sequence[Any]], None], grads: Sequence[Any]) -> None:
    """Runs step(grads) once for all replicas."""
    step(grads)

  def on_replicas(self, function: Callable[[Sequence[Any]], None], grads: Sequence[Any]) -> None:
    """Runs function(grads) on each replica, with its gradients. Call it within `once`."""
    function(grads)

  def total(self, grad: Any, variable: Any) -> Any:
    """The sum of the gradient of a variable over the replicas, dense. Call it within `once`."""
    del variable
    return arrays.of(grad).asarray(grad)

  def branch(
    self,
    condition: Any,
    if_true: Callable[[], None],
    if_false: Callable[[], None],
    variables: Sequence[Any],
  ) -> None:
    """Runs one of two functions by a bool scalar; `variables` are all that either may assign."""
    del variables
    keras.ops.cond(condition, if_true, if_false)

  def run_eagerly(self, function: Callable[[], None]) -> None:
    """Runs a function now, even while a graph is traced."""
    function()

  def has_value(self, variable: Any) -> bool:
    """Whether a variable has a value. Call it within `run_eagerly`."""
    return getattr(variable, '_value', None) is not None

  def update(self, variable: Any, function: Callable[..., Any], *others: Any) -> None:
    """Assigns function(value, *values of others). Call it within `once`."""
    variable.assign(function(*(arrays.of(v).asarray(v) for v in (variable, *others))))


class _Jax(Backend):
  """JAX: branches return the values of variables."""

  def branch(self, condition, if_true, if_false, variables):
    before = [(v, v.value) for v in variables]

    def values_after(function):
      with keras.StatelessScope(state_mapping=before) as scope:
        function()
      return [scope.get_current_value(v) for v in variables]

    after = keras.ops.cond(condition, lambda: values_after(if_true), lambda: values_after(if_false))
    for variable, value in zip(variables, after):
      variable.assign(value)


class _TensorFlow(Backend):
  """TensorFlow: replicas, and graphs with uninitialized variables."""

  def __init__(self):
    from rigl.compat import tf2

    self._tf = tf2

  @property
  def is_tracing(self):
    return not self._tf.executing_eagerly()

  def once(self, step, grads):
    tf = self._tf
    if self._is_outside_replicas():
      raise ValueError(
        'apply() was called outside of the replicas of a tf.distribute strategy. Call it in the '
        'function given to strategy.run.'
      )
    tf.__internal__.distribute.interim.maybe_merge_call(
      lambda strategy, grads: step(grads), tf.distribute.get_strategy(), list(grads)
    )

  def _is_outside_replicas(self):
    return self._tf.distribute.in_cross_replica_context()

  def on_replicas(self, function, grads):
    tf = self._tf

    def run(grads):
      # Without the identity, a branch could not sum the gradients.
      function([None if g is None else tf.identity(g) for g in grads])

    if self._is_outside_replicas():
      tf.distribute.get_strategy().extended.call_for_each_replica(run, args=(grads,))
    else:
      run(grads)

  def total(self, grad, variable):
    tf = self._tf
    if self._is_outside_replicas():
      grad = tf.distribute.get_strategy().extended.reduce_to(
        tf.distribute.ReduceOp.SUM, grad, variable.value
      )
    if isinstance(grad, tf.IndexedSlices):  # That of an embedding, whose shape is unknown.
      return tf.ensure_shape(tf.convert_to_tensor(grad), variable.shape)
    return tf.convert_to_tensor(grad)

  def branch(self, condition, if_true, if_false, variables):
    def run(function):
      function()
      return self._tf.constant(True)

    self._tf.cond(condition, lambda: run(if_true), lambda: run(if_false))

  def run_eagerly(self, function):
    tf = self._tf

    def now(create, **kwargs):
      # Else a function that creates variables is traced twice.
      return create(**{**kwargs, 'experimental_enable_variable_lifting': False})

    with tf.init_scope(), tf.variable_creator_scope(now):
      function()

  def has_value(self, variable):
    # A distributed variable is initialized if all its copies are.
    return bool(variable.value.is_initialized())

  def update(self, variable, function, *others):
    tf = self._tf
    if not self._is_outside_replicas():
      super().update(variable, function, *others)
      return
    tf.distribute.get_strategy().extended.update(
      variable.value,
      lambda value, *values: value.assign(
        function(tf.convert_to_tensor(value), *map(tf.convert_to_tensor, values))
      ),
      args=tuple(v.value for v in others),
      group=False,
    )


@functools.cache
def current() -> Backend:
  """The backend of Keras.

  Raises:
    ValueError: rigl does not support this backend.
  """
  known = {'tensorflow': _TensorFlow, 'jax': _Jax, 'torch': Backend}
  name = keras.backend.backend()
  if name not in known:
    raise ValueError(
      f'rigl.keras trains on the Keras backends {", ".join(known)}, not on {name!r}. Set the '
      'environment variable KERAS_BACKEND to one of them before Keras is imported.'
    )
  return known[name]()

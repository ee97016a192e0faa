"""Training on the replicas of a tf.distribute strategy, in graph mode.

Each replica holds a copy of all variables, weights, masks and slots alike. The
copies stay equal bit for bit as long as every replica does the same with the
same numbers: gradients are summed over replicas, and all draws are stateless.

A tf.train.Optimizer sums inside of `apply_gradients`, by meeting the other
replicas. They cannot meet inside of a condition, where RigL needs to train.
So here they meet before: they sum all gradients and create all variables, at
every step, and then each device goes on with its own copy as if it was alone.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence, TypeVar

from rigl.compat import tf

_Own = TypeVar('_Own')


def in_replica() -> bool:
  """Whether the code being run builds one replica of several."""
  return tf.distribute.has_strategy() and (
      not tf.distribute.in_cross_replica_context())


def in_update() -> bool:
  """Whether the code being run builds one device's part of a common update."""
  return tf.distribute.has_strategy() and (
      tf.distribute.in_cross_replica_context())


def reuses_variables() -> bool:
  """Whether another replica has created the variables of this one."""
  return in_replica() and bool(tf.get_variable_scope().reuse)


def copies(variable: tf.Variable) -> Sequence[tf.Variable]:
  """The copies of a variable in this process, one for each of its replicas.

  Args:
    variable: variable of a strategy, or an ordinary one.
  """
  return getattr(variable, 'values', (variable,))


def name_of(variable: tf.Variable) -> str:
  """The name of a variable without ':0', the same on all replicas.

  Args:
    variable: variable of a strategy, or an ordinary one.
  """
  # Not that of its op: the copy on another replica has one of its own.
  return variable.name.partition(':')[0]


def on_each_device(build: Callable[[], tf.Operation]) -> tf.Operation:
  """Builds an op for each device, which sees its own copies of variables.

  Inside of it, unlike in a replica, conditions may assign variables.

  Args:
    build: builds what does the same with the same values everywhere.

  Returns:
    The op that does it on all devices, or `build()` without replicas.
  """
  if not in_replica():
    return build()

  return tf.distribute.get_replica_context().merge_call(
      lambda strategy: strategy.extended.update(
          tf.train.get_or_create_global_step(), lambda _: build()))


def mean(tensor: tf.Tensor) -> tf.Tensor:
  """The mean of a tensor over all replicas, or the tensor itself outside one.

  All processes must compute it at the same step, or the others wait forever:
  a model_fn gives it to the session loop, as one of `means` of its TrainSpec.
  """
  if not in_replica():
    return tensor
  return _reduce(tf.distribute.ReduceOp.MEAN, tensor)


def _reduce(how: Any, tensor: tf.Tensor) -> tf.Tensor:
  return tf.distribute.get_replica_context().merge_call(
      lambda strategy, tensors: strategy.reduce(how, tensors, axis=None),
      args=(tensor,))


def scale_loss(loss: tf.Tensor) -> tf.Tensor:
  """What this replica adds to the loss of the whole batch.

  The gradients of all replicas are summed, so that each takes that of its loss
  divided by their number.

  Args:
    loss: scalar, the mean over this replica's part of the batch.
  """
  if not in_replica():
    return loss
  return loss * (1. / tf.distribute.get_strategy().num_replicas_in_sync)


def differences(tensor: tf.Tensor) -> tf.Tensor:
  """Where a tensor is not the same on all replicas, bool of its shape.

  All processes must compute it at the same step, as with `mean`.

  Args:
    tensor: int64 of this replica.
  """
  # Against the sum: what differs in one replica differs there in all of them,
  # or in all but one.
  n = tf.distribute.get_strategy().num_replicas_in_sync
  total = _reduce(tf.distribute.ReduceOp.SUM, tensor)
  differs = tf.cast(tf.not_equal(total, n * tensor), tf.int64)
  return _reduce(tf.distribute.ReduceOp.SUM, differs) > 0


def all_reduce_sum(pairs: Sequence[tuple[tf.Tensor, tf.Variable]]
            ) -> list[tf.Tensor]:
  """The sums of (tensor, variable it belongs to) over all replicas.

  Args:
    pairs: (tensor, variable) of this replica.

  Returns:
    the sums, on the device of this replica's copies of the variables.
  """
  # The all_reduce of a replica looks for gradients and finds no variables.
  return tf.distribute.get_replica_context().merge_call(
      lambda strategy, pairs: strategy.extended.batch_reduce_to(
          tf.distribute.ReduceOp.SUM, pairs), args=(list(pairs),))


def update_each_device(
    own: _Own,
    pairs: Sequence[tuple[tf.Tensor, tf.Variable]],
    anchor: tf.Variable,
    prepare: Callable[[Sequence[_Own]], None],
    update: Callable[[_Own, tf.Variable, Sequence[tf.Tensor]], tf.Operation]
) -> tf.Operation:
  """Updates all devices with the sums of tensors over the replicas.

  Args:
    own: what this replica updates with, such as its optimizer.
    pairs: (tensor, variable it belongs to) of this replica.
    anchor: variable with a copy on each device.
    prepare: called once, with `own` of all replicas of this process; creates
      variables.
    update: builds the op of a device from its `own`, its copy of `anchor` and
      the sums.

  Returns:
    The op that updates all replicas.
  """

  def merge(strategy, own, pairs):
    sums = strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.SUM, pairs)
    with tf.init_scope():
      prepare(strategy.experimental_local_results(own))
    return strategy.extended.update(
        anchor, lambda anchor, own, sums: update(own, anchor, sums),
        args=(own, sums))

  return tf.distribute.get_replica_context().merge_call(
      merge, args=(own, list(pairs)))

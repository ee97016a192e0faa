"""Training on the replicas of a tf.distribute strategy, in graph mode.

Each replica holds a copy of all variables: weights, masks and slots. The copies
stay equal bit for bit, because gradients are summed over replicas and random
numbers are stateless, so that every replica does the same computation.

A tf.train.Optimizer sums gradients inside `apply_gradients`, by a merge call.
TensorFlow allows no merge call inside tf.cond, where RigL trains. So here the
merge call comes first, at every step: it sums all gradients and creates all
variables. Then each device updates its own copies as if it were alone.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence, TypeVar

from rigl.compat import tf

_Own = TypeVar('_Own')


def in_replica() -> bool:
  """Whether the graph of one of several replicas is being built."""
  return tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()


def in_update() -> bool:
  """Whether the graph of one device's part of an update is being built."""
  return tf.distribute.has_strategy() and tf.distribute.in_cross_replica_context()


def reuses_variables() -> bool:
  """Whether another replica has created the variables of this one."""
  return in_replica() and bool(tf.get_variable_scope().reuse)


def copies(variable: tf.Variable) -> Sequence[tf.Variable]:
  """The copies of a variable, of a strategy or not, on the replicas of this process."""
  return getattr(variable, 'values', (variable,))


def name_of(variable: tf.Variable) -> str:
  """The name of a variable without ':0', the same on all replicas."""
  # Not the name of its op, which differs between replicas.
  return variable.name.partition(':')[0]


def on_each_device(build: Callable[[], tf.Operation]) -> tf.Operation:
  """The same op on each device, on that device's copies of the variables.

  Unlike in a replica, tf.cond may assign variables inside it. Without replicas
  it is `build()`.
  """
  if not in_replica():
    return build()
  return tf.distribute.get_replica_context().merge_call(
    lambda strategy: strategy.extended.update(
      tf.train.get_or_create_global_step(), lambda _: build()
    )
  )


def mean(tensor: tf.Tensor) -> tf.Tensor:
  """The mean of a tensor over all replicas, or the tensor itself outside one.

  A collective operation: all processes must run it at the same step, or the
  others wait forever. A model_fn therefore lists it in `replica_means` of its
  TrainSpec, which the session loop runs at each step.
  """
  if not in_replica():
    return tensor
  return _reduce(tf.distribute.ReduceOp.MEAN, tensor)


def _reduce(how: Any, tensor: tf.Tensor) -> tf.Tensor:
  return tf.distribute.get_replica_context().merge_call(
    lambda strategy, tensors: strategy.reduce(how, tensors, axis=None), args=(tensor,)
  )


def scale_loss(loss: tf.Tensor) -> tf.Tensor:
  """The loss of this replica divided by the number of replicas.

  The loss is a scalar, the mean over this replica's part of the batch. The sum
  over the replicas is then the mean loss of the whole batch, and the sum of
  their gradients is its gradient.
  """
  if not in_replica():
    return loss
  return loss * (1.0 / tf.distribute.get_strategy().num_replicas_in_sync)


def differences(tensor: tf.Tensor) -> tf.Tensor:
  """Where an int64 tensor is not the same on all replicas, bool of its shape.

  A collective operation, see `mean`.
  """
  # Compared with the mean: if values differ, at least one replica differs from
  # it, and the second sum tells all replicas.
  n = tf.distribute.get_strategy().num_replicas_in_sync
  total = _reduce(tf.distribute.ReduceOp.SUM, tensor)
  differs = tf.cast(tf.not_equal(total, n * tensor), tf.int64)
  return _reduce(tf.distribute.ReduceOp.SUM, differs) > 0


def all_reduce_sum(pairs: Sequence[tuple[tf.Tensor, tf.Variable]]) -> list[tf.Tensor]:
  """The sums of tensors over all replicas.

  `pairs` are (tensor of this replica, variable on whose device to put the sum).
  """
  # ReplicaContext.all_reduce places its result without regard to variables.
  return tf.distribute.get_replica_context().merge_call(
    lambda strategy, pairs: strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs),
    args=(list(pairs),),
  )


def update_each_device(
  own: _Own,
  pairs: Sequence[tuple[tf.Tensor, tf.Variable]],
  anchor: tf.Variable,
  prepare: Callable[[Sequence[_Own]], None],
  update: Callable[[_Own, tf.Variable, Sequence[tf.Tensor]], tf.Operation],
) -> tf.Operation:
  """Updates all devices with the sums of tensors over the replicas.

  Args:
    own: an object of this replica, such as its optimizer.
    pairs: (tensor, variable it belongs to) of this replica.
    anchor: variable with a copy on each device.
    prepare: called once, with the `own` of each replica of this process;
      creates variables.
    update: builds the op of a device from its `own`, its copy of `anchor` and
      the sums.
  """

  def merge(strategy, own, pairs):
    sums = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
    with tf.init_scope():
      prepare(strategy.experimental_local_results(own))
    return strategy.extended.update(
      anchor, lambda anchor, own, sums: update(own, anchor, sums), args=(own, sums)
    )

  return tf.distribute.get_replica_context().merge_call(merge, args=(own, list(pairs)))

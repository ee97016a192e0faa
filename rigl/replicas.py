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

import contextlib
import threading
from typing import Any, Callable, Iterator, Optional, Sequence

from rigl.compat import tf

_state = threading.local()

_MEANS = 'rigl/means_over_replicas'


def in_replica() -> bool:
  """Whether the code being run builds one replica of several."""
  return tf.distribute.has_strategy() and (
      not tf.distribute.in_cross_replica_context())


def is_updating() -> bool:
  """Whether the code being run builds one device's part of `update_each`."""
  return getattr(_state, 'is_updating', False)


@contextlib.contextmanager
def _updating() -> Iterator[None]:
  _state.is_updating = True
  try:
    yield
  finally:
    _state.is_updating = False


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


def on_each(build: Callable[[], tf.Operation]) -> tf.Operation:
  """Builds an op for each device, which sees its own copies of variables.

  Inside of it, unlike in a replica, conditions may assign variables.

  Args:
    build: builds what does the same with the same values everywhere.

  Returns:
    The op that does it on all devices, or `build()` without replicas.
  """
  if not in_replica():
    return build()

  def meet(strategy):
    def update(_):
      with _updating():
        return build()

    return strategy.extended.update(
        tf.train.get_or_create_global_step(), update)

  return tf.distribute.get_replica_context().merge_call(meet)


def mean(tensor: tf.Tensor) -> tf.Tensor:
  """The mean of a tensor over all replicas, or the tensor itself outside one.

  All processes must compute it at the same step, or the others wait forever:
  so each step has to run `means()` too, see training/session_loop.py.

  Args:
    tensor: tensor of this replica.
  """
  if not in_replica():
    return tensor
  result = _reduce(tf.distribute.ReduceOp.MEAN, tensor)
  tf.add_to_collection(_MEANS, result)
  return result


def _reduce(how: Any, tensor: tf.Tensor) -> tf.Tensor:
  return tf.distribute.get_replica_context().merge_call(
      lambda strategy, tensors: strategy.reduce(how, tensors, axis=None),
      args=(tensor,))


def share_of(loss: tf.Tensor) -> tf.Tensor:
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


def means() -> list[tf.Tensor]:
  """What `mean` has returned to the replicas of this graph."""
  return tf.get_collection(_MEANS)


def counterpart(tensor: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
  """This replica's copy of a tensor that was built on the first replica.

  Args:
    tensor: in the name scope of the first copy of `variable`.
    variable: variable of which each replica has a copy.
  """
  if not in_replica():
    return tensor
  here = variable.op.name + tensor.name[len(name_of(variable)):]
  return tf.get_default_graph().get_tensor_by_name(here)


def sum_over(pairs: Sequence[tuple[tf.Tensor, tf.Variable]]
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


def update_each(optimizer: Any,
                grads_and_vars: Sequence[tuple[Optional[tf.Tensor],
                                               tf.Variable]],
                global_step: Optional[tf.Variable],
                name: Optional[str]) -> tf.Operation:
  """Lets all replicas take one step with the sums of their gradients.

  Args:
    optimizer: an OptimizerWrapper of this replica.
    grads_and_vars: the gradients of this replica.
    global_step: as in OptimizerWrapper.apply_gradients.
    name: likewise.

  Returns:
    The op that updates all replicas.

  Raises:
    ValueError: there is no gradient at all.
  """
  grads_and_vars = [(g, v) for g, v in grads_and_vars if g is not None]
  if not grads_and_vars:
    raise ValueError('No variable has a gradient.')
  variables = [v for _, v in grads_and_vars]

  def meet(strategy, optimizer, grads_and_vars):
    optimizers = strategy.experimental_local_results(optimizer)
    sums = strategy.extended.batch_reduce_to(
        tf.distribute.ReduceOp.SUM, grads_and_vars)
    with tf.init_scope():
      optimizers[0].create_slots(variables)
    for other in optimizers[1:]:
      other.share_slots(optimizers[0])

    def update(local_step, local, sums):
      with _updating():
        return local.apply_local_gradients(
            list(zip(sums, variables)),
            None if global_step is None else local_step, name)

    anchor = (
        global_step if global_step is not None else
        tf.train.get_or_create_global_step())
    return strategy.extended.update(anchor, update, args=(optimizer, sums))

  return tf.distribute.get_replica_context().merge_call(
      meet, args=(optimizer, grads_and_vars))

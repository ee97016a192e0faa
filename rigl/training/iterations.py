"""Counts iterations: runs of the train op, including mask updates.

In some iterations RigL and SNIP update masks instead of making a step, so the
global step does not tell which batch comes next. The variable `iteration` does.
Checkpoints hold it, but it is not restored: each session initializes it to the
iteration at which its input starts, see resuming.iterations_done.
"""

from __future__ import annotations

from typing import Callable

from rigl import replicas
from rigl.compat import tf

NAME = 'iteration'
# The variables, where a method has them, that change with a mask update.
UPDATE_COUNTERS = ('last_mask_update_step', 'is_snipped')

_VARIABLE = 'rigl/iteration'
_ADVANCED = 'rigl/advanced'
_UPDATES = 'rigl/updates'


def counted(
  build: Callable[[], tf.Operation], global_step: tf.Variable, first_iteration: int
) -> tf.Operation:
  """A train op that also counts its runs, from `first_iteration` on.

  `build` builds the op, which may advance `global_step`.
  """
  root = tf.VariableScope(reuse=tf.AUTO_REUSE, name='')
  # The initial value must not depend on the caller's control dependencies.
  with tf.init_scope(), tf.variable_scope(root, auxiliary_name_scope=False):
    iteration = tf.get_variable(
      NAME, [], tf.int64, tf.zeros_initializer(), trainable=False, collections=[_VARIABLE]
    )
    # Not by its initializer: workers would broadcast the value, and one whose
    # session is lost would wait for the others instead of ending.
    tf.add_to_collection(
      tf.GraphKeys.TABLE_INITIALIZERS,
      replicas.on_each_device(lambda: iteration.assign(first_iteration).op),
    )
  step = global_step.read_value()
  with tf.control_dependencies([step]):
    train_op = build()
  with tf.control_dependencies([train_op]):
    tf.add_to_collection(_ADVANCED, tf.not_equal(global_step.read_value(), step))
    for variable in tf.global_variables():
      if replicas.name_of(variable) in UPDATE_COUNTERS:
        tf.add_to_collection(_UPDATES, variable.read_value())
    count = replicas.on_each_device(lambda: iteration.assign_add(1).op)
  return tf.group(train_op, count)


def advanced() -> list[tf.Tensor]:
  """bool scalars, one per replica, to fetch with a run: whether it was a step.

  Empty if the graph does not count iterations: then each run is a step.
  """
  return tf.get_collection(_ADVANCED)


def updates() -> list[tf.Tensor]:
  """Scalars to fetch with a run, which change when connections are grown.

  Empty if none ever are (fixed masks, gradual pruning, DNW), and on a TPU.
  """
  return tf.get_collection(_UPDATES)


def variables() -> list[tf.Variable]:
  """The variable `iteration`, if the graph has one."""
  return tf.get_collection(_VARIABLE)

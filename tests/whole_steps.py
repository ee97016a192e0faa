"""Runs training steps of a whole network, as a session does and under XLA."""

from __future__ import annotations

import numpy as np

from rigl.compat import tf
from rigl.core import distributions
from tests import quick_sessions


def run(build, arrays, n_steps, is_compiled=True, sparsity=None):
  """Builds a training step, sets random masks and runs the step.

  Args:
    build: of tensors; returns the operation of the step.
    arrays: the tensors, which every step gets.
    n_steps: steps.
    is_compiled: whether XLA compiles the step.
    sparsity: of the masks before; None leaves them as they are initialized.

  Returns:
    ({name: mask before}, {name: variable after}).
  """
  with tf.Graph().as_default():
    tf.set_random_seed(0)
    tensors = [tf.constant(array) for array in arrays]
    if is_compiled:
      with tf.variable_scope('', use_resource=True):
        step = tf.xla.experimental.compile(build, tensors)
    else:
      step = build(*tensors)
    variables = {v.op.name: v for v in tf.global_variables()}
    masks = {name: variables[name] for name in sorted(variables) if name.endswith('/mask')}
    # Grappler breaks the names inside clusters with conditions in them.
    with tf.Session(config=quick_sessions.unoptimized()) as session:
      session.run([tf.global_variables_initializer(), tf.tables_initializer()])
      if sparsity is not None:
        random_state = np.random.RandomState(0)
        for mask in masks.values():
          mask.load(
            distributions.random_mask(mask.shape.as_list(), sparsity, random_state), session
          )
      before = session.run(masks)
      for _ in range(n_steps):
        session.run(step)
      return before, session.run(variables)

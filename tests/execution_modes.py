"""Runs one function of tensors in each way TensorFlow can run it."""

from __future__ import annotations

import numpy as np

from rigl.compat import tf, tf2

EAGER = 'eager'
GRAPH = 'graph session'
FUNCTION = 'tf.function'
JIT = 'tf.function(jit_compile=True)'
XLA = 'tf.xla.experimental.compile'
MODES = (EAGER, GRAPH, FUNCTION, JIT, XLA)


def _symbolic(mode, function, inputs):
  """The output tensors of `function` in the default graph."""
  if mode == GRAPH:
    return function(*inputs)
  if mode == XLA:
    return tf.xla.experimental.compile(function, inputs)
  return tf2.function(
      function, autograph=False, jit_compile=mode == JIT)(*inputs)


def run(mode, function, *arrays):
  """Returns the outputs of `function(*tensors)` as a list of numpy arrays.

  Args:
    mode: one of MODES.
    function: of tensors; returns a flat sequence of tensors.
    *arrays: numpy arrays, fed as tensors of their type and static shape.
  """
  arrays = [np.asarray(array) for array in arrays]
  results = []

  def run_eagerly(*tensors):
    assert tf.executing_eagerly()
    results.extend(tensor.numpy() for tensor in function(*tensors))

  with tf.Graph().as_default(), tf.Session() as session:
    inputs = [tf.placeholder(a.dtype, a.shape) for a in arrays]
    feeds = dict(zip(inputs, arrays))
    if mode == EAGER:
      # py_function is eager even where v2 behaviour is switched off, as the
      # training scripts in the same process may have done.
      session.run(tf.py_function(run_eagerly, inputs, []), feeds)
      return results
    return session.run(list(_symbolic(mode, function, inputs)), feeds)

"""Runs one function of tensors in each library, in each way it can run it."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf, tf2
from tests import quick_sessions

EAGER = 'eager'
GRAPH = 'graph session'
FUNCTION = 'tf.function'
JIT = 'tf.function(jit_compile=True)'
XLA = 'tf.xla.experimental.compile'
MODES = (EAGER, GRAPH, FUNCTION, JIT, XLA)
NUMPY = 'numpy'
JAX = 'jax'
JAX_JIT = 'jax.jit'
TORCH = 'torch'
# For maths that is not TensorFlow's alone; libraries that are missing skip.
EVERYWHERE = (*MODES, NUMPY, JAX, JAX_JIT, TORCH)


def _symbolic(mode, function, inputs):
  """The output tensors of `function` in the default graph."""
  if mode == GRAPH:
    return function(*inputs)
  if mode == XLA:
    return tf.xla.experimental.compile(function, inputs)
  return tf2.function(function, autograph=False, jit_compile=mode == JIT)(*inputs)


def _run_elsewhere(mode, function, cases):
  """`run_each` in a library that is not TensorFlow."""
  if mode == NUMPY:
    return [[np.asarray(part) for part in function(*case)] for case in cases]
  if mode == TORCH:
    torch = pytest.importorskip('torch')
    return [[part.numpy() for part in function(*map(torch.asarray, case))] for case in cases]
  jax = pytest.importorskip('jax')
  if mode == JAX_JIT:
    # One graph must serve all values.
    function = jax.jit(function)
    function(*map(np.zeros_like, cases[0]))
  return [[np.asarray(part) for part in function(*map(jax.numpy.asarray, case))] for case in cases]


def run_each(mode, function, cases):
  """Returns a list of numpy arrays, `function(*tensors)`, for each case.

  Graphs are built, and compiled, once and must serve all cases.

  Args:
    mode: one of EVERYWHERE.
    function: of tensors; returns a flat sequence of tensors.
    cases: sequences of numpy arrays, fed as tensors of their type and static
      shape, which are those of the first case.
  """
  cases = [[np.asarray(array) for array in case] for case in cases]
  if mode not in MODES:
    return _run_elsewhere(mode, function, cases)
  results = []

  def run_eagerly(*tensors):
    assert tf.executing_eagerly()
    results.append([tensor.numpy() for tensor in function(*tensors)])

  config = None if mode == GRAPH else quick_sessions.unoptimized()
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    inputs = [tf.placeholder(a.dtype, a.shape) for a in cases[0]]
    feeds = [dict(zip(inputs, case)) for case in cases]
    if mode == EAGER:
      # py_function is eager even where v2 behaviour is switched off, as the
      # training scripts in the same process may have done.
      op = tf.py_function(run_eagerly, inputs, [])
      for feed in feeds:
        session.run(op, feed)
      return results
    outputs = list(_symbolic(mode, function, inputs))
    return [session.run(outputs, feed) for feed in feeds]


def run(mode, function, *arrays):
  """`run_each` of one case."""
  [outputs] = run_each(mode, function, [arrays])
  return outputs

"""Runs one function of tensors in each library, in each way it can run it."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf, tf2

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
  return tf2.function(
      function, autograph=False, jit_compile=mode == JIT)(*inputs)


def _run_elsewhere(mode, function, arrays):
  """`run` in a library that is not TensorFlow."""
  if mode == NUMPY:
    return [np.asarray(part) for part in function(*arrays)]
  if mode == TORCH:
    torch = pytest.importorskip('torch')
    return [part.numpy() for part in function(*map(torch.asarray, arrays))]
  jax = pytest.importorskip('jax')
  if mode == JAX_JIT:
    # One graph must serve all values.
    function = jax.jit(function)
    function(*map(np.zeros_like, arrays))
  return [np.asarray(part) for part in function(
      *map(jax.numpy.asarray, arrays))]


def run(mode, function, *arrays):
  """Returns the outputs of `function(*tensors)` as a list of numpy arrays.

  Args:
    mode: one of EVERYWHERE.
    function: of tensors; returns a flat sequence of tensors.
    *arrays: numpy arrays, fed as tensors of their type and static shape.
  """
  arrays = [np.asarray(array) for array in arrays]
  if mode not in MODES:
    return _run_elsewhere(mode, function, arrays)
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

"""Array operations of whichever library a tensor belongs to.

    xp = arrays.of(weights)
    magnitude = xp.abs(weights)

The maths of this package is written once, in these operations, for numpy,
TensorFlow (eager, graphs, XLA), JAX and PyTorch, and for variables of Keras on
any of these. A library is imported only when one of its tensors is seen. Names
and meanings are numpy's. Arithmetic, bitwise and comparison operators of Python
(except ==) work on tensors of all libraries.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Optional, Sequence

import numpy as np

Array = Any


def of(tensor: Array) -> Any:
  """The operations of the library that a tensor belongs to.

  Args:
    tensor: tensor, variable or Python number; numbers belong to numpy.

  Raises:
    TypeError: the tensor belongs to none of these libraries.
  """
  library = type(tensor).__module__.partition('.')[0]
  if library == 'keras':
    return of(tensor.value)
  if library in ('numpy', 'builtins'):
    return _numpy()
  if library in ('jax', 'jaxlib'):
    return _jax()
  if library == 'tensorflow':
    return _tensorflow()
  if library == 'torch':
    return _torch()
  raise TypeError(
    f'{type(tensor).__module__}.{type(tensor).__name__} is no '
    'tensor of numpy, TensorFlow, JAX or PyTorch.'
  )


def size(tensor: Array) -> int:
  """The number of elements of a tensor or variable of known shape."""
  return math.prod(int(n) for n in tensor.shape)


class _Numpy:
  """The functions of numpy, or of a module like it, and some that it lacks."""

  library = 'numpy'

  def __init__(self, module: Any):
    self._np = module

  def __getattr__(self, name: str) -> Any:
    return getattr(self._np, name)

  def asarray(self, x: Array, dtype: str = '') -> Array:
    """A tensor, of another type if one is given."""
    return self._np.asarray(_value(x), dtype or None)

  def cast_like(self, x: Array, like: Array) -> Array:
    """`x` in the type of another tensor."""
    return x.astype(like.dtype)

  def bits(self, x: Array) -> Array:
    """int32 with the bits of float32 `x`."""
    return x.view('int32')

  def unsigned_right_shift(self, x: Array, n: int) -> Array:
    """int32 `x` shifted as uint32."""
    return (x.view('uint32') >> self._np.uint32(n)).view('int32')

  def ordinals(self, n: int) -> Array:
    """int32 0 ... n - 1."""
    return self._np.arange(n, dtype='int32')

  def argsort(self, x: Array) -> Array:
    """Stable."""
    return (
      self._np.argsort(x, stable=True) if self._np is not np else (np.argsort(x, kind='stable'))
    )

  def count(self, x: Array, axis: Optional[int] = None) -> Array:
    """How many of bool `x` are True, int32; of all, or along a dimension."""
    return self._np.sum(x, axis, dtype='int32')

  def split(self, x: Array, sizes: Sequence[int]) -> list[Array]:
    """Consecutive parts of `x` along its first dimension."""
    return self._np.split(x, np.cumsum(sizes)[:-1])

  def unstack(self, x: Array) -> list[Array]:
    """The parts of `x` along its first dimension."""
    return list(x)

  def repeat_while(
    self, condition: Callable[[Any], Array], step: Callable[[Any], Any], state: Any
  ) -> Any:
    """The first of state, step(state), ... for which a condition is False.

    A state is a tuple of tensors.
    """
    while condition(state):
      state = step(state)
    return state


class _Jax(_Numpy):
  """The operations on tensors of JAX."""

  library = 'jax'

  def concatenate(self, tensors, axis):
    import jax

    # Without the barrier XLA joins them anew, and compiles that, in each kernel that reads them.
    return jax.lax.optimization_barrier(self._np.concatenate(tensors, axis))

  def split(self, x, sizes):
    import jax

    # The barrier makes starts inputs of kernels, so that XLA compiles one for all parts of a
    # size, and keeps it from computing `x` anew in each of them.
    starts = np.cumsum([0, *sizes[:-1]], dtype='int32')
    x, *starts = jax.lax.optimization_barrier((x, *starts))
    return [jax.lax.dynamic_slice_in_dim(x, start, n) for start, n in zip(starts, sizes)]

  def repeat_while(self, condition, step, state):
    import jax

    return jax.lax.while_loop(condition, step, state)


@functools.cache
def _numpy() -> _Numpy:
  return _Numpy(np)


@functools.cache
def _jax() -> _Numpy:
  import jax.numpy

  return _Jax(jax.numpy)


def _value(x: Array) -> Array:
  """The tensor of a variable of Keras; anything else as it is."""
  return x.value if type(x).__module__.startswith('keras.') else x


class _TensorFlow:
  """The operations on tensors of TensorFlow."""

  library = 'tensorflow'

  def __init__(self, tf: Any):
    self._tf = tf
    self.abs, self.sign, self.cos = tf.abs, tf.sign, tf.cos
    self.where, self.reshape = tf.where_v2, tf.reshape
    self.minimum, self.maximum = tf.minimum, tf.maximum
    self.clip, self.power, self.isnan = (tf.clip_by_value, tf.pow, tf.math.is_nan)
    self.equal, self.not_equal = tf.equal, tf.not_equal
    self.mean, self.std = tf.reduce_mean, tf.math.reduce_std
    self.max, self.min = tf.reduce_max, tf.reduce_min
    self.zeros_like, self.round, self.take = tf.zeros_like, tf.round, tf.gather
    self.concatenate, self.bitwise_xor = tf.concat, tf.bitwise.bitwise_xor
    self.stack, self.unstack, self.split = tf.stack, tf.unstack, tf.split
    self.any, self.sum = tf.reduce_any, tf.reduce_sum

  def asarray(self, x: Array, dtype: str = '') -> Array:
    tensor = self._tf.convert_to_tensor(_value(x))
    return self._tf.cast(tensor, dtype) if dtype else tensor

  def cast_like(self, x: Array, like: Array) -> Array:
    return self._tf.cast(x, like.dtype.base_dtype)

  def bits(self, x: Array) -> Array:
    return self._tf.bitcast(x, 'int32')

  def unsigned_right_shift(self, x: Array, n: int) -> Array:
    tf = self._tf
    return tf.bitcast(
      tf.bitwise.right_shift(tf.bitcast(x, tf.uint32), tf.constant(n, tf.uint32)), tf.int32
    )

  def ordinals(self, n: int) -> Array:
    return self._tf.range(n)

  def argsort(self, x: Array) -> Array:
    return self._tf.argsort(x, stable=True)

  def is_graph(self) -> bool:
    """Whether this is a graph for a session, rather than TensorFlow 2."""
    return not self._tf.executing_eagerly_outside_functions()

  def repeat_while(
    self, condition: Callable[[Any], Array], step: Callable[[Any], Any], state: Any
  ) -> Any:
    return self._tf.while_loop(
      lambda *state: condition(state), lambda *state: step(state), state, parallel_iterations=1
    )

  def count(self, x: Array, axis: Optional[int] = None) -> Array:
    return self._tf.reduce_sum(self._tf.cast(x, 'int32'), axis)


@functools.cache
def _tensorflow() -> _TensorFlow:
  from rigl.compat import tf

  return _TensorFlow(tf)


class _Torch(_Numpy):
  """The operations on tensors of PyTorch, which has numpy's names for most."""

  library = 'torch'

  def cast_like(self, x: Array, like: Array) -> Array:
    return x.to(like.dtype)

  def asarray(self, x: Array, dtype: str = '') -> Array:
    value = _value(x)
    if not isinstance(value, self._np.Tensor):
      value = self._np.as_tensor(value)
    elif value is not x:
      # A variable is assigned in place, so take a copy of its current value.
      value = value.detach().clone()
    return value.to(getattr(self._np, dtype)) if dtype else value

  def where(self, condition: Array, x: Array, y: Array) -> Array:
    return self._np.where(self.asarray(condition), x, y)

  def power(self, x: Array, exponent: float) -> Array:
    return self._np.pow(x, exponent)

  def std(self, x: Array) -> Array:
    return self._np.std(x, correction=0)

  def equal(self, x: Array, y: Array) -> Array:
    return x == y

  def not_equal(self, x: Array, y: Array) -> Array:
    return x != y

  def minimum(self, x: Array, y: Array) -> Array:
    return self._np.clamp(x, max=y)

  def maximum(self, x: Array, y: Array) -> Array:
    return self._np.clamp(x, min=y)

  def take(self, x: Array, indices: Array) -> Array:
    return x[indices]

  def bits(self, x: Array) -> Array:
    return x.contiguous().view(self._np.int32)

  def unsigned_right_shift(self, x: Array, n: int) -> Array:
    return (x >> n) & ((1 << (32 - n)) - 1)

  def ordinals(self, n: int) -> Array:
    return self._np.arange(n, dtype=self._np.int32)

  def argsort(self, x: Array) -> Array:
    return self._np.argsort(x, stable=True)

  def count(self, x: Array, axis: Optional[int] = None) -> Array:
    return self._np.sum(x, axis, dtype=self._np.int32)

  def split(self, x: Array, sizes: Sequence[int]) -> list[Array]:
    return self._np.split(x, list(sizes))


@functools.cache
def _torch() -> _Torch:
  import torch

  return _Torch(torch)

"""Inner loops of the engine as explicit vectors of LLVM.

A tile is a few vectors of neighbouring positions of one output channel, or of
several. It stays in registers while all weights of the channel are added:

    tile = clip(bias + sum over k of values[k] * arena[offsets[k] + position:])

Compilers do not find this by themselves, since they do not see that the output
does not overlap the input.

Numba compiles `kernels` anew when that file changes, but does not look here:
after a change of this file, touch that one.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


def _vector_width() -> int:
  """Floats in the widest vector that numba may use on this processor."""
  chosen = config.CPU_FEATURES
  if chosen is None:
    host = llvmlite.binding.get_host_cpu_features()
    features = {name for name, is_there in host.items() if is_there}
  else:
    features = {name[1:] for name in chosen.split(',') if name[:1] == '+'}
  if 'avx512f' in features:
    return 16
  return 8 if 'avx' in features else 4


WIDTH = _vector_width()
# Positions are computed in groups of this many, whatever the width.
GROUP = 16
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_INT = ir.IntType(64)


class _Builder:
  """Emits operations on vectors."""

  def __init__(self, builder: Any) -> None:
    self.builder = builder

  def splat(self, scalar: Any) -> Any:
    first = self.builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), scalar,
        ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), None)
    return self.builder.shuffle_vector(
        first, ir.Constant(_VECTOR, ir.Undefined), zeros)

  def _address(self, array: Any, index: Any) -> Any:
    pointer = self.builder.gep(array, [index])
    return self.builder.bitcast(pointer, _VECTOR.as_pointer())

  def load(self, array: Any, index: Any) -> Any:
    return self.builder.load(self._address(array, index), align=4)

  def store(self, value: Any, array: Any, index: Any) -> None:
    self.builder.store(value, self._address(array, index), align=4)

  def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
    module = self.builder.module
    function = cgutils.get_or_insert_function(
        module, ir.FunctionType(_VECTOR, [_VECTOR] * 3),
        f'llvm.fmuladd.v{WIDTH}f32')
    return self.builder.call(function, [a, b, c])

  def clip(self, value: Any, low: Any, high: Any) -> Any:
    # In this order NaN stays NaN.
    is_low = self.builder.fcmp_ordered('<', value, low)
    value = self.builder.select(is_low, low, value)
    is_high = self.builder.fcmp_ordered('>', value, high)
    return self.builder.select(is_high, high, value)

  def plus(self, index: Any, n: int) -> Any:
    return self.builder.add(index, ir.Constant(_INT, n))


def _data(context: Any, builder: Any, signature: Any, args: Any,
          index: int) -> Any:
  """The pointer to the first element of an array among the arguments."""
  array = context.make_array(signature.args[index])(
      context, builder, args[index])
  return array.data


def make_tile(n_groups: int) -> Any:
  """An intrinsic for `n_groups` groups of positions of one output channel.

  Args:
    n_groups: 1 to 8.

  Returns:
    tile(arena, values, offsets, begin, end, position, bias, low, high, out).
  """
  n_vectors = n_groups * (GROUP // WIDTH)
  # Few sums would wait for one another: then odd weights have their own.
  n_sums = 2 if n_vectors <= 4 else 1

  @intrinsic
  def tile(typing_context, arena, values, offsets, begin, end, position, bias,
           low, high, out):
    del typing_context

    def generate(context, builder, signature, args):
      vectors = _Builder(builder)
      arena, values, offsets = (
          _data(context, builder, signature, args, i) for i in range(3))
      begin, end, position, bias, low, high, out = args[3:]
      first = vectors.splat(bias)
      zero = ir.Constant(_VECTOR, None)
      sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(n_vectors)]
              for _ in range(n_sums)]
      for i, row in enumerate(sums):
        for pointer in row:
          builder.store(zero if i else first, pointer)

      def add(k, row):
        value = vectors.splat(builder.load(builder.gep(values, [k])))
        start = builder.add(
            builder.sext(builder.load(builder.gep(offsets, [k])), _INT),
            position)
        for i, pointer in enumerate(row):
          loaded = vectors.load(arena, vectors.plus(start, i * WIDTH))
          builder.store(vectors.multiply_add(
              value, loaded, builder.load(pointer)), pointer)

      n_rest = builder.srem(
          builder.sub(end, begin), ir.Constant(_INT, n_sums))
      whole_end = builder.sub(end, n_rest)
      with cgutils.for_range_slice(
          builder, begin, whole_end, ir.Constant(_INT, n_sums)) as (k, _):
        for i, row in enumerate(sums):
          add(vectors.plus(k, i), row)
      if n_sums > 1:
        with cgutils.for_range_slice(
            builder, whole_end, end, ir.Constant(_INT, 1)) as (k, _):
          add(k, sums[0])
      low, high = vectors.splat(low), vectors.splat(high)
      for i in range(n_vectors):
        total = builder.load(sums[0][i])
        for row in sums[1:]:
          total = builder.fadd(total, builder.load(row[i]))
        vectors.store(vectors.clip(total, low, high), arena,
                      vectors.plus(out, i * WIDTH))
      return context.get_dummy_value()

    signature = types.void(
        arena, values, offsets, types.int64, types.int64, types.int64,
        types.float32, types.float32, types.float32, types.int64)
    return signature, generate

  return tile


def make_dense_tile(n_channels: int, n_groups: int) -> Any:
  """An intrinsic for several output channels that read the same offsets.

  Args:
    n_channels: output channels.
    n_groups: groups of positions of each.

  Returns:
    tile(arena, values, offsets, first_value, begin, end, position, biases,
    first_bias, low, high, out, plane). Of each offset the values of the
    channels lie side by side, from `first_value` on.
  """
  n_vectors = n_groups * (GROUP // WIDTH)

  @intrinsic
  def tile(typing_context, arena, values, offsets, first_value, begin, end,
           position, biases, first_bias, low, high, out, plane):
    del typing_context

    def generate(context, builder, signature, args):
      vectors = _Builder(builder)
      arena, values, offsets = (
          _data(context, builder, signature, args, i) for i in range(3))
      biases = _data(context, builder, signature, args, 7)
      first_value, begin, end, position = args[3:7]
      first_bias, low, high, out, plane = args[8:]
      sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(n_vectors)]
              for _ in range(n_channels)]
      for channel, row in enumerate(sums):
        bias = builder.load(builder.gep(
            biases, [vectors.plus(first_bias, channel)]))
        for pointer in row:
          builder.store(vectors.splat(bias), pointer)
      with cgutils.for_range_slice(
          builder, begin, end, ir.Constant(_INT, 1)) as (k, _):
        start = builder.add(
            builder.sext(builder.load(builder.gep(offsets, [k])), _INT),
            position)
        loaded = [vectors.load(arena, vectors.plus(start, i * WIDTH))
                  for i in range(n_vectors)]
        value = builder.add(first_value, builder.mul(
            builder.sub(k, begin), ir.Constant(_INT, n_channels)))
        for channel, row in enumerate(sums):
          factor = vectors.splat(builder.load(builder.gep(
              values, [vectors.plus(value, channel)])))
          for vector, pointer in zip(loaded, row):
            builder.store(vectors.multiply_add(
                factor, vector, builder.load(pointer)), pointer)
      low, high = vectors.splat(low), vectors.splat(high)
      for row in sums:
        for i, pointer in enumerate(row):
          vectors.store(vectors.clip(builder.load(pointer), low, high), arena,
                        vectors.plus(out, i * WIDTH))
        out = builder.add(out, plane)
      return context.get_dummy_value()

    i64, f32 = types.int64, types.float32
    signature = types.void(
        arena, values, offsets, i64, i64, i64, i64, biases, i64, f32, f32, i64,
        i64)
    return signature, generate

  return tile


def make_every_second(n: int) -> Any:
  """An intrinsic that copies every second value.

  Args:
    n: how many it copies.

  Returns:
    copy(arena, source, target).
  """
  wide = ir.VectorType(ir.FloatType(), 2 * n)

  @intrinsic
  def copy(typing_context, arena, source, target):
    del typing_context

    def generate(context, builder, signature, args):
      data = _data(context, builder, signature, args, 0)
      source, target = (builder.gep(data, [i]) for i in args[1:])
      loaded = builder.load(
          builder.bitcast(source, wide.as_pointer()), align=4)
      even = builder.shuffle_vector(
          loaded, ir.Constant(wide, ir.Undefined),
          ir.Constant(ir.VectorType(ir.IntType(32), n),
                      [ir.Constant(ir.IntType(32), 2 * i) for i in range(n)]))
      builder.store(even, builder.bitcast(
          target, even.type.as_pointer()), align=4)
      return context.get_dummy_value()

    return types.void(arena, types.int64, types.int64), generate

  return copy


@intrinsic
def dot(typing_context, arena, values, offsets, begin, end):
  """The sum of values[k] * arena[offsets[k]], without checks of the indices.

  Args:
    typing_context: what numba knows of types.
    arena: float32.
    values: float32.
    offsets: int32.
    begin: the first k.
    end: one past the last.
  """
  del typing_context

  def generate(context, builder, signature, args):
    arena, values, offsets = (
        _data(context, builder, signature, args, i) for i in range(3))
    begin, end = args[3:]
    zero = ir.Constant(ir.FloatType(), 0.)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]

    def add(k, pointer):
      place = builder.sext(builder.load(builder.gep(offsets, [k])), _INT)
      product = builder.fmul(
          builder.load(builder.gep(values, [k])),
          builder.load(builder.gep(arena, [place])))
      builder.store(builder.fadd(builder.load(pointer), product), pointer)

    n = ir.Constant(_INT, len(sums))
    whole_end = builder.sub(end, builder.srem(builder.sub(end, begin), n))
    with cgutils.for_range_slice(builder, begin, whole_end, n) as (k, _):
      for i, pointer in enumerate(sums):
        add(builder.add(k, ir.Constant(_INT, i)), pointer)
    with cgutils.for_range_slice(
        builder, whole_end, end, ir.Constant(_INT, 1)) as (k, _):
      add(k, sums[0])
    a, b, c, d = map(builder.load, sums)
    return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))

  signature = types.float32(
      arena, values, offsets, types.int64, types.int64)
  return signature, generate


@intrinsic
def arrive(typing_context, array, index):
  """Adds 1 to an element of an int64 array, atomically; returns the old value.

  Args:
    typing_context: what numba knows of types.
    array: int64.
    index: index of the element.
  """
  del typing_context

  def generate(context, builder, signature, args):
    data = _data(context, builder, signature, args, 0)
    return builder.atomic_rmw(
        'add', builder.gep(data, [args[1]]), ir.Constant(_INT, 1), 'seq_cst')

  return types.int64(array, types.int64), generate


@intrinsic
def look(typing_context, array, index):
  """Reads an element that another thread may write.

  Args:
    typing_context: what numba knows of types.
    array: int64.
    index: index of the element.
  """
  del typing_context

  def generate(context, builder, signature, args):
    data = _data(context, builder, signature, args, 0)
    return builder.load_atomic(
        builder.gep(data, [args[1]]), 'seq_cst', 8)

  return types.int64(array, types.int64), generate

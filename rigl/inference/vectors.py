"""Inner loops of the engine as explicit vectors of LLVM.

A tile is a few vectors of neighbouring positions of one or several output
channels. It stays in registers while all weights of the channel are added:

    tile = clip(bias + sum over k of values[k] * arena[offsets[k] + position:])

Compilers do not generate this by themselves, because they cannot prove that the
output does not overlap the input.

Numba recompiles `kernels` when that file changes, but not when this one does:
after a change of this file, touch that one.
"""

from __future__ import annotations

import functools
import platform
from typing import Any, Callable

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
# Registers for sums: three quarters of 32 (AVX-512, Arm) or 16.
N_SUMS = 24 if WIDTH == 16 or platform.machine() in ('aarch64', 'arm64') else 12
# Positions per group, for any vector width.
GROUP = 16
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_INT = ir.IntType(64)


class _Builder:
  """Emits operations on vectors."""

  def __init__(self, builder: Any) -> None:
    self.builder = builder

  def splat(self, scalar: Any) -> Any:
    first = self.builder.insert_element(
      ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), None)
    return self.builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)

  def _address(self, array: Any, index: Any) -> Any:
    pointer = self.builder.gep(array, [index])
    return self.builder.bitcast(pointer, _VECTOR.as_pointer())

  def load(self, array: Any, index: Any) -> Any:
    return self.builder.load(self._address(array, index), align=4)

  def store(self, value: Any, array: Any, index: Any) -> None:
    self.builder.store(value, self._address(array, index), align=4)

  def prefetch(self, array: Any, index: Any, n_groups: int) -> None:
    """Prefetches cache lines that are written soon."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = cgutils.get_or_insert_function(
      self.builder.module,
      ir.FunctionType(ir.VoidType(), [byte, number, number, number]),
      'llvm.prefetch.p0i8',
    )
    # For writing, into the nearest cache, of data.
    kinds = [ir.Constant(number, n) for n in (1, 3, 1)]
    for i in range(n_groups):
      address = self._address(array, self.plus(index, i * GROUP))
      self.builder.call(function, [self.builder.bitcast(address, byte), *kinds])

  def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
    module = self.builder.module
    function = cgutils.get_or_insert_function(
      module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f'llvm.fmuladd.v{WIDTH}f32'
    )
    return self.builder.call(function, [a, b, c])

  def clip(self, value: Any, low: Any, high: Any) -> Any:
    # This order preserves NaN.
    is_low = self.builder.fcmp_ordered('<', value, low)
    value = self.builder.select(is_low, low, value)
    is_high = self.builder.fcmp_ordered('>', value, high)
    return self.builder.select(is_high, high, value)

  def plus(self, index: Any, n: int) -> Any:
    return self.builder.add(index, ir.Constant(_INT, n))


def pointer_of(context: Any, builder: Any, signature: Any, args: Any, index: int) -> Any:
  """The pointer to the first element of the argument of an intrinsic, an array, at `index`."""
  return context.make_array(signature.args[index])(context, builder, args[index]).data


def _element(builder: Any, array: Any, index: Any) -> Any:
  return builder.load(builder.gep(array, [index]))


def _place(builder: Any, offsets: Any, k: Any) -> Any:
  """offsets[k], int32, as int64."""
  return builder.sext(_element(builder, offsets, k), _INT)


def _loop(builder: Any, begin: Any, end: Any, step: int = 1) -> Any:
  """A context in which code for (k, _) is emitted, from begin to end."""
  return cgutils.for_range_slice(builder, begin, end, ir.Constant(_INT, step))


def _emit_for_each(n_most: int, emit: Callable[..., None]) -> Callable[..., Any]:
  """Code with a branch for each number of groups, which is the first argument.

  `emit` gets a number from 1 to `n_most`, and what an intrinsic gets, without the first argument.
  """

  def generate(context, builder, signature, args):
    rest = signature.return_type(*signature.args[1:])
    end = builder.append_basic_block('end')
    switch = builder.switch(args[0], end)
    for n in range(1, n_most + 1):
      block = builder.append_basic_block(f'groups.{n}')
      switch.add_case(ir.Constant(_INT, n), block)
      builder.position_at_end(block)
      emit(n, context, builder, rest, args[1:])
      builder.branch(end)
    builder.position_at_end(end)
    return context.get_dummy_value()

  return generate


def _emit_tile(n_groups, context, builder, signature, args):
  """The code of `make_tile` for `n_groups` groups."""
  n_vectors = n_groups * (GROUP // WIDTH)
  # A few sums would be bound by latency, so odd weights get their own.
  n_sums = 2 if n_vectors <= 4 else 1
  vectors = _Builder(builder)
  arena, values, offsets = (pointer_of(context, builder, signature, args, i) for i in range(3))
  begin, end, position, bias, low, high, out = args[3:]
  vectors.prefetch(arena, out, n_groups)
  first = vectors.splat(bias)
  zero = ir.Constant(_VECTOR, None)
  sums = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(n_vectors)] for _ in range(n_sums)]
  for i, row in enumerate(sums):
    for pointer in row:
      builder.store(zero if i else first, pointer)

  def add(k, row):
    value = vectors.splat(_element(builder, values, k))
    start = builder.add(_place(builder, offsets, k), position)
    for i, pointer in enumerate(row):
      loaded = vectors.load(arena, vectors.plus(start, i * WIDTH))
      builder.store(vectors.multiply_add(value, loaded, builder.load(pointer)), pointer)

  n_rest = builder.srem(builder.sub(end, begin), ir.Constant(_INT, n_sums))
  whole_end = builder.sub(end, n_rest)
  with _loop(builder, begin, whole_end, n_sums) as (k, _):
    for i, row in enumerate(sums):
      add(vectors.plus(k, i), row)
  if n_sums > 1:
    with _loop(builder, whole_end, end) as (k, _):
      add(k, sums[0])
  low, high = vectors.splat(low), vectors.splat(high)
  for i in range(n_vectors):
    total = builder.load(sums[0][i])
    for row in sums[1:]:
      total = builder.fadd(total, builder.load(row[i]))
    vectors.store(vectors.clip(total, low, high), arena, vectors.plus(out, i * WIDTH))


def make_tile(n_most: int) -> Any:
  """An intrinsic for some groups of positions of one output channel.

  Returns:
    tile(n_groups, arena, values, offsets, begin, end, position, bias, low,
    high, out), n_groups from 1 on.
  """

  @intrinsic
  def tile(
    typing_context, n_groups, arena, values, offsets, begin, end, position, bias, low, high, out
  ):
    del typing_context, n_groups, begin, end, position, bias, low, high, out
    i64, f32 = types.int64, types.float32
    signature = types.void(i64, arena, values, offsets, i64, i64, i64, f32, f32, f32, i64)
    return signature, _emit_for_each(n_most, _emit_tile)

  return tile


def _emit_shared_tile(n_channels, n_groups, context, builder, signature, args):
  """The code of `make_shared_tile` for `n_groups` groups."""
  n_vectors = n_groups * (GROUP // WIDTH)
  vectors = _Builder(builder)
  arena, values, offsets, rows, biases = (
    pointer_of(context, builder, signature, args, i) for i in (0, 1, 2, 3, 6)
  )
  row, position = args[4:6]
  first_bias, low, high, out, plane = args[7:]
  sums = [
    [cgutils.alloca_once(builder, _VECTOR) for _ in range(n_vectors)] for _ in range(n_channels)
  ]
  line = out
  for channel, pointers in enumerate(sums):
    vectors.prefetch(arena, line, n_groups)
    line = builder.add(line, plane)
    bias = _element(builder, biases, vectors.plus(first_bias, channel))
    for pointer in pointers:
      builder.store(vectors.splat(bias), pointer)
  bounds = [_element(builder, rows, vectors.plus(row, i)) for i in range(2**n_channels + 1)]
  value = cgutils.alloca_once_value(builder, bounds[0])
  for i in range(1, 2**n_channels):
    chosen = [sums[c] for c in range(n_channels) if i >> c & 1]
    with _loop(builder, bounds[i], bounds[i + 1]) as (k, _):
      first = builder.load(value)
      start = builder.add(_place(builder, offsets, k), position)
      factors = [
        vectors.splat(_element(builder, values, vectors.plus(first, c))) for c in range(len(chosen))
      ]
      for j in range(n_vectors):
        loaded = vectors.load(arena, vectors.plus(start, j * WIDTH))
        for factor, pointers in zip(factors, chosen):
          total = vectors.multiply_add(factor, loaded, builder.load(pointers[j]))
          builder.store(total, pointers[j])
      builder.store(vectors.plus(first, len(chosen)), value)
  low, high = vectors.splat(low), vectors.splat(high)
  for pointers in sums:
    for i, pointer in enumerate(pointers):
      total = vectors.clip(builder.load(pointer), low, high)
      vectors.store(total, arena, vectors.plus(out, i * WIDTH))
    out = builder.add(out, plane)


def make_shared_tile(n_channels: int, n_most: int) -> Any:
  """An intrinsic for several output channels that share what they load.

  The offsets of a block of channels are sorted by the set of channels with a
  weight there, so that each set has a loop without branches.

  Returns:
    tile(n, arena, values, offsets, rows, row, position, biases, bias, low, high, out, plane), for
    n groups. The values of the block start at rows[row], its biases at `bias`. Set i, whose bits
    are channels, has the offsets rows[row + i] to rows[row + i + 1]. The values of the same
    offset are consecutive.
  """

  @intrinsic
  def tile(
    context, n, arena, values, offsets, rows, row, position, biases, bias, low, high, out, plane
  ):
    del context, n, row, position, bias, low, high, out, plane
    i64, f32 = types.int64, types.float32
    signature = types.void(
      i64, arena, values, offsets, rows, i64, i64, biases, i64, f32, f32, i64, i64
    )
    return signature, _emit_for_each(n_most, functools.partial(_emit_shared_tile, n_channels))

  return tile


def make_every_second(n: int) -> Any:
  """An intrinsic that copies every second value.

  Returns:
    copy(arena, source, target).
  """
  wide = ir.VectorType(ir.FloatType(), 2 * n)

  @intrinsic
  def copy(typing_context, arena, source, target):
    del typing_context

    def generate(context, builder, signature, args):
      data = pointer_of(context, builder, signature, args, 0)
      source, target = (builder.gep(data, [i]) for i in args[1:])
      loaded = builder.load(builder.bitcast(source, wide.as_pointer()), align=4)
      number = ir.IntType(32)
      kept = ir.Constant(ir.VectorType(number, n), [ir.Constant(number, 2 * i) for i in range(n)])
      even = builder.shuffle_vector(loaded, ir.Constant(wide, ir.Undefined), kept)
      builder.store(even, builder.bitcast(target, even.type.as_pointer()), align=4)
      return context.get_dummy_value()

    return types.void(arena, types.int64, types.int64), generate

  return copy


@intrinsic
def copy_every(typing_context, arena, source, step, target, begin, end):
  """Copies arena[source + i * step] to arena[target + i], i from begin to end.

  Without bounds checks.
  """
  del typing_context

  def generate(context, builder, signature, args):
    data = pointer_of(context, builder, signature, args, 0)
    source, step, target, begin, end = args[1:]
    with _loop(builder, begin, end) as (i, _):
      value = _element(builder, data, builder.add(source, builder.mul(i, step)))
      builder.store(value, builder.gep(data, [builder.add(target, i)]))
    return context.get_dummy_value()

  return types.void(arena, *[types.int64] * 5), generate


@intrinsic
def dot(typing_context, arena, values, offsets, begin, end):
  """The sum of values[k] * arena[offsets[k]], k from begin to end, without bounds checks."""
  del typing_context

  def generate(context, builder, signature, args):
    arena, values, offsets = (pointer_of(context, builder, signature, args, i) for i in range(3))
    begin, end = args[3:]
    zero = ir.Constant(ir.FloatType(), 0.0)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]

    def add(k, pointer):
      place = _place(builder, offsets, k)
      product = builder.fmul(_element(builder, values, k), _element(builder, arena, place))
      builder.store(builder.fadd(builder.load(pointer), product), pointer)

    n_rest = builder.srem(builder.sub(end, begin), ir.Constant(_INT, len(sums)))
    whole_end = builder.sub(end, n_rest)
    with _loop(builder, begin, whole_end, len(sums)) as (k, _):
      for i, pointer in enumerate(sums):
        add(builder.add(k, ir.Constant(_INT, i)), pointer)
    with _loop(builder, whole_end, end) as (k, _):
      add(k, sums[0])
    a, b, c, d = map(builder.load, sums)
    return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))

  signature = types.float32(arena, values, offsets, types.int64, types.int64)
  return signature, generate

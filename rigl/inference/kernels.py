"""Runs the steps of a program, compiled by numba.

All activations lie in one array, the arena. A step is a row of integers: its
kind, and what the function of that kind unpacks from the row.
"""

from __future__ import annotations

import math
import os

import numba
import numpy as np
from numba import types

from rigl.inference import vectors

SPARSE, DENSE, VECTOR, COPY, POOL, MEAN, SOFTMAX = range(7)
# Integers of a step.
N_COLUMNS = 16
TILE_GROUPS = 8
DENSE_CHANNELS, DENSE_GROUPS = 4, 6
GROUP = vectors.GROUP
_SPINS = 2000

_tile1, _tile2, _tile3, _tile4, _tile5, _tile6, _tile7, _tile8 = (
    vectors.make_tile(n) for n in range(1, TILE_GROUPS + 1))
_dense1, _dense2, _dense3, _dense4, _dense5, _dense6 = (
    vectors.make_dense_tile(DENSE_CHANNELS, n)
    for n in range(1, DENSE_GROUPS + 1))

_half4, _half8, _half16 = map(vectors.make_every_second, (4, 8, 16))



def _nothing():
  """Is compiled to see whether compiled code can be kept."""


def _keeps_code() -> bool:
  """Whether numba finds a folder, beside this file or in the user's, for it."""
  try:
    numba.njit(cache=True)(_nothing)
  except RuntimeError:
    return False
  return True


_settings = {
    'nogil': True, 'error_model': 'numpy', 'cache': _keeps_code()}
_jit = numba.njit(**_settings)
# Lets sums be reordered, but keeps NaN and infinity.
_fast = numba.njit(fastmath={'reassoc', 'contract', 'nsz'}, **_settings)

if os.name == 'posix':
  _give_way = types.ExternalFunction('sched_yield', types.int32())
else:
  @_jit
  def _give_way():
    """Windows switches between threads by itself."""
    return 0


@_jit
def _clear_border(arena, plane, rows, columns, row_stride, end):
  """Zeros what is right of the image and, up to `end`, below it."""
  for row in range(rows - 1):
    for i in range(row * row_stride + columns, (row + 1) * row_stride):
      arena[plane + i] = 0
  for i in range((rows - 1) * row_stride + columns, end):
    arena[plane + i] = 0


@_jit
def _tile(n, arena, values, offsets, begin, end, position, bias, low, high,
          out):
  if n == 8:
    _tile8(arena, values, offsets, begin, end, position, bias, low, high, out)
  elif n == 7:
    _tile7(arena, values, offsets, begin, end, position, bias, low, high, out)
  elif n == 6:
    _tile6(arena, values, offsets, begin, end, position, bias, low, high, out)
  elif n == 5:
    _tile5(arena, values, offsets, begin, end, position, bias, low, high, out)
  elif n == 4:
    _tile4(arena, values, offsets, begin, end, position, bias, low, high, out)
  elif n == 3:
    _tile3(arena, values, offsets, begin, end, position, bias, low, high, out)
  elif n == 2:
    _tile2(arena, values, offsets, begin, end, position, bias, low, high, out)
  else:
    _tile1(arena, values, offsets, begin, end, position, bias, low, high, out)


@_jit
def _sparse(step, limits, arena, values, offsets, rows, biases, first, last):
  """Convolutions, depthwise ones, scales and sums: a list of taps a channel."""
  row, n_groups, out, plane, bias = step[1:6]
  height, width, row_stride, is_bordered = step[6:10]
  low, high = limits
  n_tiles = (n_groups + TILE_GROUPS - 1) // TILE_GROUPS
  done = 0
  for tile in range(n_tiles):
    # Tiles of nearly the same size: small ones use the processor badly.
    n = (n_groups - done) // (n_tiles - tile)
    position = done * GROUP
    for o in range(first, last):
      _tile(n, arena, values, offsets, rows[row + o], rows[row + o + 1],
            position, biases[bias + o], low, high, out + o * plane + position)
    done += n
  if is_bordered:
    for o in range(first, last):
      _clear_border(arena, out + o * plane, height, width, row_stride,
                    n_groups * GROUP)


@_jit
def _dense_tile(n, arena, values, offsets, value, begin, end, position, biases,
                bias, low, high, out, plane):
  if n == 6:
    _dense6(arena, values, offsets, value, begin, end, position, biases, bias,
            low, high, out, plane)
  elif n == 5:
    _dense5(arena, values, offsets, value, begin, end, position, biases, bias,
            low, high, out, plane)
  elif n == 4:
    _dense4(arena, values, offsets, value, begin, end, position, biases, bias,
            low, high, out, plane)
  elif n == 3:
    _dense3(arena, values, offsets, value, begin, end, position, biases, bias,
            low, high, out, plane)
  elif n == 2:
    _dense2(arena, values, offsets, value, begin, end, position, biases, bias,
            low, high, out, plane)
  else:
    _dense1(arena, values, offsets, value, begin, end, position, biases, bias,
            low, high, out, plane)


@_jit
def _dense(step, limits, arena, values, offsets, biases, first, last):
  """A convolution that reads nearly all taps, a few channels at a time."""
  begin, n_groups, out, plane, bias = step[1:6]
  height, width, row_stride, is_bordered, n_taps = step[6:11]
  low, high = limits
  n_tiles = (n_groups + DENSE_GROUPS - 1) // DENSE_GROUPS
  done = 0
  for tile in range(n_tiles):
    n = (n_groups - done) // (n_tiles - tile)
    position = done * GROUP
    for block in range(first, last):
      o = block * DENSE_CHANNELS
      _dense_tile(n, arena, values, offsets, begin + o * n_taps, begin,
                  begin + n_taps, position, biases, bias + o, low, high,
                  out + o * plane + position, plane)
    done += n
  if is_bordered:
    for o in range(first * DENSE_CHANNELS, last * DENSE_CHANNELS):
      _clear_border(arena, out + o * plane, height, width, row_stride,
                    n_groups * GROUP)


@_jit
def _vector(step, limits, arena, values, offsets, rows, biases, first, last):
  """Layers with one position: a dot product for each output."""
  row, out, bias = step[1:4]
  low, high = limits
  for o in range(first, last):
    total = biases[bias + o] + vectors.dot(
        arena, values, offsets, rows[row + o], rows[row + o + 1])
    arena[out + o] = min(max(total, low), high)


@_jit
def _copy_row(arena, source, step, target, n):
  x = 0
  if step == 2:
    while x + 16 <= n:
      _half16(arena, source + 2 * x, target + x)
      x += 16
    if x + 8 <= n:
      _half8(arena, source + 2 * x, target + x)
      x += 8
    if x + 4 <= n:
      _half4(arena, source + 2 * x, target + x)
      x += 4
  for i in range(x, n):
    arena[target + i] = arena[source + i * step]


@_jit
def _copy(step, arena, phases, first, last):
  """Splits images into phases of their own planes, for strides."""
  source, channel, row, column, n_channels = step[1:6]
  out, plane, row_stride, phase = step[6:10]
  for i in range(first, last):
    which = phase + 6 * (i // n_channels)
    start = source + (i % n_channels) * channel + (
        phases[which] * row + phases[which + 1] * column)
    target = out + i * plane
    row_step, column_step = phases[which + 2] * row, phases[which + 3] * column
    height, width = phases[which + 4], phases[which + 5]
    for y in range(height):
      a, b = start + y * row_step, target + y * row_stride
      _copy_row(arena, a, column_step, b, width)


@_jit
def _pool(step, limits, arena, offsets, factors, first, last):
  """The largest value or the mean of a window."""
  begin, n_groups, out, plane, source_plane = step[1:6]
  height, width, row_stride, is_bordered, n_taps, factor = step[6:12]
  low, high = limits
  # Layers with one position lie side by side.
  n = 1 if height * width == 1 else n_groups * GROUP
  for o in range(first, last):
    target, source = out + o * plane, o * source_plane
    a = arena[target:target + n]
    a[:] = np.float32(0) if factor >= 0 else -np.float32(np.inf)
    for k in range(begin, begin + n_taps):
      start = source + offsets[k]
      b = arena[start:start + n]
      if factor >= 0:
        for i in range(n):
          a[i] += b[i]
      else:
        for i in range(n):
          a[i] = b[i] if b[i] > a[i] else a[i]
    if factor >= 0:
      for i in range(n):
        a[i] *= factors[factor + i]
    for i in range(n):
      a[i] = min(max(a[i], low), high)
    if is_bordered:
      _clear_border(arena, target, height, width, row_stride, n)


@_fast
def _mean(step, arena, first, last):
  source, plane, row, column, height, width, out = step[1:8]
  for c in range(first, last):
    total = np.float32(0)
    for y in range(height):
      start = source + c * plane + y * row
      for x in range(width):
        total += arena[start + x * column]
    arena[out + c] = total / np.float32(height * width)


@_jit
def _softmax(step, arena, first, last):
  source, n, out = step[1:4]
  if first == last:
    return
  largest, total = -np.float32(np.inf), 0.
  for i in range(n):
    largest = max(largest, arena[source + i])
  for i in range(n):
    arena[out + i] = math.exp(arena[source + i] - largest)
    total += arena[out + i]
  for i in range(n):
    arena[out + i] /= total


@_jit
def _wait(arrivals, wanted):
  """Until all threads are done with a step."""
  vectors.arrive(arrivals, 0)
  spins = 0
  while vectors.look(arrivals, 0) < wanted:
    spins += 1
    if spins > _SPINS:
      _give_way()


@_jit
def run(steps, limits, cuts, arena, values, offsets, rows, biases, tables,
        factors, thread, n_threads, arrivals):
  """Runs all steps, of each the part of one thread.

  Args:
    steps: int64 [steps, N_COLUMNS].
    limits: float32 [steps, 2], of the outputs.
    cuts: int64 [steps, threads + 1], where the part of each thread begins.
    arena: float32, the activations.
    values: float32, weights.
    offsets: int32, where in the arena each is to read.
    rows: int64, where the weights of an output begin.
    biases: float32.
    tables: int64, phases of copies.
    factors: float32, of means.
    thread: number of this thread.
    n_threads: threads that run.
    arrivals: int64 [1], 0 at first.
  """
  for i in range(len(steps)):
    step, limit = steps[i], (limits[i, 0], limits[i, 1])
    first, last = cuts[i, thread], cuts[i, thread + 1]
    kind = step[0]
    if kind == SPARSE:
      _sparse(step, limit, arena, values, offsets, rows, biases, first, last)
    elif kind == DENSE:
      _dense(step, limit, arena, values, offsets, biases, first, last)
    elif kind == VECTOR:
      _vector(step, limit, arena, values, offsets, rows, biases, first, last)
    elif kind == COPY:
      _copy(step, arena, tables, first, last)
    elif kind == POOL:
      _pool(step, limit, arena, offsets, factors, first, last)
    elif kind == MEAN:
      _mean(step, arena, first, last)
    else:
      _softmax(step, arena, first, last)
    if n_threads > 1:
      _wait(arrivals, (i + 1) * n_threads)

"""Runs the steps of a program, compiled by numba.

All activations are in one array, the arena. A step is a row of integers: its
kind, and the arguments of the function of that kind.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from rigl.inference import vectors, waiting

SPARSE, SHARED, VECTOR, COPY, POOL, MEAN, SOFTMAX = range(7)
# Integers per step.
N_COLUMNS = 16
# Groups per tile, so that their sums leave some registers free.
TILE_GROUPS = min(8, vectors.N_SUMS * vectors.WIDTH // vectors.GROUP)
# Of a block of channels; the entries that it has in `rows`.
SHARED_CHANNELS = 3
SHARED_GROUPS = TILE_GROUPS if vectors.WIDTH == 16 else max(1, TILE_GROUPS // SHARED_CHANNELS)
SHARED_ROWS = 2**SHARED_CHANNELS + 1
GROUP = vectors.GROUP
_SPINS, _SPINS_BEFORE_SLEEP = 2000, 50000
# Positions in `counts`, each in its own cache line.
CALLS, ARRIVALS, N_COUNTS = 8, 16, 32

_tile = vectors.make_tile(TILE_GROUPS)
_shared_tile = vectors.make_shared_tile(SHARED_CHANNELS, SHARED_GROUPS)
_half4, _half8, _half16 = map(vectors.make_every_second, (4, 8, 16))


def _nothing():
  """Compiled to test whether numba can cache code."""


def _keeps_code() -> bool:
  """Whether numba can cache code, beside this file or in the user's folder."""
  try:
    numba.njit(cache=True)(_nothing)
  except RuntimeError:
    return False
  return True


_settings = {'nogil': True, 'error_model': 'numpy', 'cache': _keeps_code()}
_jit = numba.njit(**_settings)
# Allows reordering of sums, but preserves NaN and infinity.
_fast = numba.njit(fastmath={'reassoc', 'contract', 'nsz'}, **_settings)


@_jit
def _clear_border(arena, plane, rows, columns, row_stride, begin, end):
  """Zeros the border right of and below an image, in positions begin to end."""
  for row in range(begin // row_stride, rows):
    row_end = (row + 1) * row_stride if row < rows - 1 else end
    for i in range(max(begin, row * row_stride + columns), min(end, row_end)):
      arena[plane + i] = 0


@_jit
def _part(by_position, n_groups, n_units, first, last):
  """The groups of positions and the units of a thread; one of them is all."""
  if by_position:
    return first, last, 0, n_units
  return 0, n_groups, first, last


@_jit
def _sparse_tiles(
  arena, values, offsets, rows, row, biases, bias, low, high, out, plane, begin, end, first, last
):
  """All tiles of some channels, the same tile of all of them together."""
  n_tiles = (end - begin + TILE_GROUPS - 1) // TILE_GROUPS
  done = begin
  for tile in range(n_tiles):
    # Tiles of nearly the same size: small ones use the processor badly.
    n = (end - done) // (n_tiles - tile)
    position = done * GROUP
    for o in range(first, last):
      start, stop = rows[row + o], rows[row + o + 1]
      target = out + o * plane + position
      _tile(n, arena, values, offsets, start, stop, position, biases[bias + o], low, high, target)
    done += n


@_jit
def _sparse(step, limits, arena, values, offsets, rows, biases, first, last):
  """Convolutions, depthwise ones, scales and sums: a list of taps a channel."""
  row, n_groups, out, plane, bias, n_channels, by_position = step[1:8]
  height, width, row_stride, is_bordered, is_stream = step[8:13]
  low, high = limits
  begin, end, first, last = _part(by_position, n_groups, n_channels, first, last)
  # All channels together, or one after the other if they share no input.
  n = 1 if is_stream else max(1, last - first)
  for o in range(first, last, n):
    _sparse_tiles(
      arena, values, offsets, rows, row, biases, bias, low, high, out, plane, begin, end, o, o + n
    )
  if is_bordered:
    for o in range(first, last):
      _clear_border(arena, out + o * plane, height, width, row_stride, begin * GROUP, end * GROUP)


@_jit
def _shared(step, limits, arena, values, offsets, rows, biases, first, last):
  """A convolution that reads many taps, a few channels at a time."""
  row, n_groups, out, plane, bias, n_blocks, by_position = step[1:8]
  height, width, row_stride, is_bordered = step[8:12]
  low, high = limits
  begin, end, first, last = _part(by_position, n_groups, n_blocks, first, last)
  n_tiles = (end - begin + SHARED_GROUPS - 1) // SHARED_GROUPS
  done = begin
  for tile in range(n_tiles):
    n = (end - done) // (n_tiles - tile)
    position = done * GROUP
    for block in range(first, last):
      o, start = block * SHARED_CHANNELS, row + block * SHARED_ROWS
      target = out + o * plane + position
      _shared_tile(
        n, arena, values, offsets, rows, start, position, biases, bias + o, low, high, target, plane
      )
    done += n
  if is_bordered:
    for o in range(first * SHARED_CHANNELS, last * SHARED_CHANNELS):
      _clear_border(arena, out + o * plane, height, width, row_stride, begin * GROUP, end * GROUP)


@_jit
def _vector(step, limits, arena, values, offsets, rows, biases, first, last):
  """Layers with one position: a dot product for each output."""
  row, out, bias = step[1:4]
  low, high = limits
  for o in range(first, last):
    total = biases[bias + o] + vectors.dot(arena, values, offsets, rows[row + o], rows[row + o + 1])
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
  vectors.copy_every(arena, source, step, target, x, n)


@_jit
def _copy(step, arena, phases, first, last):
  """Splits images into phases of their own planes, for strides."""
  source, channel, row, column, n_channels = step[1:6]
  out, plane, row_stride, phase = step[6:10]
  for i in range(first, last):
    which = phase + 6 * (i // n_channels)
    start = source + (i % n_channels) * channel + (phases[which] * row + phases[which + 1] * column)
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
    a = arena[target : target + n]
    a[:] = np.float32(0) if factor >= 0 else -np.float32(np.inf)
    for k in range(begin, begin + n_taps):
      start = source + offsets[k]
      b = arena[start : start + n]
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
      _clear_border(arena, target, height, width, row_stride, 0, n)


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
  largest, total = -np.float32(np.inf), 0.0
  for i in range(n):
    largest = max(largest, arena[source + i])
  for i in range(n):
    arena[out + i] = math.exp(arena[source + i] - largest)
    total += arena[out + i]
  for i in range(n):
    arena[out + i] /= total


@_jit
def _wait(counts, wanted):
  """Waits until all threads have finished a step."""
  waiting.arrive(counts, ARRIVALS)
  spins = 0
  while waiting.look(counts, ARRIVALS) < wanted:
    waiting.pause()
    spins += 1
    if spins > _SPINS:
      waiting.give_way()


@_jit
def run(
  thread, counts, call, steps, limits, cuts, arena, values, offsets, rows, biases, tables, factors
):
  """Runs the part of one thread in all steps.

  Args:
    thread: number of this thread.
    counts: int64 [N_COUNTS], initially 0: at CALLS the calls started, at ARRIVALS the steps
      finished by a thread.
    call: number of earlier calls.
    steps: int64 [steps, N_COLUMNS].
    limits: float32 [steps, 2], limits of the outputs.
    cuts: int64 [steps, threads + 1], start of the part of each thread.
    arena: float32, the activations.
    values: float32, the weights.
    offsets: int32, offset in the arena of the input of each weight.
    rows: int64, start of the weights of each output.
    biases: float32.
    tables: int64, phases of copies.
    factors: float32, factors of means.
  """
  n_threads = cuts.shape[1] - 1
  for i in range(len(steps)):
    step, limit = steps[i], (limits[i, 0], limits[i, 1])
    first, last = cuts[i, thread], cuts[i, thread + 1]
    kind = step[0]
    if kind == SPARSE:
      _sparse(step, limit, arena, values, offsets, rows, biases, first, last)
    elif kind == SHARED:
      _shared(step, limit, arena, values, offsets, rows, biases, first, last)
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
      _wait(counts, (call * len(steps) + i + 1) * n_threads)


@_jit
def begin(counts):
  """Makes the threads in `serve` start a call, which it counts."""
  waiting.arrive(counts, CALLS)


@_jit
def serve(thread, counts, call, *arrays):
  """Takes part in calls until none starts for about a millisecond.

  Waking a sleeping thread takes longer than many a layer.

  Args:
    thread: see `run`.
    counts: see `run`.
    call: number of calls in which this thread took part.
    *arrays: the arguments of `run` from `steps` on.

  Returns:
    The new value of `call`.
  """
  spins = 0
  while spins < _SPINS_BEFORE_SLEEP:
    if waiting.look(counts, CALLS) > call:
      run(thread, counts, call, *arrays)
      call += 1
      spins = 0
    waiting.pause()
    spins += 1
  return call

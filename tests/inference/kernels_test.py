"""Kernels and vectors compute compiled what they do in plain Python and numpy."""

from __future__ import annotations

import concurrent.futures
import itertools
import threading
import time
import types

import keras
import numba
import numpy as np
import pytest
from numba.core import caching

from rigl.inference import kernels, vectors, waiting
from tests.inference import networks

L = keras.layers
GROUP = kernels.GROUP
N_CHANNELS = kernels.SHARED_CHANNELS


def _tile(n, arena, values, offsets, begin, end, position, bias, low, high, out):
  run = np.arange(n * GROUP)
  total = bias + values[begin:end] @ arena[offsets[begin:end, None] + position + run]
  arena[out + run] = np.clip(total, low, high)


def _shared_tile(
  n, arena, values, offsets, rows, row, position, biases, bias, low, high, out, plane
):
  run = np.arange(n * GROUP)
  totals = np.repeat(biases[bias : bias + N_CHANNELS, None], len(run), 1)
  value = rows[row]
  for channels in range(1, 2**N_CHANNELS):
    for offset in offsets[rows[row + channels] : rows[row + channels + 1]]:
      for channel in range(N_CHANNELS):
        if channels >> channel & 1:
          totals[channel] += values[value] * arena[offset + position + run]
          value += 1
  for channel, total in enumerate(totals):
    arena[out + channel * plane + run] = np.clip(total, low, high)


def _copy_every(arena, source, step, target, begin, end):
  run = np.arange(begin, end)
  arena[target + run] = arena[source + run * step]


def _every_second(n):
  return lambda arena, source, target: _copy_every(arena, source, 2, target, 0, n)


def _dot(arena, values, offsets, begin, end):
  return values[begin:end] @ arena[offsets[begin:end]]


class _PlainWaiting:
  """`waiting` without atomic operations; the lock of this object replaces them."""

  def __init__(self):
    self._lock = threading.Lock()

  def arrive(self, counts, index):
    with self._lock:
      counts[index] += 1

  def look(self, counts, index):
    return counts[index]

  def pause(self):
    time.sleep(0)

  give_way = pause


@pytest.fixture
def interpret(monkeypatch):
  """A function that makes Python run the kernels, from its call to the end of the test.

  Call it after what is to be compiled: numba compiles what it finds under the names of functions.
  """

  def replace():
    for name, value in list(vars(kernels).items()):
      if hasattr(value, 'py_func'):
        monkeypatch.setattr(kernels, name, value.py_func)
    monkeypatch.setattr(kernels, '_tile', _tile)
    monkeypatch.setattr(kernels, '_shared_tile', _shared_tile)
    for n in (4, 8, 16):
      monkeypatch.setattr(kernels, f'_half{n}', _every_second(n))
    plain = types.SimpleNamespace(copy_every=_copy_every, dot=_dot)
    monkeypatch.setattr(kernels, 'vectors', plain)
    monkeypatch.setattr(kernels, 'waiting', _PlainWaiting())

  return replace


def _wide(x):
  """Convolutions with and without strides, and pools, of several groups of positions."""
  x = L.Conv2D(7, 3, padding='same', activation='relu')(x)
  x = L.Add()([L.DepthwiseConv2D(3, padding='same')(x), x])
  x = L.AveragePooling2D(2, 1, 'same')(L.MaxPooling2D(3, 1, 'same')(x))
  for _ in range(2):
    x = L.Conv2D(5, 3, 2, padding='same')(x)
  return L.Dense(6, 'softmax')(L.GlobalAveragePooling2D()(x))


def _small(x):
  """Convolutions that threads share by channel, and pools of whole images."""
  x = L.Conv2D(7, 3, 3, padding='same', activation='relu6')(x)
  x = L.Conv2D(7, 3, padding='same')(x)
  whole = x.shape[1:3]
  x = [pool(whole)(x) for pool in (L.AveragePooling2D, L.MaxPooling2D)]
  return L.Dense(4)(L.Flatten()(L.Add()(x)))


@pytest.mark.parametrize('sparsity', [0.5, 0.95])
@pytest.mark.parametrize('layers, shape', [(_wide, (9, 61, 3)), (_small, (12, 9, 3))])
def test_networks(layers, shape, sparsity, tmp_path, interpret):
  inputs = keras.Input(shape)
  model = networks.sparsified(keras.Model(inputs, layers(inputs)), sparsity)
  examples, wanted = networks.batch_of(model)
  network = networks.engine_of(model, tmp_path / 'model.tflite')
  compiled = network(examples)
  interpret()
  interpreted = network(examples)
  networks.assert_close(interpreted, wanted)
  networks.assert_close(compiled, interpreted)


def test_threads(tmp_path, interpret, monkeypatch):
  """They sleep, and wake, more often than with the real number of spins."""
  monkeypatch.setattr(kernels, '_SPINS_BEFORE_SLEEP', 10)
  before = threading.enumerate()
  inputs = keras.Input((9, 11, 3))
  model = networks.sparsified(keras.Model(inputs, _wide(inputs)), 0.5)
  examples, wanted = networks.batch_of(model)
  interpret()
  network = networks.engine_of(model, tmp_path / 'model.tflite', 3)
  networks.assert_close(network(examples), wanted)
  others = set(threading.enumerate()).difference(before)
  assert len(others) == 2
  # They must not see the kernels change.
  del network
  for thread in others:
    thread.join(30)


def test_a_thread_that_waits_for_long_gives_way(interpret, monkeypatch):
  interpret()
  counts, n_pauses, n_spins = np.zeros(kernels.N_COUNTS, int), 0, 4

  def pause():
    nonlocal n_pauses
    n_pauses += 1

  def give_way():
    assert n_pauses == n_spins + 1
    # To a thread that arrives.
    counts[kernels.ARRIVALS] += 1

  monkeypatch.setattr(kernels, '_SPINS', n_spins)
  monkeypatch.setattr(kernels.waiting, 'pause', pause)
  monkeypatch.setattr(kernels.waiting, 'give_way', give_way)
  kernels._wait(counts, 2)
  assert counts[kernels.ARRIVALS] == 2


LIMITS = np.float32(-1.0), np.float32(1.5)


def _compiled(intrinsic):
  return numba.njit(lambda *arguments: intrinsic(*arguments))


def _taps(n):
  """Weights and the offsets that they read."""
  generator = np.random.default_rng(n)
  return generator.normal(size=n).astype('f'), generator.integers(0, 500, n).astype(np.int32)


def _assert_same(functions, *arguments):
  """Compares the activations after either function, NaN among them.

  Args:
    functions: two functions.
    *arguments: theirs; the activations stand for `...`.
  """
  arenas = []
  for function in functions:
    arena = np.random.default_rng(0).normal(size=3000).astype('f')
    arena[25:500:100] = np.nan
    arenas.append(arena)
    function(*(arena if argument is ... else argument for argument in arguments))
  np.testing.assert_allclose(*arenas, rtol=0, atol=1e-5)


def test_tile():
  both = _compiled(vectors.make_tile(kernels.TILE_GROUPS)), _tile
  values, offsets = _taps(9)
  bias = np.float32(0.5)
  sizes = range(1, kernels.TILE_GROUPS + 1)
  for n, (begin, end) in itertools.product(sizes, [(0, 9), (2, 8), (3, 3)]):
    _assert_same(both, n, ..., values, offsets, begin, end, 7, bias, *LIMITS, 1000)


def test_shared_tile():
  both = _compiled(vectors.make_shared_tile(N_CHANNELS, 2)), _shared_tile
  biases = np.random.default_rng(0).normal(size=N_CHANNELS + 1).astype('f')
  # Where the values begin, and where the inputs of each set of channels do, after two others.
  n_inputs = [2, 0, 1, 3, 1, 2, 1]
  rows = np.array([0, 0, 4, *itertools.accumulate(n_inputs, initial=6)])
  values, _ = _taps(4 + sum(n * sets.bit_count() for sets, n in enumerate(n_inputs, 1)))
  _, offsets = _taps(rows[-1])
  for n in (1, 2):
    _assert_same(both, n, ..., values, offsets, rows, 2, 7, biases, 1, *LIMITS, 1000, 500)


@pytest.mark.parametrize('n', [4, 8, 16])
def test_every_second(n):
  _assert_same((_compiled(vectors.make_every_second(n)), _every_second(n)), ..., 121, 1000)


@pytest.mark.parametrize('begin, end', [(0, 9), (4, 5), (3, 3)])
def test_copy_every(begin, end):
  _assert_same((_compiled(vectors.copy_every), _copy_every), ..., 119, 3, 1000, begin, end)


def test_dot():
  compiled = _compiled(vectors.dot)
  arena = np.random.default_rng(0).normal(size=500).astype('f')
  values, offsets = _taps(9)
  for begin, end in [(0, 9), (1, 9), (3, 7), (3, 3)]:
    arguments = arena, values, offsets, begin, end
    np.testing.assert_allclose(compiled(*arguments), _dot(*arguments), atol=1e-5)


@pytest.mark.parametrize(
  'features, width', [('+sse2,+avx,+avx512f', 16), ('+sse2,+avx,-avx512f', 8), ('+sse2,-avx', 4)]
)
def test_vectors_are_the_widest_that_numba_may_use(features, width, monkeypatch):
  monkeypatch.setattr(numba.config, 'CPU_FEATURES', features)
  assert vectors._vector_width() == width


def test_arrivals_of_threads_add_up():
  n_threads, n_arrivals = 3, 100_000

  @numba.njit(nogil=True)
  def arrive(counts):
    for _ in range(n_arrivals):
      waiting.arrive(counts, 1)
      waiting.pause()
    return waiting.look(counts, 1)

  counts = np.zeros(2, np.int64)
  with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
    seen = list(pool.map(arrive, [counts] * n_threads))
  assert counts.tolist() == [0, n_threads * n_arrivals] == [0, max(seen)]


def test_without_a_folder_for_code_kernels_are_compiled_in_each_process(monkeypatch):
  assert kernels._keeps_code()
  monkeypatch.setattr(caching.CacheImpl, '_locator_classes', [])
  assert not kernels._keeps_code()

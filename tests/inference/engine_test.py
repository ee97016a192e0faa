"""The engine computes the same as TensorFlow."""

from __future__ import annotations

import concurrent.futures
import gc
import os
import platform
import random
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

from rigl.inference import exporting
from tests import combinations
from tests.inference import networks

L = keras.layers


def _check(outputs, inputs, tmp_path, sparsity=0.6, n_threads=1, batch=2):
  model = networks.sparsified(keras.Model(inputs, outputs), sparsity)
  examples, wanted = networks.batch_of(model, batch)
  network = networks.engine_of(model, tmp_path / 'model.tflite', n_threads)
  for _ in range(2):
    # Twice: the state of memory after the first run must not matter.
    networks.assert_close(network(examples), wanted)


def _random_layer(draw, x):
  """A layer that fits the image x, or None."""
  kernel = (draw.choice([1, 1, 2, 3, 3, 5]), draw.choice([1, 2, 3, 3]))
  strides = draw.choice([1, 1, 2, 3])
  padding = draw.choice(['same', 'valid'])
  dilation = draw.choice([1, 2]) if strides == 1 else 1
  reach = [(k - 1) * dilation + 1 for k in kernel]
  height, width = x.shape[1:3]
  if reach[0] > height or reach[1] > width:
    return None
  kind = draw.choice(['conv', 'conv', 'depthwise', 'max', 'average', 'norm', 'residual'])
  if kind == 'conv':
    # The converter makes other operators of two dilations that differ.
    return L.Conv2D(
      draw.choice([1, 3, 8, 17]),
      kernel,
      strides,
      padding,
      dilation_rate=dilation,
      activation=draw.choice([None, 'relu', 'relu6']),
    )(x)
  if kind == 'depthwise':
    return L.DepthwiseConv2D(
      kernel[0] if kernel[0] <= width else 1,
      strides,
      padding,
      depth_multiplier=draw.choice([1, 1, 2]),
    )(x)
  if kind in ('max', 'average'):
    pool = L.MaxPooling2D if kind == 'max' else L.AveragePooling2D
    return pool(kernel, strides, padding)(x)
  if kind == 'norm':
    return L.ReLU()(L.BatchNormalization()(x))
  y = L.Conv2D(x.shape[-1], 3, padding='same')(x)
  return L.ReLU()(L.Add()([x, y]))


@pytest.mark.parametrize('seed', combinations.quick(range(24), *range(8)))
def test_random_networks(seed, tmp_path):
  draw = random.Random(seed)
  inputs = x = keras.Input((draw.randint(1, 19), draw.randint(1, 19), draw.randint(1, 5)))
  for _ in range(draw.randint(1, 5)):
    y = _random_layer(draw, x)
    x = x if y is None else y
  end = draw.choice(['image', 'mean', 'flatten', 'dense'])
  if end == 'mean':
    x = L.GlobalAveragePooling2D()(x)
  elif end in ('flatten', 'dense'):
    x = L.Flatten()(x)
  if end != 'flatten':
    x = L.Dense(7)(x) if len(x.shape) == 2 else L.Conv2D(7, 1)(x)
  else:
    x = L.Softmax()(L.Dense(7)(x))
  _check(x, inputs, tmp_path, draw.choice([0.0, 0.6, 0.9]), draw.choice([1, 1, 3]))


def _normalized(x):
  """As the ImageNet script begins: minus a mean, by a deviation."""
  return (x - np.array([1.0, 2.0, 3.0], 'f')) / np.array([2.0, 3.0, 4.0], 'f')


_LAYERS = {
  'normalized': lambda x: L.Conv2D(5, 3)(_normalized(x)),
  'one constant': lambda x: L.Conv2D(5, 3)(2.0 * x + 1.0),
  'negative': lambda x: L.Conv2D(5, 3, padding='same')(0.0 - x),
  'no bias': lambda x: L.Conv2D(5, 3, use_bias=False)(x),
  'one by one': lambda x: L.Conv2D(6, 1)(x),
  'whole image': lambda x: L.Conv2D(6, (9, 11))(x),
  'softmax': lambda x: L.Dense(4, 'softmax')(L.Flatten()(x)),
  'softmax of the image': lambda x: L.Softmax()(L.Flatten()(L.Conv2D(2, 3)(x))),
  'vectors': lambda x: L.ReLU()(L.Add()([L.Dense(9)(L.Flatten()(x)), L.Dense(9)(L.Flatten()(x))])),
  'scaled vector': lambda x: L.Dense(3)(
    L.BatchNormalization()(L.ReLU()(L.Dense(9)(L.Flatten()(x))))
  ),
  'residual of the input': lambda x: L.Add()([L.Conv2D(3, 3, padding='same')(x), x]),
  'sum of the input': lambda x: L.Conv2D(2, 1)(L.Add()([x, L.ReLU()(x)])),
  'padded': lambda x: L.Conv2D(5, 3)(L.ZeroPadding2D(((0, 1), (2, 3)))(x)),
  'padded whole pool': lambda x: L.Dense(2)(
    L.Flatten()(L.MaxPooling2D((11, 13))(L.ZeroPadding2D(1)(x - 9.0)))
  ),
  'padded whole pool, ReLU': lambda x: L.Dense(2)(
    L.Flatten()(L.ReLU(6.0)(L.MaxPooling2D((11, 13))(L.ZeroPadding2D(1)(x - 9.0))))
  ),
  'window of padding': lambda x: L.Conv2D(2, 1)(
    L.MaxPooling2D(2, 12)(L.ZeroPadding2D(((2, 0), (2, 0)))(x - 9.0))
  ),
  'padded average': lambda x: L.AveragePooling2D(3, 2)(L.ZeroPadding2D(1)(L.Conv2D(4, 1)(x))),
  'padded pool': lambda x: L.MaxPooling2D(3, 2)(L.ZeroPadding2D(1)(L.Conv2D(4, 1)(x))),
  'dilated': lambda x: L.Conv2D(5, 3, dilation_rate=2, padding='same')(x),
  'global pools': lambda x: L.Add()(
    [L.GlobalAveragePooling2D()(x), L.Flatten()(L.MaxPooling2D((9, 11))(x))]
  ),
  'branches': lambda x: L.Add()(
    [L.Conv2D(4, 3, 2, 'same')(x), L.AveragePooling2D(2, 2, 'same')(L.Conv2D(4, 1)(x))]
  ),
}


@pytest.mark.parametrize('name', _LAYERS)
@pytest.mark.parametrize('sparsity', [0.0, 0.7])
def test_layers(name, sparsity, tmp_path):
  inputs = keras.Input((9, 11, 3))
  _check(_LAYERS[name](inputs), inputs, tmp_path, sparsity)


# Of an image without channels, as of MNIST.
_MATRIX_LAYERS = {
  'flat': lambda x: L.Dense(4)(L.Flatten()(x)),
  'scaled': lambda x: L.Dense(4)(L.Flatten()(L.Rescaling(2.0, offset=-1.0)(x))),
  'clipped': lambda x: L.Dense(4)(L.Flatten()(L.ReLU(6.0)(x))),
  'as an image': lambda x: L.Conv2D(5, 3)(L.Reshape((9, 11, 1))(x)),
  'scaled as an image': lambda x: L.MaxPooling2D()(
    L.Conv2D(5, 3, padding='same')(L.Reshape((9, 11, 1))(L.Rescaling(2.0, offset=-1.0)(x)))
  ),
  'padded as an image': lambda x: L.Conv2D(5, 3)(L.ZeroPadding2D(2)(L.Reshape((9, 11, 1))(x))),
  'mean of an image': lambda x: L.Dense(3)(L.GlobalAveragePooling2D()(L.Reshape((9, 11, 1))(x))),
  'sum of both': lambda x: L.Reshape((9, 11))(
    L.Add()([L.Reshape((9, 11, 1))(x), L.Conv2D(1, 3, padding='same')(L.Reshape((9, 11, 1))(x))])
  ),
}


@pytest.mark.parametrize('name', _MATRIX_LAYERS)
def test_layers_of_matrices(name, tmp_path):
  inputs = keras.Input((9, 11))
  _check(_MATRIX_LAYERS[name](inputs), inputs, tmp_path)


@pytest.mark.parametrize('n_threads', [2, 3])
def test_networks_on_several_threads(n_threads, tmp_path):
  model = networks.mobilenet(0.8, 33)
  _check(model.output, model.input, tmp_path, 0.8, n_threads)


def test_threads_that_sleep_take_part_again_and_end_with_the_engine(tmp_path):
  """Threads stop spinning after about a millisecond."""
  model = networks.mobilenet(0.9, 32)
  examples, wanted = networks.batch_of(model, 1)
  before = threading.active_count()
  network = networks.engine_of(model, tmp_path / 'm.tflite', 3)
  assert threading.active_count() == before + 2
  for _ in range(3):
    time.sleep(0.05)
    networks.assert_close(network(examples), wanted)
  del network
  gc.collect()
  for thread in threading.enumerate():
    if thread.name.endswith('(_take_part)'):
      thread.join(30)
  assert threading.active_count() == before


def test_calls_from_several_threads_do_not_mix(tmp_path):
  model = networks.lenet(0.9)
  examples, wanted = networks.batch_of(model, 40)
  network = networks.engine_of(model, tmp_path / 'm.tflite')
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = list(pool.map(lambda i: network(examples[i : i + 1]), range(40)))
  networks.assert_close(np.concatenate(found), wanted)


def test_an_engine_does_not_keep_its_examples(tmp_path):
  """NaN in one image does not affect the next one."""
  model = networks.mobilenet(0.9, 32)
  examples, wanted = networks.batch_of(model, 1)
  network = networks.engine_of(model, tmp_path / 'm.tflite')
  network(np.full_like(examples, np.nan))
  networks.assert_close(network(examples), wanted)


_OTHER_PROCESSOR = """
import sys
import numpy as np
import rigl.inference
from rigl.inference import vectors
network = rigl.inference.load(sys.argv[1], engine='rigl')
assert vectors.WIDTH == int(sys.argv[2]), vectors.WIDTH
np.save(sys.argv[4], network(np.load(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != 'x86_64', reason='needs an x86')
@pytest.mark.parametrize(
  'width, processor, features', [(4, 'nehalem', '+sse4.2'), (8, 'haswell', '+avx,+avx2,+fma')]
)
def test_narrower_vectors(width, processor, features, tmp_path):
  """Each compiles everything anew, as on another processor."""
  model = networks.mobilenet(0.7, 33)
  examples, wanted = networks.batch_of(model, 1)
  path = tmp_path / 'model.tflite'
  exporting.export(model, path)
  np.save(tmp_path / 'in.npy', examples)
  subprocess.run(
    [
      sys.executable,
      '-c',
      _OTHER_PROCESSOR,
      path,
      str(width),
      tmp_path / 'in.npy',
      tmp_path / 'out.npy',
    ],
    check=True,
    env={
      **os.environ,
      'NUMBA_CPU_NAME': processor,
      'NUMBA_CPU_FEATURES': features,
      'NUMBA_CACHE_DIR': str(tmp_path),
    },
  )
  networks.assert_close(np.load(tmp_path / 'out.npy'), wanted)

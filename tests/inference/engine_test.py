"""The engine computes what TensorFlow computes."""

from __future__ import annotations

import random

import keras
import pytest

from rigl.inference import engine, exporting, graph, tflite_files
from tests.inference import networks

L = keras.layers


def _engine(model, path, n_threads=1):
  exported = exporting.export(model, path)
  parsed = tflite_files.read(exported.sparse, 'model')
  return engine.Engine(graph.read_graph(parsed, 'model'), n_threads)


def _check(outputs, inputs, tmp_path, sparsity=0.6, n_threads=1, batch=2):
  model = networks.sparsified(keras.Model(inputs, outputs), sparsity)
  examples, wanted = networks.batch_of(model, batch)
  network = _engine(model, tmp_path / 'model.tflite', n_threads)
  for _ in range(2):
    # Twice: what the first run left in memory must not matter.
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
  kind = draw.choice(['conv', 'conv', 'depthwise', 'max', 'average', 'norm',
                      'residual'])
  if kind == 'conv':
    # The converter makes other operators of two dilations that differ.
    return L.Conv2D(draw.choice([1, 3, 8, 17]), kernel, strides, padding,
                    dilation_rate=dilation,
                    activation=draw.choice([None, 'relu', 'relu6']))(x)
  if kind == 'depthwise':
    return L.DepthwiseConv2D(
        kernel[0] if kernel[0] <= width else 1, strides, padding,
        depth_multiplier=draw.choice([1, 1, 2]))(x)
  if kind in ('max', 'average'):
    pool = L.MaxPooling2D if kind == 'max' else L.AveragePooling2D
    return pool(kernel, strides, padding)(x)
  if kind == 'norm':
    return L.ReLU()(L.BatchNormalization()(x))
  y = L.Conv2D(x.shape[-1], 3, padding='same')(x)
  return L.ReLU()(L.Add()([x, y]))


@pytest.mark.parametrize('seed', range(24))
def test_random_networks(seed, tmp_path):
  draw = random.Random(seed)
  inputs = x = keras.Input(
      (draw.randint(1, 19), draw.randint(1, 19), draw.randint(1, 5)))
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
  _check(x, inputs, tmp_path, draw.choice([0., 0.6, 0.9]),
         draw.choice([1, 1, 3]))

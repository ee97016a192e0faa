"""Small sparse networks, and TensorFlow's results on them."""

from __future__ import annotations

import keras
import numpy as np

from rigl.inference import engine, exporting, reading, tflite_files


def sparsified(model, sparsity, seed=0):
  """Random weights everywhere, of which some kernels lose a share.

  Args:
    model: a built Keras model, changed in place.
    sparsity: share of zeros; depthwise convolutions and biases stay dense.
    seed: of the weights.
  """
  generator = np.random.default_rng(seed)
  for variable in model.variables:
    values = np.asarray(variable.value)
    if 'variance' in variable.path or 'gamma' in variable.path:
      values = generator.uniform(0.5, 1.5, values.shape)
    elif values.ndim == 1:
      values = generator.normal(0, 0.3, values.shape)
    is_depthwise = 'depthwise' in variable.path or '_dw_' in variable.path
    if values.ndim > 1 and not is_depthwise:
      values = np.array(values) / np.sqrt(max(1 - sparsity, 1e-3))
      n_zeros = round(sparsity * values.size)
      values.ravel()[generator.permutation(values.size)[:n_zeros]] = 0
    variable.assign(values.astype('float32'))
  return model


def lenet(sparsity):
  """LeNet-300-100.

  Args:
    sparsity: share of zeros in each layer.
  """
  return sparsified(
    keras.Sequential(
      [
        keras.Input((784,)),
        keras.layers.Dense(300, 'relu'),
        keras.layers.Dense(100, 'relu'),
        keras.layers.Dense(10),
      ]
    ),
    sparsity,
  )


def mobilenet(sparsity, size=64):
  """MobileNet-v1 of a quarter of its width.

  Args:
    sparsity: share of zeros in each layer.
    size: height and width of the image.
  """
  return sparsified(
    keras.applications.MobileNet(
      weights=None, input_shape=(size, size, 3), alpha=0.25, classes=10, classifier_activation=None
    ),
    sparsity,
  )


def engine_of(model, path, n_threads=1):
  """The engine of a model.

  Args:
    model: a Keras model.
    path: of a .tflite file to write.
    n_threads: of the engine.
  """
  exported = exporting.export(model, path)
  parsed = tflite_files.read(exported.sparse, 'model')
  return engine.Engine(reading.read_graph(parsed, 'model'), n_threads)


def batch_of(model, n=2, seed=1):
  """Random examples and the logits of Keras.

  Args:
    model: with one input.
    n: examples.
    seed: of the examples.
  """
  batch = (
    np.random.default_rng(seed).normal(size=(n, *model.inputs[0].shape[1:])).astype(np.float32)
  )
  return batch, np.asarray(model(batch, training=False))


def assert_close(actual, wanted, tolerance=1e-5):
  """Compares with a tolerance relative to the largest value.

  Args:
    actual: what was computed.
    wanted: what it should be.
    tolerance: as a share of the largest.
  """
  assert actual.shape == wanted.shape
  np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())

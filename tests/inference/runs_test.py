"""Networks are rebuilt from checkpoints of the scripts."""

from __future__ import annotations

import numpy as np
import pytest

import rigl.inference
from rigl.cifar_resnet import cifar_data, resnet_model
from rigl.compat import tf
from rigl.inference import litert
from rigl.mnist import mnist_model
from tests.inference import networks


def _randomize(session):
  """Gives all variables values as after a training; returns them by name."""
  generator, values = np.random.default_rng(0), {}
  for variable in tf.global_variables():
    name, shape = variable.op.name, variable.shape.as_list()
    if name.endswith('/mask'):
      value = generator.random(shape) < 0.2
    elif 'variance' in name or 'gamma' in name:
      value = generator.uniform(0.5, 1.5, shape)
    else:
      value = generator.normal(0, 0.3, shape)
    if name == 'global_step':
      value = 7
    values[name] = np.asarray(value).astype(variable.dtype.as_numpy_dtype)
    variable.load(values[name], session)
  return values


def _check(folder, batch, wanted, tmp_path):
  exported = rigl.inference.export(folder, tmp_path / 'm.tflite')
  networks.assert_close(litert.LiteRT(exported.sparse, 'model')(batch), wanted)
  return exported


@pytest.mark.parametrize('uses_masks', [True, False])
def test_mnist(uses_masks, tmp_path):
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [None, 784])
    mnist_model.mnist_network_fc((images, tf.zeros([2], tf.int32)), model_pruning=uses_masks)
    tf.train.get_or_create_global_step()
    with tf.Session() as session:
      values = _randomize(session)
      tf.train.Saver().save(session, str(tmp_path / 'run' / 'model.ckpt'), 7)
  batch = np.random.default_rng(1).random((2, 784)).astype(np.float32)
  x = batch
  for layer in ('layer1', 'layer2', 'layer3'):
    if uses_masks:
      weights = values[f'{layer}/weights'] * values[f'{layer}/mask']
      x = x @ weights + values[f'{layer}/biases']
    else:
      x = x @ values[f'{layer}/kernel'] + values[f'{layer}/bias']
    if layer != 'layer3':
      x = np.maximum(x, 0)
  exported = _check(tmp_path / 'run', batch, x, tmp_path)
  if uses_masks:
    # A fifth of the weights is left, each with an index of half its size.
    assert len(exported.sparse) < len(exported.dense) / 3


@pytest.mark.parametrize(
  'uses_masks, prunes_first, size',
  [(True, False, 32), (True, True, 32), (False, True, 32), (True, False, 48)],
)
def test_cifar(uses_masks, prunes_first, size, tmp_path, monkeypatch):
  monkeypatch.setattr(cifar_data, 'IMAGE_SHAPE', (size, size, 3))
  with tf.Graph().as_default():
    images = tf.placeholder(tf.float32, [None, size, size, 3])
    network = resnet_model.WideResNetModel(
      is_training=False,
      pruning_method='threshold' if uses_masks else 'baseline',
      prune_first_layer=prunes_first,
    )
    logits = network.build(images, depth=10, width=2, num_classes=10)
    tf.train.get_or_create_global_step()
    batch = np.random.default_rng(1).random((2, size, size, 3)).astype(np.float32)
    with tf.Session() as session:
      _randomize(session)
      tf.train.Saver().save(session, str(tmp_path / 'run' / 'model.ckpt'), 7)
      wanted = session.run(logits, {images: batch})
  exported = _check(tmp_path / 'run', batch, wanted, tmp_path)
  if uses_masks:
    # A fifth of the weights is left, each with an index of half its size.
    assert len(exported.sparse) < len(exported.dense) / 3
    network = rigl.inference.load(exported.path, engine='rigl')
    assert network.engine == 'rigl'
    networks.assert_close(network(batch), wanted)


def test_other_checkpoints_are_errors(tmp_path):
  with tf.Graph().as_default():
    tf.get_variable('v', [3])
    tf.train.get_or_create_global_step()
    with tf.Session() as session:
      session.run(tf.global_variables_initializer())
      tf.train.Saver().save(session, str(tmp_path / 'run' / 'model.ckpt'), 7)
  with pytest.raises(ValueError, match='neither the MNIST nor the CIFAR'):
    rigl.inference.export(tmp_path / 'run', tmp_path / 'm.tflite')

"""The synthetic data: deterministic, balanced, neither hard nor trivial."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from rigl.cifar_resnet import cifar_data, data_helper, synthetic_cifar
from rigl.compat import tf


@pytest.fixture(scope='module')
def data():
  return cifar_data.make_synthetic()


def test_images_are_frozen(data):
  """Training and evaluation must use the same data."""
  np.random.seed(0)
  arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
  assert [zlib.crc32(array.tobytes()) for array in arrays] == [
    3454673315,
    2202554993,
    2564165666,
    3119098492,
  ]


def test_types_and_balance(data):
  assert data.train_images.dtype == data.train_labels.dtype == np.uint8
  assert np.bincount(data.train_labels).tolist() == [500] * 10
  assert np.bincount(data.test_labels).tolist() == [100] * 10
  assert data.train_labels[:10].tolist() != list(range(10))
  images, labels = synthetic_cifar.make_part('train', 0, 10, 32)
  assert images.shape == (0, 32, 32, 3) and labels.shape == (0,)


def test_no_image_twice_nor_in_both_parts(data):
  images = np.concatenate([data.train_images, data.test_images])
  assert len({image.tobytes() for image in images}) == len(images)


def test_a_class_is_its_pattern_shifted_around():
  # Without noise and background, shifting back gives the pattern.
  random_state = np.random.RandomState(0)
  patterns = synthetic_cifar._patterns(10, 32, np.random.RandomState(1))
  images = synthetic_cifar._images(patterns[[3] * 200], random_state)
  spectra = np.abs(np.fft.fft2(images, axes=(1, 2))).mean(axis=0)
  expected = np.abs(np.fft.fft2(patterns[3], axes=(0, 1)))
  # The two waves are the two frequencies and their mirror images that stand
  # out of everything else, but for the constant.
  spectra[0, 0] = 0.0
  strongest = np.argsort(spectra.sum(axis=-1).ravel())[-4:]
  np.testing.assert_array_equal(
    np.sort(strongest), np.flatnonzero(expected.sum(axis=-1).ravel() > 1.0)
  )


def test_linear_classifiers_fail(data):
  # Every other pixel suffices for up to four periods, and is faster.
  train = data.train_images[:, ::2, ::2].reshape(5000, -1) / 255.0 - 0.5
  test = data.test_images[:, ::2, ::2].reshape(1000, -1) / 255.0 - 0.5
  targets = np.eye(10)[data.train_labels]
  weights = np.linalg.solve(train.T @ train + 100.0 * np.eye(768), train.T @ targets)
  assert ((test @ weights).argmax(1) == data.test_labels).mean() < 0.2
  means = np.stack([train[data.train_labels == label].mean(axis=0) for label in range(10)])
  scores = test @ means.T - (means**2).sum(axis=1) / 2.0
  assert (scores.argmax(1) == data.test_labels).mean() < 0.5


def _network(images: tf.Tensor) -> tf.Tensor:
  """Logits of three convolutions and their mean over the image."""
  with tf.variable_scope('network', reuse=tf.AUTO_REUSE):
    for i, (channels, stride) in enumerate(((16, 2), (32, 2), (32, 1))):
      kernel = tf.get_variable(
        f'kernel{i}',
        [3, 3, images.shape[-1], channels],
        initializer=tf.initializers.he_normal(seed=i),
      )
      images = tf.nn.relu(tf.nn.conv2d(images, kernel, stride, 'SAME'))
    weights = tf.get_variable('weights', [32, 10], initializer=tf.initializers.he_normal(seed=3))
    return tf.matmul(tf.reduce_mean(images, [1, 2]), weights)


def test_a_small_convolutional_network_learns(data, graph):
  images, labels = tf.data.make_one_shot_iterator(
    data_helper.train_dataset(data.train_images, data.train_labels, 64, seed=0)
  ).get_next()
  loss = tf.losses.sparse_softmax_cross_entropy(labels, _network(images))
  train_op = tf.train.AdamOptimizer(3e-3).minimize(loss)
  test_images, test_labels = tf.data.make_one_shot_iterator(
    data_helper.eval_dataset(data.test_images, data.test_labels, 1000)
  ).get_next()
  correct = tf.equal(tf.argmax(_network(test_images), 1, output_type=tf.int32), test_labels)
  accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(300):
      session.run(train_op)
    assert session.run(accuracy) > 0.7

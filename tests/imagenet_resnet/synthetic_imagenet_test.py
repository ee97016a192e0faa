"""The synthetic data."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import synthetic_imagenet

N_CLASSES, SIZE = 10, 32


def draw(part, n, num_classes=N_CLASSES):
  with tf.Graph().as_default(), tf.Session() as session:
    index = tf.placeholder(tf.int64, [])
    example = (
      synthetic_imagenet.image(part, index, num_classes, SIZE),
      synthetic_imagenet.label(part, index, num_classes),
    )
    images, labels = zip(*(session.run(example, {index: i}) for i in range(n)))
  return np.array(images), np.array(labels)


def spectra(images):
  """Features that do not depend on the shift of a pattern."""
  found = np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True), axes=(1, 2))).reshape(
    len(images), -1
  )
  return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_classes_can_be_learnt_but_not_from_single_pixels():
  train, train_labels = draw('train', 100)
  images, labels = draw('validation', 100)

  def accuracy(features, test_features):
    means = np.array([features[train_labels == c].mean(0) for c in range(N_CLASSES)])
    distances = ((test_features[:, None] - means) ** 2).sum(2)
    return (distances.argmin(1) == labels).mean()

  assert accuracy(spectra(train), spectra(images)) > 0.95
  assert accuracy(train.reshape(100, -1), images.reshape(100, -1)) < 0.5


def test_images_are_bytes_in_effect():
  images, labels = draw('train', 20)
  assert images.dtype == np.float32
  assert images.shape == (20, SIZE, SIZE, 3)
  assert 0 <= images.min() < images.max() <= 255
  np.testing.assert_array_equal(images, np.round(images))
  assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10))
  assert not (images[0] == images[10]).all()


def test_depends_on_part_and_number_alone():
  images, _ = draw('train', 12)
  np.testing.assert_array_equal(draw('train', 12)[0], images)
  assert not (draw('validation', 12)[0] == images).all((1, 2, 3)).any()


@pytest.mark.parametrize(
  'part, num_classes, digest, labels',
  [
    ('train', 10, 3606153301, [9, 1, 0, 6, 8, 3, 2, 4, 5, 7, 9, 1]),
    ('validation', 1000, 3188411444, [628, 855, 943, 548, 965, 635, 948, 201, 236, 863, 702, 659]),
  ],
)
def test_images_are_frozen(part, num_classes, digest, labels):
  """Training and evaluation must use the same data."""
  images, found = draw(part, 12, num_classes)
  assert found.tolist() == labels
  assert zlib.crc32(images.astype(np.uint8).tobytes()) == digest

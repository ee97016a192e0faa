"""The synthetic problem."""

from __future__ import annotations

import numpy as np

from rigl.compat import tf
from rigl.imagenet_resnet import synthetic_imagenet

N_CLASSES, SIZE = 10, 32


def draw(part, n, seed=0):
  with tf.Graph().as_default(), tf.Session() as session:
    index = tf.placeholder(tf.int64, [])
    example = (
        synthetic_imagenet.image(part, index, N_CLASSES, seed, SIZE),
        synthetic_imagenet.label(part, index, N_CLASSES, seed))
    images, labels = zip(*(
        session.run(example, {index: i}) for i in range(n)))
  return np.array(images), np.array(labels)


def spectra(images):
  """What does not depend on the place of a pattern."""
  found = np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True),
                             axes=(1, 2))).reshape(len(images), -1)
  return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_classes_can_be_learnt_but_not_from_single_pixels():
  train, train_labels = draw('train', 100)
  images, labels = draw('validation', 100)

  def accuracy(features, test_features):
    means = np.array([features[train_labels == c].mean(0)
                      for c in range(N_CLASSES)])
    distances = ((test_features[:, None] - means)**2).sum(2)
    return (distances.argmin(1) == labels).mean()

  assert accuracy(spectra(train), spectra(images)) > .95
  assert accuracy(train.reshape(100, -1), images.reshape(100, -1)) < .5


def test_images_are_bytes_in_effect():
  images, labels = draw('train', 20)
  assert images.dtype == np.float32
  assert images.shape == (20, SIZE, SIZE, 3)
  assert 0 <= images.min() < images.max() <= 255
  np.testing.assert_array_equal(images, np.round(images))
  assert sorted(labels[:10]) == sorted(labels[10:]) == list(range(10))
  assert not (images[0] == images[10]).all()


def test_depends_on_seed_part_and_number_alone():
  images, labels = draw('train', 12, seed=3)
  again, same_labels = draw('train', 12, seed=3)
  np.testing.assert_array_equal(again, images)
  np.testing.assert_array_equal(same_labels, labels)
  for other in (draw('train', 12, seed=4), draw('validation', 12, seed=3)):
    assert not (other[0] == images).all((1, 2, 3)).any()

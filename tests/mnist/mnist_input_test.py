"""Batches of digits: content and order, from any iteration on."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.mnist import mnist_input

N, BATCH_SIZE, N_PIXELS = 23, 5, 6
N_BATCHES = 4  # Three digits of an epoch are left out.


def digits():
  """Images that tell their number: pixel k is number + k."""
  numbers = np.arange(N, dtype=np.uint8)
  return numbers[:, None] + np.arange(N_PIXELS, dtype=np.uint8), numbers


def batches(first, end, seed=0, batch_size=BATCH_SIZE):
  """The batches as [(images, labels)]."""
  images, labels = digits()
  with tf.Graph().as_default(), tf.Session() as session:
    dataset = mnist_input.train_dataset(images, labels, batch_size, first, end, seed)
    batch = tf.data.make_one_shot_iterator(dataset).get_next()
    assert [t.shape.as_list() for t in batch] == [[batch_size, N_PIXELS], [batch_size]]
    result = []
    while True:
      try:
        result.append(session.run(batch))
      except tf.errors.OutOfRangeError:
        return result


def numbers(first, end, seed=0, batch_size=BATCH_SIZE):
  """The digits of each batch."""
  found = []
  for images, labels in mnist_input.epochs(*digits(), batch_size, first, end, seed):
    np.testing.assert_array_equal(images, labels[..., None] + np.arange(N_PIXELS))
    found += labels.tolist()
  return found


@pytest.fixture(scope='module')
def stream():
  """Three epochs."""
  return numbers(0, 3 * N_BATCHES)


@pytest.mark.parametrize('first, end', [(0, 3 * N_BATCHES), (5, 7), (3, 2 * N_BATCHES + 1), (9, 9)])
def test_types_scale_and_that_labels_belong_to_images(stream, first, end):
  found = batches(first, end)
  assert [labels.tolist() for _, labels in found] == stream[first:end]
  for images, labels in found:
    assert images.dtype == np.float32 and labels.dtype == np.int32
    np.testing.assert_allclose(images, (labels[:, None] + np.arange(N_PIXELS)) / 255.0, rtol=1e-6)


def test_an_epoch_has_each_digit_at_most_once_in_whole_batches(stream):
  assert len(stream) == 3 * N_BATCHES
  for epoch in range(3):
    seen = sum(stream[epoch * N_BATCHES :][:N_BATCHES], [])
    assert len(seen) == len(set(seen)) == N_BATCHES * BATCH_SIZE


def test_epochs_differ_in_order_and_in_what_they_leave_out(stream):
  epochs = [sum(stream[e * N_BATCHES :][:N_BATCHES], []) for e in range(3)]
  assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
  assert len({frozenset(epoch) for epoch in epochs}) > 1
  assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize('first', range(3 * N_BATCHES + 1))
def test_later_start_gives_the_rest_of_the_stream(stream, first):
  assert numbers(first, 3 * N_BATCHES) == stream[first:]


@pytest.mark.parametrize('end', [0, 1, N_BATCHES, N_BATCHES + 1])
def test_earlier_end_cuts_the_stream(stream, end):
  assert numbers(0, end) == stream[:end]


def test_start_and_end_within_one_epoch(stream):
  assert numbers(5, 7) == stream[5:7]


def test_nothing_after_the_end():
  assert numbers(3 * N_BATCHES + 2, 3 * N_BATCHES) == []


def test_seed_decides_the_order(stream):
  assert numbers(0, 3 * N_BATCHES, seed=0) == stream
  assert numbers(0, 3 * N_BATCHES, seed=1) != stream
  # Epoch 1 of a seed is no epoch of the next one.
  assert numbers(0, N_BATCHES, seed=1) != stream[N_BATCHES : 2 * N_BATCHES]


def test_one_batch_an_epoch():
  assert [sorted(batch) for batch in numbers(0, 3, batch_size=N)] == [list(range(N))] * 3


def test_flat_pixels():
  images = np.arange(2 * 28 * 28).reshape(2, 28, 28).astype(np.uint8)
  flat = mnist_input.flat_pixels(images)
  assert flat.shape == (2, 784)
  assert flat[1, 29] == images[1, 1, 1]
  kept = np.zeros(784, bool)
  kept[[3, 29, 783]] = True
  np.testing.assert_array_equal(
    mnist_input.flat_pixels(images, kept),
    [[image[0, 3], image[1, 1], image[27, 27]] for image in images],
  )


def test_scale_pixels():
  with tf.Graph().as_default(), tf.Session() as session:
    scaled = session.run(mnist_input.scale_pixels(tf.constant([0, 51, 255], tf.uint8)))
  assert scaled.dtype == np.float32
  np.testing.assert_allclose(scaled, [0.0, 0.2, 1.0])

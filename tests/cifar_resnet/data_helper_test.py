"""The batches of CIFAR-10 against numpy, from any start, in any process."""

from __future__ import annotations

import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rigl.cifar_resnet import cifar_data, data_helper
from rigl.compat import tf
from rigl.core import ordering
from tests import tiny_cifar

ROOT = pathlib.Path(__file__).resolve().parents[2]
N = 50
BATCH = 8
N_BATCHES = N // BATCH

DATA = tiny_cifar.make_images(N, 23)
# The label of an image is its number, to identify the images of a batch.
IDS = np.arange(N, dtype=np.uint8)


def take(make_dataset, n: int | None = None) -> list[tuple[np.ndarray, ...]]:
  """The first n batches of a dataset, or all of them."""
  batches = []
  with tf.Graph().as_default():
    batch = tf.data.make_one_shot_iterator(make_dataset()).get_next()
    with tf.Session() as session:
      while n is None or len(batches) < n:
        try:
          batches.append(session.run(batch))
        except tf.errors.OutOfRangeError:
          break
  return batches


def train(n: int | None = None, seed: int = 0, **arguments):
  return take(
    lambda: data_helper.train_dataset(DATA.train_images, IDS, BATCH, seed, **arguments), n
  )


def training_labels(n: int, seed: int = 0, first: int = 0) -> list[list[int]]:
  """The labels of n batches; checks their images and numbers."""
  found = []
  batches = data_helper.training_batches(DATA.train_images, IDS, BATCH, seed, first)
  for wanted, (images, labels, iteration) in enumerate(itertools.islice(batches, n), first):
    np.testing.assert_array_equal(images, DATA.train_images[labels])
    assert iteration == wanted
    found.append(labels.tolist())
  return found


def assert_same_batches(found, expected):
  assert len(found) == len(expected)
  for (images, labels), (other_images, other_labels) in zip(found, expected):
    np.testing.assert_array_equal(images, other_images)
    np.testing.assert_array_equal(labels, other_labels)


def standardised(images: np.ndarray) -> np.ndarray:
  """float64 [n, 32, 32, 3], each of mean 0 and variance 1."""
  images = images.astype(np.float64)
  deviation = images.std(axis=(1, 2, 3), keepdims=True)
  centred = images - images.mean(axis=(1, 2, 3), keepdims=True)
  return centred / np.maximum(deviation, 1 / np.sqrt(3072))


def crop(image: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
  padded = np.pad(image, [(4, 4), (4, 4), (0, 0)], mode='symmetric')
  cropped = padded[top : top + 32, left : left + 32]
  return cropped[:, ::-1] if flip else cropped


def run(*tensors):
  with tf.Session() as session:
    return session.run(tensors)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_crop_and_flip_at_every_position(graph, dtype):
  positions = [(top, left, flip) for top in range(9) for left in range(9) for flip in (False, True)]
  images = tiny_cifar.make_images(len(positions), 1).train_images.astype(dtype)
  tops, lefts, flips = map(np.array, zip(*positions))
  (found,) = run(
    data_helper.crop_and_flip(
      tf.constant(images),
      tf.constant(tops, tf.int32),
      tf.constant(lefts, tf.int32),
      tf.constant(flips),
    )
  )
  assert found.dtype == dtype
  np.testing.assert_array_equal(
    found, [crop(image, *position) for image, position in zip(images, positions)]
  )


def test_the_padding_begins_with_the_edge_itself(graph):
  image = np.zeros((1, 32, 32, 3), np.uint8)
  image[0, :, :, 0] = np.arange(32)[:, None]
  image[0, :, :, 1] = np.arange(32)
  (first,), (last,) = run(
    *(
      data_helper.crop_and_flip(
        tf.constant(image), tf.constant([start]), tf.constant([start]), tf.constant([False])
      )
      for start in (0, 8)
    )
  )
  assert first[:6, 0, 0].tolist() == [3, 2, 1, 0, 0, 1]
  assert first[0, :6, 1].tolist() == [3, 2, 1, 0, 0, 1]
  assert last[-6:, 0, 0].tolist() == [30, 31, 31, 30, 29, 28]
  assert last[0, -6:, 1].tolist() == [30, 31, 31, 30, 29, 28]


def test_statistics_are_those_of_numpy(graph):
  images = np.concatenate(
    [
      DATA.train_images,
      np.zeros((1, 32, 32, 3), np.uint8),
      np.full((1, 32, 32, 3), 255, np.uint8),
      # The largest variance, and the smallest above 0.
      np.arange(3072, dtype=np.uint8).reshape(1, 32, 32, 3) % 2 * 255,
      (np.arange(3072) == 0).astype(np.uint8).reshape(1, 32, 32, 3),
    ]
  )
  mean, deviation = run(*data_helper.pixel_statistics(tf.constant(images)))
  assert mean.shape == deviation.shape == (len(images), 1, 1, 1)
  expected = images.astype(np.float64)
  np.testing.assert_allclose(mean[:, 0, 0, 0], expected.mean(axis=(1, 2, 3)), rtol=1e-6)
  np.testing.assert_allclose(
    deviation[:, 0, 0, 0], np.maximum(expected.std(axis=(1, 2, 3)), 3072**-0.5), rtol=1e-6
  )


def test_evaluation_images_are_standardised_and_nothing_else(graph):
  images = np.concatenate([DATA.test_images, np.full((1, 32, 32, 3), 7, np.uint8)])
  batches = take(lambda: data_helper.eval_dataset(images, np.arange(24, dtype=np.uint8), 7))
  assert [len(labels) for _, labels in batches] == [7, 7, 7, 3]
  found, labels = map(np.concatenate, zip(*batches))
  assert found.dtype == np.float32 and labels.dtype == np.int32
  assert labels.tolist() == list(range(24))
  np.testing.assert_allclose(found, standardised(images), atol=1e-5)
  assert not found[-1].any()
  (theirs,) = run(tf.image.per_image_standardization(tf.constant(images)))
  np.testing.assert_allclose(found, theirs, atol=1e-5)


@pytest.mark.parametrize('batch_size', [1, 7, 37, 128, 10000])
def test_evaluation_sees_every_image_once_and_in_order(batch_size):
  images, labels = np.arange(2 * 259).reshape(259, 2), np.arange(259)
  batches = list(data_helper.eval_batches(images, labels, batch_size))
  assert [len(batch_labels) for _, batch_labels in batches[:-1]] == [batch_size] * (
    -(-259 // batch_size) - 1
  )
  found_images, found_labels = map(np.concatenate, zip(*batches))
  np.testing.assert_array_equal(found_images, images)
  np.testing.assert_array_equal(found_labels, labels)


def test_training_batches_are_those_of_numpy():
  """The order is epoch_order; each image is one of its 162 crops."""
  positions = [(top, left, flip) for top in range(9) for left in range(9) for flip in (False, True)]
  expected_images = standardised(DATA.train_images)
  seen = []
  for iteration, (images, labels) in enumerate(train(2 * N_BATCHES + 1)):
    order = ordering.epoch_order(N, 0, iteration // N_BATCHES)
    begin = iteration % N_BATCHES * BATCH
    np.testing.assert_array_equal(labels, order[begin : begin + BATCH])
    for image, label in zip(images, labels):
      candidates = np.stack([crop(expected_images[label], *position) for position in positions])
      distances = np.abs(candidates - image).max(axis=(1, 2, 3))
      assert distances.min() < 1e-5
      assert np.sort(distances)[1] > 0.1
      seen.append(positions[distances.argmin()])
  tops, lefts, flips = zip(*seen)
  assert set(tops) == set(lefts) == set(range(9))
  assert len(set(seen)) > len(seen) / 2
  assert 0.3 < np.mean(flips) < 0.7


def test_training_types_and_shapes():
  with tf.Graph().as_default():
    dataset = data_helper.train_dataset(DATA.train_images, IDS, BATCH, 0)
    images, labels = tf.data.get_output_shapes(dataset)
    assert images.as_list() == [BATCH, 32, 32, 3]
    assert labels.as_list() == [BATCH]
    assert tf.data.get_output_types(dataset) == (tf.float32, tf.int32)


def test_an_epoch_has_no_image_twice_and_drops_the_incomplete_batch():
  labels = np.concatenate(training_labels(3 * N_BATCHES))
  epochs = labels.reshape(3, N_BATCHES * BATCH)
  for epoch in epochs:
    assert len(set(epoch)) == N_BATCHES * BATCH
  # Each epoch leaves out other images.
  assert set(epochs[0]) != set(epochs[1]) != set(epochs[2])


@pytest.fixture(scope='module')
def whole():
  """Three epochs of batches."""
  return train(3 * N_BATCHES, seed=3)


@pytest.mark.parametrize(
  'first', [0, 1, N_BATCHES - 1, N_BATCHES, 2 * N_BATCHES + 1, 3 * N_BATCHES - 1]
)
def test_a_resumed_training_gets_the_rest(whole, first):
  assert_same_batches(train(3 * N_BATCHES - first, seed=3, first_iteration=first), whole[first:])


def test_batches_begin_anywhere():
  whole = training_labels(2 * N_BATCHES)
  for first in range(2 * N_BATCHES + 1):
    assert training_labels(2 * N_BATCHES - first, first=first) == whole[first:]


def test_seeds_change_the_order():
  assert training_labels(1) != training_labels(1, seed=1)


def test_iterations_and_seeds_change_the_augmentation():
  # A single image: batches differ only by its augmentation.
  one = np.repeat(DATA.train_images[:1], N, axis=0)
  batches = [
    images.tobytes()
    for seed in range(2)
    for images, _ in take(
      lambda seed=seed: data_helper.train_dataset(one, IDS, BATCH, seed), N_BATCHES + 1
    )
  ]
  assert len(set(batches)) == len(batches)


def draw(n: int, seed: int, iteration: int) -> list[np.ndarray]:
  with tf.Graph().as_default():
    return run(*data_helper.draw_augmentation(n, seed, tf.constant(iteration, tf.int64)))


def test_draws_are_frozen():
  # Literals, so that a later release cannot change runs in progress.
  tops, lefts, flips = draw(8, seed=7, iteration=3)
  assert tops.tolist() == [8, 3, 4, 3, 2, 1, 0, 0]
  assert lefts.tolist() == [4, 2, 0, 1, 2, 8, 0, 3]
  assert flips.astype(int).tolist() == [0, 0, 1, 0, 1, 0, 0, 1]


def test_draws_are_uniform_and_independent():
  tops, lefts, flips = draw(81 * 200, 0, 2**40)
  for count in np.bincount(tops * 9 + lefts, minlength=81):
    # Five standard deviations.
    assert abs(count - 200) < 5 * 200**0.5
  assert abs(flips.mean() - 0.5) < 0.02
  for values in (tops, lefts):
    assert abs(values[flips].mean() - 4.0) < 0.15
  assert (draw(100, 0, 1)[0] != draw(100, 0, 2)[0]).mean() > 0.7
  assert (draw(100, 0, 1)[0] != draw(100, 1, 1)[0]).mean() > 0.7


PRINT_DIGESTS = """
import sys, zlib
from rigl.cifar_resnet import data_helper
from rigl.compat import tf
from tests import tiny_cifar

tf.disable_v2_behavior()
data = tiny_cifar.make_images(50, 1)
n_threads = int(sys.argv[1])
config = tf.ConfigProto(intra_op_parallelism_threads=n_threads,
                        inter_op_parallelism_threads=n_threads)
for batch_size in (1, 8):
  dataset = data_helper.train_dataset(
      data.train_images, data.train_labels, batch_size, 2)
  batch = tf.data.make_one_shot_iterator(dataset).get_next()
  digest = 0
  with tf.Session(config=config) as session:
    for _ in range(20):
      for array in session.run(batch):
        digest = zlib.crc32(array.tobytes(), digest)
  print(digest)
"""


def test_batches_do_not_depend_on_the_process_or_its_threads():
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', PRINT_DIGESTS, n_threads],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONHASHSEED': n_threads},
    )
    for n_threads in ('1', '7')
  ]
  first, second = [process.communicate()[0] for process in processes]
  assert first == second
  assert len(first.split()) == 2


def test_the_data_are_not_in_the_graph():
  with tf.Graph().as_default() as graph:
    for mode in data_helper.MODES:
      dataset = data_helper.input_fn({'mode': mode, 'batch_size': 4, 'data': DATA})
      tf.data.make_one_shot_iterator(dataset).get_next()
    assert graph.as_graph_def().ByteSize() < 50_000


def test_input_fn_passes_on_what_it_is_given():
  params = {'mode': 'train', 'batch_size': BATCH, 'seed': 5, 'data': DATA, 'first_iteration': 4}
  assert_same_batches(
    take(lambda: data_helper.input_fn(params), 3),
    take(lambda: data_helper.train_dataset(DATA.train_images, DATA.train_labels, BATCH, 5, 4), 3),
  )
  params['mode'] = 'eval'
  assert_same_batches(
    take(lambda: data_helper.input_fn(params)),
    take(lambda: data_helper.eval_dataset(DATA.test_images, DATA.test_labels, BATCH)),
  )


def test_input_fn_loads_a_folder(tmp_path):
  tiny_cifar.write_folder(
    tmp_path / 'data', tiny_cifar.files(DATA, '.bin', tiny_cifar.binary_batch)
  )
  params = {'mode': 'eval', 'batch_size': 100, 'data_directory': str(tmp_path / 'data')}
  ((_, labels),) = take(lambda: data_helper.input_fn(params))
  np.testing.assert_array_equal(labels, DATA.test_labels)


def test_input_fn_makes_up_synthetic_data(monkeypatch):
  """The same for any seed of the training."""
  made = cifar_data.make_synthetic(30, 20)
  monkeypatch.setattr(cifar_data, 'make_synthetic', lambda: made)
  params = {'mode': 'eval', 'batch_size': 100, 'use_synthetic_data': True, 'seed': 6}
  ((_, labels),) = take(lambda: data_helper.input_fn(params))
  np.testing.assert_array_equal(labels, made.test_labels)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'mode': 'infer'}, "mode 'infer' is not one of train, eval"),
    ({'mode': None}, 'mode None is not one of train, eval'),
    ({'batch_size': 0}, 'batch_size must be > 0, got 0'),
    ({'batch_size': None}, 'batch_size is missing'),
    ({'batch_size': 51}, 'batch_size 51 is more than the 50 training images'),
    ({'batch_size': -1, 'mode': 'eval'}, 'batch_size must be > 0, got -1'),
    ({'first_iteration': -1}, 'first_iteration must be >= 0, got -1'),
  ],
)
def test_bad_params(changes, message):
  params = {'mode': 'train', 'batch_size': 4, 'data': DATA, **changes}
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=message):
      data_helper.input_fn(params)


def test_without_data_the_error_lists_the_ways():
  with pytest.raises(FileNotFoundError, match='three ways'):
    data_helper.input_fn({'mode': 'train', 'batch_size': 4})

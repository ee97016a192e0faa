"""Decoding, cropping and resizing of pictures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rigl.compat import tf
from rigl.imagenet_resnet import preprocessing
from tests import tiny_imagenet

PIXELS = tiny_imagenet.make_pixels(3, 61, 47)
# Name -> (the bytes of PIXELS, the largest difference it makes).
ENCODINGS = {
  'JPEG': (tiny_imagenet.encode(PIXELS), 8),
  'PNG': (tiny_imagenet.encode(PIXELS, 'PNG'), 0),
  'CMYK JPEG': (tiny_imagenet.encode(PIXELS, mode='CMYK'), 8),
  'grey JPEG': (tiny_imagenet.encode(PIXELS, mode='L'), 8),
  'grey PNG': (tiny_imagenet.encode(PIXELS, 'PNG', 'L'), 0),
  'RGBA PNG': (tiny_imagenet.encode(PIXELS, 'PNG', 'RGBA'), 0),
  'palette PNG': (tiny_imagenet.encode(PIXELS, 'PNG', 'P'), 0),
}


def evaluate(make, feeds=None):
  """Runs what make(placeholders) gives, for each of feeds."""
  with tf.Graph().as_default(), tf.Session() as session:
    if feeds is None:
      return session.run(make())
    feed = tf.placeholder(tf.int64, [])
    result = make(feed)
    return [session.run(result, {feed: value}) for value in feeds]


def decoded_by_pillow(name):
  with Image.open(io.BytesIO(ENCODINGS[name][0])) as picture:
    return np.asarray(picture.convert('RGB'), int)


@pytest.mark.parametrize('name', ENCODINGS)
def test_decodes_as_pillow(name):
  encoded, tolerance = ENCODINGS[name]
  found = evaluate(lambda: preprocessing.decode_all(tf.constant(encoded)))
  assert found.dtype == np.uint8
  expected = decoded_by_pillow(name)
  assert found.shape == expected.shape
  # Pillow and TensorFlow turn CMYK into RGB alike, and round differently.
  assert np.abs(found.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize('name', ENCODINGS)
def test_decodes_a_part(name):
  encoded = ENCODINGS[name][0]
  part = evaluate(
    lambda: preprocessing.decode_window(
      tf.constant(encoded), lambda height, width: tf.stack([7, 5, 31, 22])
    )
  )
  whole = evaluate(lambda: preprocessing.decode_all(tf.constant(encoded)))
  np.testing.assert_array_equal(part, whole[7:38, 5:27])


@pytest.mark.parametrize('name', ENCODINGS)
def test_every_encoding_survives(name):
  encoded = ENCODINGS[name][0]
  for make in (
    lambda: preprocessing.preprocess_eval(tf.constant(encoded), 32),
    lambda: preprocessing.preprocess_train(
      tf.constant(encoded), tf.constant([1, 2], tf.int64), tf.constant([3, 4], tf.int64), 32
    ),
  ):
    image = evaluate(make)
    assert image.dtype == np.float32
    assert image.shape == (32, 32, 3)
    assert 0 <= image.min() < image.max() <= 255


def test_bfloat16():
  image = evaluate(
    lambda: tf.cast(
      preprocessing.preprocess_eval(tf.constant(ENCODINGS['PNG'][0]), 16, tf.bfloat16), tf.float32
    )
  )
  full = evaluate(lambda: preprocessing.preprocess_eval(tf.constant(ENCODINGS['PNG'][0]), 16))
  np.testing.assert_allclose(image, full, rtol=2**-8)


@pytest.mark.parametrize(
  'height, width, image_size, expected',
  [
    # 256 * 224 // 256 = 224.
    (256, 341, 224, [16, 59, 224, 224]),
    (500, 375, 224, [86, 24, 328, 328]),
    (8, 6, 32, [3, 2, 3, 3]),
    (1, 1, 224, [0, 0, 1, 1]),
  ],
)
def test_the_middle_worked_out_by_hand(height, width, image_size, expected):
  window = evaluate(
    lambda: preprocessing.central_window(tf.constant(height), tf.constant(width), image_size)
  )
  assert window.tolist() == expected


def test_evaluation_of_a_picture_that_needs_no_resizing():
  pixels = np.random.RandomState(0).randint(0, 256, (64, 80, 3)).astype(np.uint8)
  encoded = tiny_imagenet.encode(pixels, 'PNG')
  image = evaluate(lambda: preprocessing.preprocess_eval(tf.constant(encoded), 32))
  np.testing.assert_array_equal(image, pixels[16:48, 24:56])


def cubic(distance):
  """Keys' kernel for a = -0.75, as TensorFlow's at the corners of the grid."""
  d, a = np.abs(distance), -0.75
  near = (a + 2) * d**3 - (a + 3) * d**2 + 1
  far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
  return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resize_by_hand(pixels, size):
  """Bicubic at positions i * old / new, edges repeated."""
  for axis in (0, 1):
    n = pixels.shape[axis]
    positions = np.arange(size) * n / size
    taps = np.floor(positions).astype(int)[:, None] + np.arange(-1, 3)
    weights = cubic(positions[:, None] - taps)
    rows = np.moveaxis(pixels, axis, 0)[np.clip(taps, 0, n - 1)]
    pixels = np.moveaxis(np.einsum('ij,ij...->i...', weights, rows), 0, axis)
  return np.clip(pixels, 0, 255)


@pytest.mark.parametrize('side', [40, 128])
def test_resizes_bicubically(side):
  pixels = np.random.RandomState(1).randint(0, 256, (side, side, 3)).astype(np.uint8)
  encoded = tiny_imagenet.encode(pixels, 'PNG')
  image = evaluate(lambda: preprocessing.preprocess_eval(tf.constant(encoded), 32))
  inner = side * 32 // 64
  begin = (side - inner + 1) // 2
  part = pixels[begin : begin + inner, begin : begin + inner].astype(float)
  np.testing.assert_allclose(image, resize_by_hand(part, 32), atol=0.5)


@pytest.mark.parametrize('height, width', [(375, 500), (60, 40), (200, 200)])
def test_random_parts_keep_to_their_ranges(height, width):
  windows = np.array(
    evaluate(
      lambda number: preprocessing.random_window(
        tf.constant(height), tf.constant(width), tf.stack([tf.constant(0, tf.int64), number]), 224
      ),
      range(300),
    )
  )
  top, left, rows, columns = windows.T
  assert (windows >= 0).all()
  assert (top + rows <= height).all()
  assert (left + columns <= width).all()
  area = rows * columns / (height * width)
  # In a small picture a single pixel matters.
  rounding = 1.5 * (height + width) / (height * width)
  assert area.min() > 0.08 - rounding
  assert area.min() < 0.2
  assert area.max() > 0.8
  ratio = columns / rows
  assert ratio.min() > 0.75 - 0.05
  assert ratio.max() < 4 / 3 + 0.05
  assert len(np.unique(windows, axis=0)) > 280


def test_the_middle_if_no_part_fits():
  window = evaluate(
    lambda: preprocessing.random_window(
      tf.constant(4), tf.constant(1000), tf.constant([0, 0], tf.int64), 224
    )
  )
  assert window.tolist() == [1, 499, 3, 3]


def test_half_of_the_pictures_are_flipped():
  encoded = ENCODINGS['PNG'][0]

  def both(number):
    seeds = [tf.stack([tf.constant(k, tf.int64), number]) for k in (1, 2)]
    window = preprocessing.decode_window(
      tf.constant(encoded),
      lambda height, width: preprocessing.random_window(height, width, seeds[0], 16),
    )
    image = preprocessing.preprocess_train(tf.constant(encoded), *seeds, 16)
    return image, tf.clip_by_value(
      tf.raw_ops.ResizeBicubic(images=window[None], size=[16, 16])[0], 0.0, 255.0
    )

  n_flipped = 0
  for image, unflipped in evaluate(both, range(60)):
    is_flipped = np.array_equal(image, unflipped[:, ::-1])
    assert is_flipped or np.array_equal(image, unflipped)
    n_flipped += is_flipped
  assert 18 <= n_flipped <= 42


@pytest.mark.parametrize(
  'encoded, expected',
  [
    (ENCODINGS['JPEG'][0], True),
    (ENCODINGS['CMYK JPEG'][0], True),
    (ENCODINGS['JPEG'][0][:-1], False),
    (ENCODINGS['PNG'][0], False),
    (b'', False),
  ],
)
def test_what_looks_complete(encoded, expected):
  assert evaluate(lambda: preprocessing.looks_complete(tf.constant(encoded))) == expected

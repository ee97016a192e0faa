"""Decodes pictures to input images.

Training uses a random crop, resized, as in https://arxiv.org/abs/1409.4842;
evaluation uses a central crop. Only the crop of a JPEG is decoded. ImageNet
labels all its pictures as JPEGs, but one is a PNG and some have the colour
space CMYK, so the content decides.
"""

from __future__ import annotations

from typing import Callable

from rigl import tf_random
from rigl.compat import tf, tf2

AREA_RANGE = (0.08, 1.0)
ASPECT_RATIO_RANGE = (3.0 / 4.0, 4.0 / 3.0)
MAX_ATTEMPTS = 10
# For evaluation, the crop is this much smaller than the resized picture.
CROP_PADDING = 32

_JPEG_START = b'\xff\xd8\xff'
_JPEG_END = b'\xff\xd9'

# (height, width) -> (top, left, height, width) of a crop, all int32 scalars.
_Window = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def preprocess_train(
  encoded: tf.Tensor,
  crop_seed: tf.Tensor,
  flip_seed: tf.Tensor,
  image_size: int = 224,
  dtype: tf.DType = tf.float32,
) -> tf.Tensor:
  """A random crop of a picture, flipped at random.

  The crop has 8% to 100% of the area and an aspect ratio between 3/4 and 4/3.
  If 10 draws give none that fits into the picture, it is the central crop.

  Args:
    encoded: string scalar, a JPEG or PNG.
    crop_seed: int64 [2].
    flip_seed: int64 [2].
    image_size: height and width of the result.
    dtype: dtype of the result.

  Returns:
    `dtype` [image_size, image_size, 3], from 0 to 255.
  """
  image = _resize(
    decode_window(
      encoded, lambda height, width: random_window(height, width, crop_seed, image_size)
    ),
    image_size,
  )
  flip = tf.random.stateless_uniform([], flip_seed, 0, 2, tf.int32, alg=tf_random.GENERATOR)
  image = tf.cond(tf.equal(flip, 1), lambda: tf.reverse(image, [1]), lambda: image)
  return _finish(image, image_size, dtype)


def preprocess_eval(
  encoded: tf.Tensor, image_size: int = 224, dtype: tf.DType = tf.float32
) -> tf.Tensor:
  """The `central_window` of a picture; arguments and result as of `preprocess_train`."""
  image = decode_window(encoded, lambda height, width: central_window(height, width, image_size))
  return _finish(_resize(image, image_size), image_size, dtype)


def random_window(
  height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor, image_size: int
) -> tf.Tensor:
  """Draws a crop of random size and position.

  Args:
    height: int32 scalar, that of the picture.
    width: int32 scalar, that of the picture.
    seed: int64 [2].
    image_size: height and width of the result; it decides on the `central_window`, which is used
      if no draw fits.

  Returns:
    int32 [4]: top, left, height and width of the crop.
  """
  begin, size, _ = tf2.image.stateless_sample_distorted_bounding_box(
    tf.stack([height, width, 3]),
    tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
    seed,
    min_object_covered=0.0,
    aspect_ratio_range=ASPECT_RATIO_RANGE,
    area_range=AREA_RANGE,
    max_attempts=MAX_ATTEMPTS,
  )
  # The operation returns the whole picture if no draw fits.
  failed = tf.reduce_all(tf.equal(size[:2], tf.stack([height, width])))
  return tf.cond(
    failed,
    lambda: central_window(height, width, image_size),
    lambda: tf.concat([begin[:2], size[:2]], 0),
  )


def central_window(height: tf.Tensor, width: tf.Tensor, image_size: int) -> tf.Tensor:
  """The central square, image_size / (image_size + 32) of the short side.

  Arguments and result are those of `random_window`.
  """
  side = tf.minimum(height, width) * image_size // (image_size + CROP_PADDING)
  side = tf.maximum(side, 1)
  return tf.stack([(height - side + 1) // 2, (width - side + 1) // 2, side, side])


def decode_window(encoded: tf.Tensor, window: _Window) -> tf.Tensor:
  """Decodes a crop of a JPEG or PNG of any colour space as uint8 [height, width, 3]."""

  def decode_jpeg() -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(encoded)
    return tf.image.decode_and_crop_jpeg(encoded, window(shape[0], shape[1]), channels=3)

  def decode_other() -> tf.Tensor:
    image = tf.image.decode_png(encoded, channels=3)
    shape = tf.shape(image)
    part = window(shape[0], shape[1])
    return tf.slice(image, tf.concat([part[:2], [0]], 0), tf.concat([part[2:], [3]], 0))

  return tf.cond(_starts_with(encoded, _JPEG_START), decode_jpeg, decode_other)


def decode_all(encoded: tf.Tensor) -> tf.Tensor:
  """Decodes a whole JPEG or PNG as uint8 [height, width, 3]."""
  return decode_window(encoded, lambda height, width: tf.stack([0, 0, height, width]))


def looks_complete(encoded: tf.Tensor) -> tf.Tensor:
  """Whether bytes, a string scalar, start and end like a JPEG; bool scalar."""
  n = tf.strings.length(encoded)
  end = tf.strings.substr(encoded, tf.maximum(n - 2, 0), 2)
  return tf.logical_and(_starts_with(encoded, _JPEG_START), tf.equal(end, _JPEG_END))


def _starts_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
  return tf.equal(tf.strings.substr(encoded, 0, len(start)), start)


def _resize(image: tf.Tensor, image_size: int) -> tf.Tensor:
  """uint8 [h, w, 3] as float32 [image_size, image_size, 3]."""
  # The published checkpoints were trained without half-pixel centers, which
  # TensorFlow did not have at that time.
  return tf.raw_ops.ResizeBicubic(
    images=image[None], size=[image_size, image_size], align_corners=False, half_pixel_centers=False
  )[0]


def _finish(image: tf.Tensor, image_size: int, dtype: tf.DType) -> tf.Tensor:
  # Bicubic interpolation overshoots at edges.
  image = tf.raw_ops.ClipByValue(t=image, clip_value_min=0.0, clip_value_max=255.0)
  image.set_shape([image_size, image_size, 3])
  return tf.cast(image, dtype)

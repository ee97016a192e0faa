"""The records of ImageNet in order, each with its file and position.

TensorFlow's reader does not name the file of a damaged record. So reading ends
silently there, and at the end of each file the number of bytes read is compared
with its size.
"""

from __future__ import annotations

import functools
import re
import sys

import numpy as np

from rigl import tf_random
from rigl.compat import tf
from rigl.core import messages, seeding
from rigl.imagenet_resnet import imagenet_data

# Files read at the same time in training, and size of the shuffle buffer. If
# they change, a seed gives another order.
CYCLE_LENGTH = 16
SHUFFLE_BUFFER = 4096

_READ_BUFFER_BYTES = 2**20
_AUTOTUNE = tf.data.experimental.AUTOTUNE
# The functions of this file have no control flow to convert.
_as_it_is = tf.autograph.experimental.do_not_convert
# Markers in place of the position of a record in its file.
_END_OF_FILE, _END_OF_EPOCH = -1, -2


def training_records(
  data: imagenet_data.ImageNetData,
  part: imagenet_data.Part,
  seed: int,
  first_example: int,
  skips_corrupt: bool = False,
) -> tf.data.Dataset:
  """Endless epochs, each in its own order.

  Args:
    data: the data.
    part: the training images.
    seed: seed of the orders.
    first_example: first position in the sequence of all epochs.
    skips_corrupt: whether to warn where a file cannot be read.

  Returns:
    dataset of (path, position in the file as int64, record), all scalars.
  """
  first_epoch, n_skipped = divmod(first_example, part.num_images)
  digest = seeding.stable_seed('imagenet', 'order', seed)

  @_as_it_is
  def epoch_records(epoch: tf.Tensor) -> tf.data.Dataset:
    # The seed of shuffle also depends on that of the graph.
    tf.set_random_seed(0)
    epoch_seed = tf.stack([tf.constant(digest, tf.int64), epoch])
    numbers = tf.random.stateless_uniform(
      [max(len(part.files), 1) + 1], epoch_seed, None, None, tf.int32, alg=tf_random.GENERATOR
    )
    if data.is_synthetic:
      records = _synthetic_records(part)
    else:
      files = [tf.gather(column, tf.argsort(numbers[1:], stable=True)) for column in _columns(part)]
      records = tf.data.Dataset.from_tensor_slices(tuple(files)).interleave(
        functools.partial(_file_records, skips_corrupt=skips_corrupt),
        cycle_length=min(CYCLE_LENGTH, len(part.files)),
        block_length=1,
        num_parallel_calls=_AUTOTUNE,
        deterministic=True,
      )
      records = _only_records(records, part, skips_corrupt)
    if skips_corrupt:
      records = records.repeat().take(part.num_images)
    return records.shuffle(
      min(SHUFFLE_BUFFER, part.num_images),
      seed=tf.cast(numbers[0], tf.int64),
      reshuffle_each_iteration=False,
    )

  epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
  return epochs.flat_map(epoch_records).skip(n_skipped)


def ordered_records(
  data: imagenet_data.ImageNetData, part: imagenet_data.Part, skips_corrupt: bool = False
) -> tf.data.Dataset:
  """Each record of a part once, in the order of the files; see `training_records`."""
  if data.is_synthetic:
    return _synthetic_records(part)
  files = tf.data.Dataset.from_tensor_slices(_columns(part))
  records = files.flat_map(functools.partial(_file_records, skips_corrupt=skips_corrupt))
  return _only_records(records, part, skips_corrupt).prefetch(_AUTOTUNE)


def check(condition: tf.Tensor, message: tf.Tensor, warns: bool = False) -> tf.Operation:
  """An operation that raises InvalidArgumentError, or warns on stderr, unless a condition holds."""
  if warns:
    return tf.cond(
      condition,
      tf.no_op,
      lambda: tf.print(tf.strings.join(['Warning: ', message]), output_stream=sys.stderr),
    )
  # tf.debugging.Assert adds a tf.cond, which takes longer than making the
  # message.
  return tf.raw_ops.Assert(condition=condition, data=[tf.strings.join([messages.MARK, message])])


def place(path: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
  """Names a record in a message, by the path of its file and its position."""
  return tf.strings.join([path, ': record ', tf.as_string(index), ' (counted from 0)'])


def _columns(part: imagenet_data.Part) -> tuple[tf.Tensor, ...]:
  """Paths, patterns that match only the paths, and sizes of the files."""
  patterns = [re.sub(r'([*?\[\]\\])', r'\\\1', path) for path in part.files]
  return (tf.constant(part.files), tf.constant(patterns), tf.constant(part.sizes, tf.int64))


def _synthetic_records(part: imagenet_data.Part) -> tf.data.Dataset:
  """The numbers of synthetic images, with empty records."""
  return tf.data.Dataset.range(part.num_images).map(
    lambda index: (tf.constant(''), index, tf.constant(''))
  )


@_as_it_is
def _file_records(
  path: tf.Tensor, pattern: tf.Tensor, size: tf.Tensor, skips_corrupt: bool
) -> tf.data.Dataset:
  """The records of a file, and one of index -1 if read to the end."""
  # The reader would try endlessly to open a deleted file.
  is_there = tf.size(tf.io.matching_files(pattern)) > 0
  with tf.control_dependencies([check(is_there, tf.strings.join([path, ' has gone.']))]):
    path = tf.identity(path)
  records = tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER_BYTES).ignore_errors()
  is_end = tf.data.Dataset.from_tensors(False).repeat()
  records = tf.data.Dataset.zip((records, is_end)).concatenate(
    tf.data.Dataset.from_tensors((tf.constant(''), True))
  )

  def step(
    state: tuple[tf.Tensor, tf.Tensor], element: tuple[tf.Tensor, tf.Tensor]
  ) -> tuple[tuple, tuple]:
    (index, position), (record, is_end) = state, element
    bytes_read = [', at byte ', tf.as_string(position), ' of ', tf.as_string(size)]
    end = ', cannot be read; the file is truncated or damaged.'
    message = tf.strings.join([place(path, index), *bytes_read, end])
    is_complete = tf.logical_or(tf.logical_not(is_end), tf.equal(position, size))
    with tf.control_dependencies([check(is_complete, message, skips_corrupt)]):
      found = tf.where_v2(is_end, tf.constant(_END_OF_FILE, tf.int64), index)
    position += imagenet_data.RECORD_OVERHEAD + tf.cast(tf.strings.length(record), tf.int64)
    return (index + 1, position), (path, found, record)

  zero = tf.constant(0, tf.int64)
  return records.scan((zero, zero), step)


def _only_records(
  records: tf.data.Dataset, part: imagenet_data.Part, skips_corrupt: bool
) -> tf.data.Dataset:
  """Removes the markers of file ends, and checks the number of records."""
  end = tf.data.Dataset.from_tensors(
    (tf.constant(''), tf.constant(_END_OF_EPOCH, tf.int64), tf.constant(''))
  )

  @_as_it_is
  def is_record(number: tf.Tensor, element: tuple[tf.Tensor, ...]) -> tf.Tensor:
    index = element[1]
    if skips_corrupt:
      return index >= 0
    found = number - len(part.files)
    before, *others = imagenet_data.wrong_number(part, '\0').split('\0')
    pieces = [piece for text in others for piece in (tf.as_string(found), text)]
    # The number of records is known only at the end.
    is_right = tf.logical_or(tf.not_equal(index, _END_OF_EPOCH), tf.equal(found, part.num_images))
    with tf.control_dependencies([check(is_right, tf.strings.join([before, *pieces]))]):
      return index >= 0

  return records.concatenate(end).enumerate().filter(is_record).map(lambda number, element: element)

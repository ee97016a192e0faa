"""Batches of ImageNet, determined by the seed.

Training batch k depends only on the seed and k: epoch e shuffles files and
records by (seed, e), the epochs follow each other without a gap, and batch k
has the examples k * batch_size to (k + 1) * batch_size of that sequence. The
seed and the position in the sequence determine the augmentation of an example.
A resumed training jumps to its epoch and skips the records before its position
without decoding them.

TensorFlow's errors about a damaged record do not name it. So each record comes
with its file and position, and the graph itself reports two kinds of errors: a
file that cannot be read to its end, and a picture that does not look like a
complete JPEG and cannot be decoded. `explained_errors` finds the few others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import Any, Callable, Iterator, Optional

from absl import logging

from rigl.compat import tf
from rigl.core import checks, messages, seeding
from rigl.imagenet_resnet import imagenet_data, preprocessing, record_input, synthetic_imagenet

MODES = ('train', 'eval')
# The label of padding and of damaged images, which are black.
NO_LABEL = -1

_Example = tuple[tf.Tensor, tf.Tensor]


@contextlib.contextmanager
def explained_errors(data: imagenet_data.ImageNetData) -> Iterator[None]:
  """A context that explains TensorFlow's errors about input data.

  Run sessions that read from a `Pipeline` within it. If no message names the
  damaged picture, it decodes all pictures to find it.

  Raises:
    ValueError: instead of a tf.errors.OpError about a damaged file; names the
      file and the position of the record.
  """
  try:
    yield
  # TensorFlow fails to decode its own message about a record that is not text.
  except (tf.errors.OpError, UnicodeDecodeError) as error:
    text = getattr(error, 'message', 'decode')
    message = _explanation(error)
    if (
      message is None
      and not data.is_synthetic
      and re.search('JPEG|PNG|[Dd]ecod|[Pp]arse|Key:', text)
    ):
      message = _look_again(data)
    if message is None:
      raise
    raise ValueError(message) from error


def _explanation(error: Exception) -> Optional[str]:
  """The message of record_input in one of TensorFlow's errors, or None."""
  return messages.reason(error) if messages.MARK in getattr(error, 'message', '') else None


def _look_again(data: imagenet_data.ImageNetData) -> Optional[str]:
  """Decodes all pictures; returns the message about the first bad one."""
  logging.warning('A picture cannot be decoded. Looking for it in all files.')
  for part in (data.train, data.validation):
    if not part.files:
      continue
    with tf.Graph().as_default(), tf.Session() as session:
      dataset = Pipeline(
        data=data,
        batch_size=256,
        mode='eval',
        image_size=32,
        eval_on_train=part is data.train,
        tries_all=True,
      ).batches()
      batch = tf.data.make_one_shot_iterator(dataset).get_next()
      try:
        while True:
          session.run(batch[1].op)
      except tf.errors.OutOfRangeError:
        pass
      except tf.errors.OpError as error:
        return _explanation(error)
  return None


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """How to read the images; `batches` reads them.

  Training never ends. Evaluation gives every image exactly once, in order; its
  last batch may be smaller.

  Attributes:
    data: where the images are. Hand the pipeline over in a function, since an
      Estimator copies what is in its params.
    batch_size: images in a batch, on this host.
    mode: 'train' or 'eval'.
    seed: training: of order and augmentation.
    first_iteration: training: number of the first batch. To resume, the number
      of batches already taken.
    image_size: height and width.
    num_parallel_calls: pictures decoded at the same time; as many as pay by
      default.
    host_index: number of this host.
    n_hosts: number of hosts. All of them together have one sequence: of n, host
      i has the examples i, n + i, 2 * n + i, ...
    transpose_input: whether images are [height, width, 3, batch].
    dtype: dtype of images, tf.float32 or tf.bfloat16.
    eval_on_train: whether to evaluate on the training images.
    pad_last_batch: evaluation: whether to fill up the last batch with black
      images of label -1.
    skip_corrupt_records: whether to warn of damaged records and go on. In
      evaluation their label becomes -1, in training another image of the batch
      takes their place. What follows a record that cannot be read in its file
      is lost; in training an epoch then begins again to reach its number of
      images.
    tries_all: whether to guard the decoding of every picture, not only of those
      that do not look like a complete JPEG.

  Raises:
    ValueError: a value is out of range, or there are no files of the part.
  """

  data: imagenet_data.ImageNetData
  batch_size: int
  mode: str
  seed: int = 0
  first_iteration: int = 0
  image_size: int = 224
  num_parallel_calls: int = tf.data.experimental.AUTOTUNE
  host_index: int = 0
  n_hosts: int = 1
  transpose_input: bool = False
  dtype: tf.DType = tf.float32
  eval_on_train: bool = False
  pad_last_batch: bool = False
  skip_corrupt_records: bool = False
  tries_all: bool = False

  def __post_init__(self):
    checks.one_of('mode', self.mode, MODES)
    for name in ('batch_size', 'image_size', 'n_hosts'):
      checks.positive(name, getattr(self, name))
    checks.not_negative('first_iteration', self.first_iteration)
    if not 0 <= self.host_index < self.n_hosts:
      raise ValueError(f'host_index must be from 0 to {self.n_hosts - 1}, got {self.host_index}.')
    if self.dtype not in (tf.float32, tf.bfloat16):
      raise ValueError(f'dtype must be float32 or bfloat16, got {self.dtype.name}.')
    if not (self.data.is_synthetic or self.part.files):
      raise ValueError(f'There are no {self.part.name} images in {self.data.source}.')

  @property
  def part(self) -> imagenet_data.Part:
    """The part to read."""
    if self.mode == 'train' or self.eval_on_train:
      return self.data.train
    return self.data.validation

  def batches(self) -> tf.data.Dataset:
    """The batches.

    Returns:
      dataset of (images [batch, image_size, image_size, 3] from 0 to 255,
      labels int32 [batch] from 0). Read it within `explained_errors`.
    """
    is_training = self.mode == 'train'
    begin = 0
    if is_training:
      begin = self.first_iteration * self.batch_size * self.n_hosts
      records = record_input.training_records(
        self.data, self.part, self.seed, begin, self.skip_corrupt_records
      )
    else:
      records = record_input.ordered_records(self.data, self.part, self.skip_corrupt_records)
    if self.n_hosts > 1:
      records = records.shard(self.n_hosts, self.host_index)
    dataset = _map(records.enumerate(), self._example, self.num_parallel_calls)
    if not is_training and self.pad_last_batch:
      dataset = self._padded(dataset)
    dataset = dataset.batch(self.batch_size, drop_remainder=is_training or self.pad_last_batch)
    if is_training and self.skip_corrupt_records:
      dataset = _map(dataset, _replace_unlabelled, self.num_parallel_calls)
    if self.transpose_input:
      dataset = _map(
        dataset,
        lambda images, labels: (tf.transpose(images, [1, 2, 3, 0]), labels),
        self.num_parallel_calls,
      )
    options = tf.data.Options()
    options.deterministic = True
    return dataset.prefetch(tf.data.experimental.AUTOTUNE).with_options(options)

  def _padded(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Pads with black images, so that all hosts have equally many batches."""

    def on_host(i: int) -> int:
      return -(-(self.part.num_images - i) // self.n_hosts)

    n_full = -(-on_host(0) // self.batch_size) * self.batch_size
    black = tf.data.Dataset.from_tensors(self._black())
    if self.skip_corrupt_records:
      # The number of images is not known in advance.
      return dataset.concatenate(black.repeat(n_full)).take(n_full)
    return dataset.concatenate(black.repeat(n_full - on_host(self.host_index)))

  def _black(self) -> _Example:
    image = tf.zeros([self.image_size, self.image_size, 3], self.dtype)
    return image, tf.constant(NO_LABEL, tf.int32)

  def _example(self, number: tf.Tensor, record: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> _Example:
    """Image and label of the record of this number on this host."""
    path, index, serialized = record
    if self.data.is_synthetic:
      arguments = (self.part.name, index, self.data.num_classes)
      image = synthetic_imagenet.image(*arguments, self.image_size)
      return tf.cast(image, self.dtype), synthetic_imagenet.label(*arguments)
    # Position of the first example in the sequence of all hosts.
    begin = self.first_iteration * self.batch_size * self.n_hosts
    number = begin + number * self.n_hosts + self.host_index
    parse = self.data.record_format.parse
    if self.skip_corrupt_records or self.tries_all:
      return self._try(lambda: self._decode(number, *parse(serialized)), path, index)
    encoded, label = parse(serialized)
    is_fine = tf.logical_and(preprocessing.looks_complete(encoded), self._is_class(label))
    # Guarding costs a tenth of the time to decode a small picture.
    return tf.cond(
      is_fine,
      lambda: self._decode(number, encoded, label),
      lambda: self._try(
        lambda: self._decode(number, encoded, label),
        path,
        index,
        tf.strings.join(
          [' Its label is ', tf.as_string(label + self.data.record_format.first_label), '.']
        ),
      ),
    )

  def _is_class(self, label: tf.Tensor) -> tf.Tensor:
    return tf.logical_and(label >= 0, label < self.data.num_classes)

  def _decode(self, number: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor) -> _Example:
    """Makes an example from a picture; fails if picture or label are wrong."""
    if self.tries_all:
      encoded = _fully_decoded(encoded)
    if self.mode == 'train':
      image = preprocessing.preprocess_train(
        encoded, self._draw('crop', number), self._draw('flip', number), self.image_size, self.dtype
      )
    else:
      image = preprocessing.preprocess_eval(encoded, self.image_size, self.dtype)
    check = tf.debugging.Assert(self._is_class(label), [label])
    with tf.control_dependencies([check]):
      return image, tf.cast(label, tf.int32)

  def _draw(self, purpose: str, number: tf.Tensor) -> tf.Tensor:
    digest = seeding.stable_seed('imagenet', purpose, self.seed)
    return tf.stack([tf.constant(digest, tf.int64), number])

  def _try(
    self,
    make: Callable[[], _Example],
    path: tf.Tensor,
    index: tf.Tensor,
    details: str | tf.Tensor = '',
  ) -> _Example:
    """The result of make(); if it fails, an error that names the record."""
    layout = self.data.record_format

    def explain(_: tf.Tensor) -> _Example:
      last = layout.first_label + self.data.num_classes - 1
      message = tf.strings.join(
        [
          record_input.place(path, index),
          f' does not hold a JPEG or PNG under {layout.image_key!r} and a label from '
          f'{layout.first_label} to {last} under {layout.label_key!r}.',
          details,
        ]
      )
      with tf.control_dependencies(
        [record_input.check(tf.constant(False), message, self.skip_corrupt_records)]
      ):
        return tuple(map(tf.identity, self._black()))

    once = tf.data.Dataset.from_tensors(0)
    attempt = once.map(lambda _: make()).ignore_errors()
    examples = attempt.concatenate(once.map(explain)).take(1)
    return examples.get_single_element()


def _map(
  dataset: tf.data.Dataset, function: Callable[..., Any], num_parallel_calls: int
) -> tf.data.Dataset:
  # The functions have no control flow to convert.
  return dataset.map(
    tf.autograph.experimental.do_not_convert(function), num_parallel_calls, deterministic=True
  )


def _replace_unlabelled(images: tf.Tensor, labels: tf.Tensor) -> _Example:
  """Replaces unlabelled images by the first labelled one of the batch."""
  is_labelled = labels >= 0

  def replace() -> _Example:
    rows = tf.range(tf.size(labels))
    first = tf.argmax(tf.cast(is_labelled, tf.int32), output_type=tf.int32)
    rows = tf.where_v2(is_labelled, rows, first)
    return tf.gather(images, rows), tf.gather(labels, rows)

  return tf.cond(tf.reduce_all(is_labelled), lambda: (images, labels), replace)


def _fully_decoded(encoded: tf.Tensor) -> tf.Tensor:
  """The same bytes, after decoding the whole picture as a check."""
  with tf.control_dependencies([preprocessing.decode_all(encoded)]):
    return tf.identity(encoded)

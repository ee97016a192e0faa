"""Learning rates of the scripts, as functions of the global step."""

from __future__ import annotations

from typing import Sequence, Union

from rigl.compat import tf
from rigl.core import checks


def step_decay(
  global_step: tf.Tensor, initial: float, boundaries: Sequence[int], factor: float
) -> tf.Tensor:
  """`initial`, divided by `factor` after each boundary, float32 scalar.

  Boundaries are increasing steps; a boundary step itself has the rate before it.
  """
  values = [initial / factor**i for i in range(len(boundaries) + 1)]
  return tf.train.piecewise_constant(
    tf.cast(global_step, tf.int64), [tf.constant(b, tf.int64) for b in boundaries], values
  )


# (multiplier of the peak rate, first epoch that has it), in order of time.
EpochSchedule = Sequence[tuple[float, float]]


def epoch_of(global_step: tf.Tensor, n_examples: int, batch_size: int) -> tf.Tensor:
  """Epochs of `n_examples` before an int64 step, with fractions, float32 scalar."""
  return tf.cast(global_step, tf.float32) / (n_examples / batch_size)


def scaled(schedule: EpochSchedule, multiplier: float) -> list[tuple[float, float]]:
  """The schedule of a training that is `multiplier` times as long."""
  return [(value, epoch * multiplier) for value, epoch in schedule]


def scaled_steps(name: str, steps: int, multiplier: float) -> int:
  """The steps, given by the flag `name`, of a training that is `multiplier` times as long.

  Raises:
    ValueError: the product is below 1 or infinite.
  """
  product = f'{name} {steps} times training_steps_multiplier {multiplier}'
  if steps * multiplier < 1:
    raise ValueError(f'{product} is less than a step.')
  checks.finite(product, steps * multiplier)
  return int(steps * multiplier)


def epoch_decay(epoch: Union[float, tf.Tensor], peak: float, schedule: EpochSchedule) -> tf.Tensor:
  """A staircase over epochs with a linear warm-up (arXiv 1706.02677).

  A float32 scalar. Each multiplier of the peak holds from its epoch on. Until
  the first epoch the rate rises linearly from 0; 0 means no warm-up.
  """
  epoch = tf.cast(epoch, tf.float32)
  (first_value, first_epoch), *_ = schedule
  rate = tf.constant(peak * first_value, tf.float32)
  if first_epoch > 0:
    rate = rate * epoch / first_epoch
  for value, begin in schedule:
    rate = tf.where(epoch < begin, rate, tf.constant(peak * value, tf.float32))
  return rate


def warm_restarts(
  epoch: Union[float, tf.Tensor],
  peak: float,
  first_cycle: float,
  cycle_growth: float,
  peak_decay: float,
) -> tf.Tensor:
  """Cosine decay with restarts, SGDR (arXiv 1608.03983).

  A float32 scalar. The first cycle is in epochs; growth and decay are the
  length and the peak of a cycle divided by those of the previous one.
  """
  return tf.train.cosine_decay_restarts(
    tf.constant(peak, tf.float32),
    tf.cast(epoch, tf.float32),
    first_cycle,
    t_mul=cycle_growth,
    m_mul=peak_decay,
  )

"""When masks change, by how much, and the schedule of gradual pruning."""

from __future__ import annotations

import dataclasses
import math

from rigl.core import arrays, checks, numeric_suffix
from rigl.core.arrays import Array

DROP_FRACTION_ANNEALS = ('constant', 'cosine', 'exponential_<exponent>')


@dataclasses.dataclass(frozen=True)
class UpdateSchedule:
  """The steps at which masks change: begin <= step <= end, frequency apart.

  An update is due `frequency` steps after the last one, not at multiples of the
  frequency.

  Attributes:
    begin_step: first step that may be an update step.
    end_step: last such step, inclusive; negative means no end.
    frequency: steps between updates (Delta T in the papers), > 0.
  """

  begin_step: int
  end_step: int
  frequency: int

  def __post_init__(self):
    for name in ('begin_step', 'end_step', 'frequency'):
      checks.integer(name, getattr(self, name))
    checks.positive('frequency', self.frequency)
    if 0 <= self.end_step < self.begin_step:
      raise ValueError(
        f'end_step ({self.end_step}) must not lie before begin_step '
        f'({self.begin_step}); a negative end_step means no end.'
      )

  @property
  def initial_last_update_step(self) -> int:
    """Initial `last_update_step`, which allows an update at begin_step."""
    return -self.frequency

  def is_update_step(self, step: Array, last_update_step: Array) -> Array:
    """Whether masks change at `step`, bool scalar; both steps are int64 scalars."""
    xp = arrays.of(step)
    step = xp.asarray(step)
    due = xp.cast_like(xp.asarray(last_update_step), step) + self.frequency <= step
    inside = step >= self.begin_step
    if self.end_step >= 0:
      inside = inside & (step <= self.end_step)
    return inside & due

  def n_updates_through(self, last_update_step: int) -> int:
    """The number of updates up to and including that at `last_update_step`.

    For methods whose updates replace gradient steps, such as RigL: updates that
    follow a gradient step never see step 0.
    """
    # Steps are never negative, so a negative begin_step acts as 0.
    first = max(self.begin_step, 0)
    if last_update_step < first:
      return 0
    return (last_update_step - first) // self.frequency + 1


def check_drop_fraction(drop_fraction: float, anneal: str) -> None:
  """Raises ValueError for a fraction outside [0, 1], or an unknown name of its annealing."""
  checks.in_unit_interval('drop_fraction', drop_fraction)
  _exponent(anneal)


def _exponent(anneal: str) -> float:
  """The exponent of exponential_<exponent>; rejects unknown names."""
  try:
    name, exponent = numeric_suffix.split(anneal)
  except ValueError:
    name, exponent = '', 1.0
  if name != 'exponential' and anneal not in ('constant', 'cosine'):
    raise ValueError(
      f'drop_fraction_anneal {anneal!r} is not one of {", ".join(DROP_FRACTION_ANNEALS)}.'
    )
  return exponent


def anneals_without_end(anneal: str, schedule: UpdateSchedule) -> bool:
  """Whether `anneal` needs an end step that the schedule does not have."""
  return anneal != 'constant' and schedule.end_step <= schedule.begin_step


def warning_without_end(anneal: str, schedule: UpdateSchedule) -> str:
  """A warning that the annealing has no end step, or ''."""
  return (
    (
      f'drop_fraction_anneal {anneal} falls from begin_step to end_step and '
      'needs an end after the begin, got '
      f'{schedule.begin_step} and {schedule.end_step}. Use constant to move '
      'masks without end.'
    )
    if anneals_without_end(anneal, schedule)
    else ''
  )


def annealed_drop_fraction(
  step: Array, drop_fraction: float, anneal: str, schedule: UpdateSchedule
) -> Array:
  """The drop fraction at `step`, whether or not `step` is an update step.

  `cosine` is the cosine decay over (end - begin) steps evaluated at the step
  itself, as in the RigL paper's code, so with begin > 0 it has already fallen
  at the first update. `exponential_k` is
  f * (1 - (step - begin) / (end - begin)) ** k. Both need an end of the
  schedule (see `anneals_without_end`): without one the formulas give 0 and
  values that reach 1.

  Args:
    step: integer scalar.
    drop_fraction: the initial fraction f, in [0, 1].
    anneal: one of DROP_FRACTION_ANNEALS.
    schedule: the annealing spans its begin and end. If they are equal, every
      update has f.

  Returns:
    float32 scalar in [0, 1].

  Raises:
    ValueError: see check_drop_fraction.
  """
  check_drop_fraction(drop_fraction, anneal)
  xp = arrays.of(step)
  span = float(schedule.end_step - schedule.begin_step)
  if anneal == 'constant' or span == 0.0:
    return xp.asarray(drop_fraction, 'float32')
  step = xp.asarray(step, 'float32')
  if anneal == 'cosine':
    progress = xp.minimum(step, span) / span
    fraction = drop_fraction * (0.5 * (1.0 + xp.cos(math.pi * progress)))
  else:
    progress = (step - float(schedule.begin_step)) / span
    fraction = drop_fraction * xp.power(1.0 - progress, _exponent(anneal))
    # Outside the schedule the base is negative or above 1: NaN becomes 0, and
    # the result is clipped.
    fraction = xp.where(xp.isnan(fraction), xp.zeros_like(fraction), fraction)
  return xp.clip(fraction, 0.0, 1.0)


def gradual_sparsity(
  step: Array,
  initial_sparsity: float,
  target_sparsity: float,
  begin_step: int,
  end_step: int,
  exponent: float,
) -> Array:
  """Target sparsity of gradual magnitude pruning (arXiv 1710.01878, eq. 1).

  s_f + (s_i - s_f) * (1 - (t - t_0) / (t_1 - t_0)) ** exponent, clamped to
  s_i before t_0 and to s_f after t_1.

  Args:
    step: integer scalar t.
    initial_sparsity: s_i.
    target_sparsity: s_f.
    begin_step: t_0.
    end_step: t_1, > t_0.
    exponent: 3 in the paper.

  Returns:
    float32 scalar.

  Raises:
    ValueError: end_step <= begin_step.
  """
  if end_step <= begin_step:
    raise ValueError(
      f'The sparsity must rise over some steps: end_step '
      f'({end_step}) must be > begin_step ({begin_step}).'
    )
  xp = arrays.of(step)
  progress = (xp.asarray(step, 'float32') - float(begin_step)) / float(end_step - begin_step)
  progress = xp.clip(progress, 0.0, 1.0)
  return target_sparsity + (initial_sparsity - target_sparsity) * xp.power(1.0 - progress, exponent)

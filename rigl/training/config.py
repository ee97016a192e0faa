"""The hyperparameters of sparse training that all scripts share."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from rigl.core import distributions, growth, schedules
from rigl.training import methods


@dataclasses.dataclass(frozen=True)
class SparsityConfig:
  """How sparse, by which method, and when; validated when made.

  Attributes:
    training_method: a key of methods.METHODS.
    end_sparsity: overall sparsity, or that of the end for `prune`, in [0, 1).
    mask_init_method: distribution over layers, see core.distributions.
    erk_power_scale: exponent of erdos_renyi_kernel's raw densities.
    drop_fraction: share of connections moved by an update, in [0, 1].
    drop_fraction_anneal: constant, cosine or exponential_<exponent>.
    grow_init: initial value of new connections, see core.growth.
    s_momentum: SNFS: decay of the averaged dense gradient.
    rigl_acc_scale: RigL: slots of new connections start at their initial value
      plus this times the dense gradient.
    maskupdate_begin_step: first step that may move masks.
    maskupdate_end_step: last such step; negative for no end.
    maskupdate_frequency: steps between updates (Delta T).
    pruning_begin_step: prune: first step with a sparsity above 0.
    pruning_end_step: prune: the step that reaches end_sparsity.
    pruning_frequency: prune: steps between mask updates.
    threshold_decay: prune: smoothing of the threshold, in [0, 1).
    seed: of weights, masks, mask updates and the order of examples.
  """

  training_method: str = 'baseline'
  end_sparsity: float = 0.9
  mask_init_method: str = 'random'
  erk_power_scale: float = 1.
  drop_fraction: float = 0.3
  drop_fraction_anneal: str = 'constant'
  grow_init: str = 'zeros'
  s_momentum: float = 0.9
  rigl_acc_scale: float = 0.
  maskupdate_begin_step: int = 0
  maskupdate_end_step: int = 25000
  maskupdate_frequency: int = 100
  pruning_begin_step: int = 2000
  pruning_end_step: int = 30000
  pruning_frequency: int = 500
  threshold_decay: float = 0.
  seed: int = 0

  def __post_init__(self):
    self._check_member('training_method', methods.METHODS)
    self._check_member('mask_init_method', distributions.DISTRIBUTIONS)
    for name in ('end_sparsity', 's_momentum', 'threshold_decay'):
      value = getattr(self, name)
      if not 0. <= value < 1.:
        raise ValueError(f'{name} must be in [0, 1), got {value}.')
    for name in ('maskupdate_begin_step', 'pruning_begin_step', 'seed'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} must be >= 0, got {getattr(self, name)}.')
    if not 0. <= self.erk_power_scale < math.inf:
      raise ValueError(
          f'erk_power_scale must be >= 0, got {self.erk_power_scale}.')
    if not math.isfinite(self.rigl_acc_scale):
      raise ValueError(
          f'rigl_acc_scale must be finite, got {self.rigl_acc_scale}.')
    # What numpy's generators take.
    if self.seed >= 2**32:
      raise ValueError(f'seed must be < 2**32, got {self.seed}.')
    if self.pruning_frequency <= 0:
      raise ValueError(
          f'pruning_frequency must be > 0, got {self.pruning_frequency}.')
    if self.method.prunes_gradually and (
        self.pruning_end_step <= self.pruning_begin_step):
      raise ValueError(
          'Pruning must end after it begins, got '
          f'pruning_begin_step={self.pruning_begin_step} and '
          f'pruning_end_step={self.pruning_end_step}.')
    self._check_mask_updates()

  def _check_member(self, name: str, options: Any) -> None:
    if getattr(self, name) not in options:
      raise ValueError(f'{name} {getattr(self, name)!r} is not one of '
                       f'{", ".join(options)}.')

  def _check_mask_updates(self) -> None:
    try:
      schedule = self.update_schedule
    except ValueError as error:
      raise ValueError(
          f'maskupdate_begin_step={self.maskupdate_begin_step}, '
          f'maskupdate_end_step={self.maskupdate_end_step}, '
          f'maskupdate_frequency={self.maskupdate_frequency}: {error}'
      ) from error
    schedules.check_drop_fraction(
        self.drop_fraction, self.drop_fraction_anneal)
    if (self.method.is_dynamic and self.drop_fraction_anneal != 'constant' and
        schedule.end_step <= schedule.begin_step):
      raise ValueError(
          f'drop_fraction_anneal {self.drop_fraction_anneal!r} falls from '
          'maskupdate_begin_step to maskupdate_end_step and needs an end after '
          f'the begin, got {schedule.begin_step} and {schedule.end_step}. Use '
          'constant to move masks without end.')
    growth.check_grow_init(
        self.grow_init, self.method.allows_gradient_grow_init or
        not self.method.is_dynamic)

  @property
  def method(self) -> methods.Method:
    """The row of METHODS."""
    return methods.METHODS[self.training_method]

  @property
  def update_schedule(self) -> schedules.UpdateSchedule:
    """When masks move."""
    return schedules.UpdateSchedule(
        self.maskupdate_begin_step, self.maskupdate_end_step,
        self.maskupdate_frequency)

  def scaled(self, multiplier: float) -> SparsityConfig:
    """The config of a training `multiplier` times as long.

    Begin and end steps are scaled and truncated; frequencies stay, so a longer
    training moves its masks more often.

    Args:
      multiplier: of the length.

    Raises:
      ValueError: multiplier <= 0.
    """
    if multiplier <= 0:
      raise ValueError(
          f'training_steps_multiplier must be > 0, got {multiplier}.')
    scaled = {
        name: int(getattr(self, name) * multiplier) for name in (
            'maskupdate_begin_step', 'maskupdate_end_step',
            'pruning_begin_step', 'pruning_end_step')
    }
    if self.maskupdate_end_step < 0:
      scaled['maskupdate_end_step'] = self.maskupdate_end_step
    return dataclasses.replace(self, **scaled)

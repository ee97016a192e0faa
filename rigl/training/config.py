"""The hyperparameters that all scripts share, and fields for those of one."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Sequence

from rigl.core import checks, growth, methods, schedules
from rigl.training import names

# {field of a method: field of SparsityConfig}.
_MASK_UPDATES = {
    'begin_step': 'maskupdate_begin_step',
    'end_step': 'maskupdate_end_step',
    'frequency': 'maskupdate_frequency',
    'drop_fraction': 'drop_fraction',
    'drop_fraction_anneal': 'drop_fraction_anneal',
    'grow_init': 'grow_init',
    'momentum': 's_momentum',
    'initial_acc_scale': 'rigl_acc_scale',
}
_PRUNING = {
    'begin_step': 'pruning_begin_step',
    'end_step': 'pruning_end_step',
    'frequency': 'pruning_frequency',
    'target_sparsity': 'end_sparsity',
    'ramp_begin_step': 'pruning_begin_step',
    'ramp_end_step': 'pruning_end_step',
    'threshold_decay': 'threshold_decay',
}

# Options of flags. The modules that read them load TensorFlow; flags do not.
INNER_OPTIMIZERS = ('sgd', 'momentum', 'adam', 'rmsprop', 'adagrad')
LOOPS = ('session', 'tpu_estimator')


def setting(default: Any, group: str, help_text: str, *,
            options: Sequence[str] = (),
            lower_bound: Optional[int] = None) -> Any:
  """A dataclass field that says what its flag needs.

  config_flags.define defines the flags of a class of such fields. A
  field without this has a flag that several scripts share, or none.

  Args:
    default: default value of field and flag; its type is that of the flag, text
      for None.
    group: section of --help, one of command_line.GROUPS.
    help_text: what the setting means.
    options: values that the flag takes; any if there are none.
    lower_bound: least value that the flag takes.
  """
  return dataclasses.field(default=default, metadata={
      'group': group, 'help': help_text, 'options': options,
      'lower_bound': lower_bound})


@dataclasses.dataclass(frozen=True)
class DeviceSettings:
  """What all scripts can be told of how to run, beside settings of their own.

  Attributes:
    num_replicas: devices that share a batch.
    loop: one of LOOPS, or None for the one that suits.
  """

  num_replicas: int = 1
  loop: Optional[str] = None

  def __post_init__(self):
    checks.one_of('loop', self.loop, (None, *LOOPS))


@dataclasses.dataclass(frozen=True)
class SparsityConfig:
  """How sparse, by which method, and when; validated when made.

  Attributes:
    training_method: a key of methods.METHODS; or of names.METHODS, and becomes
      one of the former.
    end_sparsity: overall sparsity, or that of the end for `prune`, in [0, 1).
    mask_init_method: distribution over layers, see core.distributions and, for
      other names, names.DISTRIBUTIONS.
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
    seed: seed of weights, masks, mask updates and the order of examples.
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
    # Other names become those by which everything else looks things up.
    for field, resolve in (('training_method', names.method),
                           ('mask_init_method', names.distribution)):
      object.__setattr__(self, field, resolve(getattr(self, field)))
    for name in ('end_sparsity', 's_momentum', 'threshold_decay'):
      checks.below_one(name, getattr(self, name))
    for name in ('maskupdate_begin_step', 'pruning_begin_step', 'seed',
                 'erk_power_scale'):
      checks.not_negative(name, getattr(self, name))
    checks.finite('rigl_acc_scale', self.rigl_acc_scale)
    # What numpy's generators take.
    if self.seed >= 2**32:
      raise ValueError(f'seed must be < 2**32, got {self.seed}.')
    checks.positive('pruning_frequency', self.pruning_frequency)
    if self.method.prunes_gradually and (
        self.pruning_end_step <= self.pruning_begin_step):
      raise ValueError(
          'Pruning must end after it begins, got '
          f'pruning_begin_step={self.pruning_begin_step} and '
          f'pruning_end_step={self.pruning_end_step}.')
    self._check_mask_updates()

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
    if self.method.is_dynamic and schedules.anneals_without_end(
        self.drop_fraction_anneal, schedule):
      raise ValueError(
          f'drop_fraction_anneal {self.drop_fraction_anneal!r} falls from '
          'maskupdate_begin_step to maskupdate_end_step and needs an end after '
          f'the begin, got {schedule.begin_step} and {schedule.end_step}. Use '
          'constant to move masks without end.')
    growth.parse_grow_init(
        self.grow_init, self.method.allows_gradient_grow_init or
        not self.method.is_dynamic)

  @property
  def method(self) -> type[methods.Method]:
    """The class of the method, which tells what it can do."""
    return methods.METHODS[self.training_method]

  def __str__(self) -> str:
    level = f' at sparsity {self.end_sparsity:g}' * self.method.uses_masks
    return f'{self.training_method}{level}'

  def make_method(self) -> methods.Method:
    """The method with these hyperparameters."""
    fields = {field.name for field in dataclasses.fields(self.method)}
    names = _PRUNING if self.method.prunes_gradually else _MASK_UPDATES
    return self.method(**{
        field: getattr(self, name) for field, name in names.items()
        if field in fields})

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
      multiplier: factor of the length.

    Raises:
      ValueError: multiplier <= 0, or one that leaves no valid schedule.
    """
    checks.positive('training_steps_multiplier', multiplier)
    scaled: dict[str, Any] = {
        name: int(getattr(self, name) * multiplier) for name in (
            'maskupdate_begin_step', 'maskupdate_end_step',
            'pruning_begin_step', 'pruning_end_step')
    }
    if self.maskupdate_end_step < 0:
      scaled['maskupdate_end_step'] = self.maskupdate_end_step
    try:
      return dataclasses.replace(self, **scaled)
    except ValueError as error:
      raise ValueError(
          f'training_steps_multiplier={multiplier} leaves: {error}') from error

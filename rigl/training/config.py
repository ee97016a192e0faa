"""The settings that all scripts share."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional

from rigl.core import checks, distributions, grow_init, methods, schedules
from rigl.training.schema import Settings, setting

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

# {name in papers and other programs: name here}.
METHOD_ALIASES = {'dense': 'baseline', 'snfs': 'momentum'}
# The ImageNet script of 2020 accepts ''.
DISTRIBUTION_ALIASES = {'uniform': 'random', '': 'random'}

# The modules that read these load TensorFlow; flags do not.
INNER_OPTIMIZERS = ('sgd', 'momentum', 'adam', 'rmsprop', 'adagrad')
_LOOPS = {
  'session': 'works everywhere but on a TPU',
  'tpu_estimator': 'needs TensorFlow 2.15, and one device or a TPU',
}
LOOPS = tuple(_LOOPS)
# --mode of the scripts.
MODES = {
  'train': 'train; resume from the last checkpoint if there is one',
  'eval': 'evaluate the newest checkpoint of a run, then those that follow',
  'eval_once': 'evaluate one checkpoint',
  'train_and_eval': 'both in turns',
}


@dataclasses.dataclass(frozen=True)
class ScriptSettings(Settings):
  """How and where any script runs; not hyperparameters."""

  gin_config: tuple[str, ...] = setting(
    (),
    'General',
    'Gin file of hyperparameters, lines such as SparsityConfig.end_sparsity = 0.95; or the name '
    'of one that comes with this script, such as rigl.',
    is_path=True,
  )
  gin_bindings: tuple[str, ...] = setting(
    (), 'General', "Gin binding, such as 'SparsityConfig.end_sparsity = 0.95'."
  )
  num_replicas: int = setting(
    1,
    'Devices',
    'Devices of this process that share each batch, without a TPU: GPUs if '
    'there are any, else logical CPU devices. The workers of the environment '
    'variable TF_CONFIG are processes that share it.',
  )
  loop: Optional[str] = setting(
    None,
    'Devices',
    'What runs the training. Both loops give the same bits; unless given, '
    'tpu_estimator where it can be used.',
    options=_LOOPS,
  )


@dataclasses.dataclass(frozen=True)
class TrainEvalSettings(ScriptSettings):
  """Those of the scripts that evaluate by checkpoints."""

  mode: str = setting('train', 'General', 'What to do.', options=MODES)
  data_directory: str = setting('', 'Data', 'Folder of the data set.', is_path=True)
  use_synthetic_data: bool = setting(False, 'Data', 'Train on synthetic, learnable data instead.')
  load_mask_dir: str = setting(
    '',
    'Sparse training',
    'Checkpoint (prefix or folder) whose masks, and nothing else, are used instead of random ones.',
    is_path=True,
  )
  initial_value_checkpoint: str = setting(
    '',
    'Optimisation',
    'Checkpoint (prefix or folder) whose parameters, and nothing else, training starts from.',
    is_path=True,
  )
  keep_checkpoint_max: int = setting(
    5, 'Output', 'Checkpoints to keep; 0 for all.', check=checks.not_negative
  )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Settings):
  """The hyperparameters of the inner optimizer that all scripts have."""

  momentum: float = setting(
    0.9, 'Optimisation', 'Momentum coefficient of the inner optimizer.', check=checks.below_one
  )


@dataclasses.dataclass(frozen=True)
class ScaledConfig(OptimizerConfig):
  """Those of the scripts whose schedules can be scaled."""

  training_steps_multiplier: float = setting(
    1.0,
    'Optimisation',
    'Multiplies the length of the training and of all its schedules.',
    check=checks.positive,
  )


def _check_seed(name: str, value: int) -> None:
  checks.not_negative(name, value)
  # numpy's generators take no larger one.
  if value >= 2**32:
    raise ValueError(f'{name} must be < 2**32, got {value}.')


@dataclasses.dataclass(frozen=True)
class SparsityConfig(Settings):
  """How sparse, by which method, and when; validated when made."""

  training_method: str = setting(
    'baseline',
    'Sparse training',
    'Training method; other names: '
    + ', '.join(f'{other} is {name}' for other, name in METHOD_ALIASES.items())
    + '.',
    aliases=METHOD_ALIASES,
    # A function, because programs add methods of their own.
    options=lambda: {
      name: method.description + f' ({method.paper})' * bool(method.paper)
      for name, method in methods.METHODS.items()
    },
  )
  end_sparsity: float = setting(
    0.9,
    'Sparse training',
    'Target sparsity, that of the end for prune, in [0, 1).',
    check=checks.below_one,
  )
  mask_init_method: str = setting(
    'random',
    'Sparse training',
    'How sparsity is spread over layers: random (the same in each), '
    'erdos_renyi, erdos_renyi_kernel (ERK), str (the table published with '
    'STR); random if it is uniform or empty.',
    options=distributions.DISTRIBUTIONS,
    aliases=DISTRIBUTION_ALIASES,
  )
  erk_power_scale: float = setting(
    1.0,
    'Sparse training',
    'Exponent of the raw densities of erdos_renyi_kernel.',
    check=checks.not_negative,
  )
  drop_fraction: float = setting(
    0.3,
    'Mask updates',
    'Share of the active connections that a mask update replaces, in [0, 1]; '
    'the first value, if annealed.',
  )
  drop_fraction_anneal: str = setting(
    'constant',
    'Mask updates',
    'How the drop fraction changes: ' + ', '.join(schedules.DROP_FRACTION_ANNEALS) + '.',
  )
  maskupdate_begin_step: int = setting(
    0, 'Mask updates', 'First global step that may move masks.', check=checks.not_negative
  )
  maskupdate_end_step: int = setting(
    25000, 'Mask updates', 'Last global step that may move masks; negative for no end.'
  )
  maskupdate_frequency: int = setting(100, 'Mask updates', 'Steps between mask updates.')
  grow_init: str = setting(
    'zeros',
    'Mask updates',
    'Initial value of new connections: '
    + ', '.join(grow_init.GROW_INITS)
    + '; a trailing _<number> divides.',
  )
  rigl_acc_scale: float = setting(
    0.0,
    'Mask updates',
    'rigl: optimizer slots of new connections start at their initial value '
    'plus this times the dense gradient; for sgd and momentum.',
    check=checks.finite,
  )
  s_momentum: float = setting(
    0.9,
    'Mask updates',
    'momentum (SNFS): decay of the averaged dense gradient.',
    check=checks.below_one,
  )
  # None, the default of a script, stands for the maskupdate_* of the name.
  pruning_begin_step: int = setting(
    2000,
    'Gradual pruning',
    'prune: first step of its schedule; without a default, maskupdate_begin_step.',
    check=checks.not_negative,
  )
  pruning_end_step: int = setting(
    30000,
    'Gradual pruning',
    'prune: step that reaches end_sparsity; without a default, maskupdate_end_step.',
  )
  pruning_frequency: int = setting(
    500,
    'Gradual pruning',
    'prune: steps between mask updates; without a default, maskupdate_frequency.',
  )
  threshold_decay: float = setting(
    0.0,
    'Gradual pruning',
    'prune: smoothing of the magnitude threshold, in [0, 1).',
    check=checks.below_one,
  )
  seed: int = setting(
    0,
    'General',
    'Seed of weights, masks, mask updates and the order of examples.',
    check=_check_seed,
  )

  def __post_init__(self) -> None:
    """Checks the fields, then what they have in common."""
    super().__post_init__()
    self._check_mask_updates()
    for name in ('begin_step', 'end_step', 'frequency'):
      if getattr(self, f'pruning_{name}') is None:
        object.__setattr__(self, f'pruning_{name}', getattr(self, f'maskupdate_{name}'))
    checks.positive('pruning_frequency', self.pruning_frequency)
    if self.method.prunes_gradually and (self.pruning_end_step <= self.pruning_begin_step):
      raise ValueError(
        f'Pruning must end after it begins, got pruning_begin_step={self.pruning_begin_step} and '
        f'pruning_end_step={self.pruning_end_step}.'
      )

  def _check_mask_updates(self) -> None:
    if self.method.prunes_gradually and self.method is not methods.GradualPruning:
      raise ValueError(
        f'training_method {self.training_method!r} derives from GradualPruning, whose update is '
        'fixed in the scripts. rigl.keras trains with it.'
      )
    try:
      schedule = self.update_schedule
    except ValueError as error:
      raise ValueError(
        f'maskupdate_begin_step={self.maskupdate_begin_step}, '
        f'maskupdate_end_step={self.maskupdate_end_step}, '
        f'maskupdate_frequency={self.maskupdate_frequency}: {error}'
      ) from error
    schedules.check_drop_fraction(self.drop_fraction, self.drop_fraction_anneal)
    if self.method.is_dynamic and schedules.anneals_without_end(
      self.drop_fraction_anneal, schedule
    ):
      raise ValueError(
        f'drop_fraction_anneal {self.drop_fraction_anneal!r} falls from maskupdate_begin_step to '
        f'maskupdate_end_step and needs an end after the begin, got {schedule.begin_step} and '
        f'{schedule.end_step}. Use constant to move masks without end.'
      )
    grow_init.parse_grow_init(
      self.grow_init, self.method.allows_gradient_grow_init or not self.method.is_dynamic
    )

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
    return self.method(
      **{field: getattr(self, name) for field, name in names.items() if field in fields}
    )

  @property
  def update_schedule(self) -> schedules.UpdateSchedule:
    """When masks move."""
    return schedules.UpdateSchedule(
      self.maskupdate_begin_step, self.maskupdate_end_step, self.maskupdate_frequency
    )

  def scaled(self, multiplier: float) -> SparsityConfig:
    """The config of a training `multiplier` times as long.

    Begin and end steps are scaled and truncated; frequencies stay, so a longer
    training moves its masks more often.

    Raises:
      ValueError: multiplier <= 0, or one that leaves no valid schedule.
    """
    checks.positive('training_steps_multiplier', multiplier)
    scaled: dict[str, Any] = {
      f'{prefix}_{end}_step': int(getattr(self, f'{prefix}_{end}_step') * multiplier)
      for prefix in ('maskupdate', 'pruning')
      for end in ('begin', 'end')
    }
    if self.maskupdate_end_step < 0:
      scaled['maskupdate_end_step'] = self.maskupdate_end_step
    try:
      return dataclasses.replace(self, **scaled)
    except ValueError as error:
      raise ValueError(f'training_steps_multiplier={multiplier} leaves: {error}') from error

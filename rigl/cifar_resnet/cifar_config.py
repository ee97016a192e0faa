"""The hyperparameters of a CIFAR-10 training, and what follows from them."""

from __future__ import annotations

import dataclasses

from rigl.cifar_resnet import resnet_model
from rigl.compat import tf
from rigl.core import checks
from rigl.training import lr_schedules
from rigl.training.config import MODES, ScaledConfig, SparsityConfig, TrainEvalSettings
from rigl.training.schema import Schema, setting

_MODES = {name: MODES[name] for name in ('train', 'eval', 'train_and_eval')}


@dataclasses.dataclass(frozen=True)
class CifarConfig(ScaledConfig):
  """The hyperparameters of this script alone."""

  resnet_depth: int = setting(16, 'Network', 'Depth of the WideResNet, 6n + 4.')
  resnet_width: int = setting(4, 'Network', 'Multiplier of the channels.', check=checks.positive)
  num_classes: int = setting(10, 'Network', 'Classes.', check=checks.positive)
  prune_first_layer: bool = setting(False, 'Network', 'Mask the first convolution.')
  prune_last_layer: bool = setting(True, 'Network', 'Mask the last layer.')
  batch_size: int = setting(128, 'Optimisation', 'Examples in a batch.', check=checks.positive)
  max_steps: int = setting(
    97656, 'Optimisation', 'Training steps, times training_steps_multiplier.', check=checks.positive
  )
  l2: float = setting(
    5e-4, 'Optimisation', 'Coefficient of the L2 penalty.', check=checks.not_negative
  )

  def __post_init__(self) -> None:
    """Checks the fields, then what they have in common."""
    super().__post_init__()
    resnet_model.check_depth(self.resnet_depth)
    _ = self.total_steps  # Only a check here.

  @property
  def total_steps(self) -> int:
    """max_steps times training_steps_multiplier."""
    return lr_schedules.scaled_steps('max_steps', self.max_steps, self.training_steps_multiplier)

  def learning_rate_at(self, global_step: tf.Tensor) -> tf.Tensor:
    """0.1, divided by 5 every 30,000 steps times the multiplier."""
    boundaries = [int(step * self.training_steps_multiplier) for step in (30000, 60000, 90000)]
    return lr_schedules.step_decay(global_step, 0.1, boundaries, 5.0)


@dataclasses.dataclass(frozen=True)
class RunSettings(TrainEvalSettings):
  """Data, files and devices, which may change when a training goes on."""

  mode: str = setting('train', 'General', 'What to do.', options=_MODES)
  pruning_hparams: str = setting(
    '', 'Gradual pruning', 'prune: further hyperparameters, name=value,... (see PruningHParams).'
  )
  per_class_metrics: bool = setting(
    True, 'Evaluation', 'Whether to report precision and recall of each class.'
  )
  train_dir: str = setting(
    '/tmp/cifar10/',
    'Output',
    'Folder in which each run has its own; to evaluate, also the folder of a run itself.',
    is_path=True,
  )
  steps_per_checkpoint: int = setting(
    5000, 'Output', 'Steps between checkpoints.', check=checks.positive
  )
  steps_per_summary: int = setting(
    300, 'Output', 'Steps between summaries and progress reports.', check=checks.positive
  )

  @property
  def steps_per_eval(self) -> int:
    """Steps between evaluations of train_and_eval."""
    return self.steps_per_checkpoint


SCHEMA = Schema(
  (SparsityConfig, CifarConfig),
  RunSettings,
  'train_dir',
  defaults={
    'maskupdate_end_step': 75000,
    'pruning_begin_step': 20000,
    'pruning_end_step': 75000,
    'pruning_frequency': 1000,
  },
  other_names={
    'checkpoint_steps': 'steps_per_checkpoint',
    'summaries_steps': 'steps_per_summary',
    'sparsity_begin_step': 'pruning_begin_step',
    'sparsity_end_step': 'pruning_end_step',
  },
  not_used={'ps_task': 0, 'master': 'local', 'dataset_size': 50000},
)

"""The hyperparameters of a CIFAR-10 training, and what follows from them."""

from __future__ import annotations

import dataclasses

from rigl.cifar_resnet import resnet_model
from rigl.compat import tf
from rigl.core import checks
from rigl.training import lr_schedules
from rigl.training.config import DeviceSettings, setting

# What the script has other defaults for than the classes of configs.
DEFAULTS = {
    'batch_size': 128,
    'data_directory': '',
    'drop_fraction_anneal': 'constant',
    'end_sparsity': 0.9,
    'keep_checkpoint_max': 5,
    'master': 'local',
    'mask_init_method': 'random',
    'maskupdate_end_step': 75000,
    'mode': 'train',
    'pruning_frequency': 1000,
    'resnet_depth': 16,
    'training_method': 'baseline',
}
MODES = ('train', 'eval', 'train_and_eval')
# {field of SparsityConfig: flag}.
RENAMED = {'pruning_begin_step': 'sparsity_begin_step',
           'pruning_end_step': 'sparsity_end_step'}


# Fields that shape the variables.
NETWORK = ('resnet_depth', 'resnet_width', 'num_classes')


@dataclasses.dataclass(frozen=True)
class CifarConfig:
  """The hyperparameters of the script alone; flags of the same names."""

  batch_size: int = 128
  momentum: float = 0.9
  resnet_depth: int = 16
  training_steps_multiplier: float = 1.
  resnet_width: int = setting(4, 'Network', 'Multiplier of the channels.')
  num_classes: int = setting(10, 'Network', 'Classes.')
  prune_first_layer: bool = setting(
      False, 'Network', 'Mask the first convolution.')
  prune_last_layer: bool = setting(True, 'Network', 'Mask the last layer.')
  max_steps: int = setting(
      97656, 'Optimisation',
      'Training steps, times training_steps_multiplier.')
  l2: float = setting(5e-4, 'Optimisation', 'Coefficient of the L2 penalty.')

  def __post_init__(self):
    for name in ('batch_size', 'max_steps', 'resnet_width', 'num_classes',
                 'training_steps_multiplier'):
      checks.positive(name, getattr(self, name))
    checks.not_negative('l2', self.l2)
    checks.below_one('momentum', self.momentum)
    resnet_model.check_depth(self.resnet_depth)
    _ = self.total_steps  # Only a check here.

  @property
  def total_steps(self) -> int:
    """max_steps times training_steps_multiplier."""
    return lr_schedules.scaled_steps(
        'max_steps', self.max_steps, self.training_steps_multiplier)

  def learning_rate_at(self, global_step: tf.Tensor) -> tf.Tensor:
    """0.1, divided by 5 every 30,000 steps times the multiplier.

    Args:
      global_step: int64 scalar.
    """
    boundaries = [int(step * self.training_steps_multiplier)
                  for step in (30000, 60000, 90000)]
    return lr_schedules.step_decay(global_step, 0.1, boundaries, 5.)


@dataclasses.dataclass(frozen=True)
class RunSettings(DeviceSettings):
  """What is no hyperparameter: data, files, devices; flags of the same names.

  Unlike hyperparameters they may change when a training goes on.
  """

  mode: str = 'train'
  data_directory: str = ''
  use_synthetic_data: bool = False
  load_mask_dir: str = ''
  initial_value_checkpoint: str = ''
  keep_checkpoint_max: int = 5
  pruning_hparams: str = setting(
      '', 'Gradual pruning', 'prune: further hyperparameters, name=value,... '
      '(see PruningHParams).')
  per_class_metrics: bool = setting(
      True, 'Evaluation',
      'Whether to report precision and recall of each class.')
  train_dir: str = setting(
      '/tmp/cifar10/', 'Output',
      'Folder in which each run has its own; to evaluate, also the folder of '
      'a run itself.')
  checkpoint_steps: int = setting(
      5000, 'Output', 'Steps between checkpoints.', lower_bound=1)
  summaries_steps: int = setting(
      300, 'Output', 'Steps between summaries and progress reports.',
      lower_bound=1)

  def __post_init__(self):
    super().__post_init__()
    checks.one_of('mode', self.mode, MODES)

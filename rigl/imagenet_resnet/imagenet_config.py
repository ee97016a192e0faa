"""The hyperparameters of an ImageNet training, and what follows from them."""

from __future__ import annotations

import dataclasses
from typing import Any, Collection, Mapping, Optional, Union

from rigl import networks
from rigl.compat import tf, tf2
from rigl.core import checks
from rigl.imagenet_resnet import (
  blocks,
  initializers,
  mobilenetv1_model,
  mobilenetv2_model,
  resnet_model,
  vgg,
)
from rigl.training import lr_schedules
from rigl.training.config import ScaledConfig, SparsityConfig, TrainEvalSettings
from rigl.training.schema import Schema, setting

ARCHITECTURES = ('resnet', 'mobilenet_v1', 'mobilenet_v2', *sorted(networks.VGGS))
PRECISIONS = ('float32', 'bfloat16')

# (multiplier of the peak rate, epoch), for 120 epochs and more.
_LR_SCHEDULE = ((1.0, 0), (0.1, 30), (0.01, 70), (0.001, 90), (0.0001, 120))
_MOBILENET_LR_SCHEDULE = ((1.0, 8), (0.1, 40), (0.01, 75), (0.001, 95), (0.0003, 120))


def _check_layer_sparsity(name: str, value: float) -> None:
  if value != -1.0 and not 0.0 <= value < 1.0:
    raise ValueError(f'{name} must be -1 or in [0, 1), got {value}.')


@dataclasses.dataclass(frozen=True)
class ImageNetConfig(ScaledConfig):
  """The hyperparameters of this script alone.

  The first layer of a MobileNet has a mask for a first_layer_sparsity above 0
  only, as it never had one. That of a VGG always has one, full of ones for 0.
  """

  first_layer_sparsity: float = setting(
    0.0,
    'Sparse training',
    'Sparsity of the first layer; 0: dense, -1: as mask_init_method says.',
    check=_check_layer_sparsity,
  )
  last_layer_sparsity: float = setting(
    -1.0,
    'Sparse training',
    'Sparsity of the last layer; 0: dense, -1: as mask_init_method says.',
    check=_check_layer_sparsity,
  )
  model_architecture: str = setting(
    'resnet', 'Network', f'Network: {", ".join(ARCHITECTURES)}.', options=ARCHITECTURES
  )
  resnet_depth: int = setting(50, 'Network', 'Depth of the ResNet: 18, 34, 50, 101, 152 or 200.')
  width: float = setting(
    -1.0, 'Network', 'Multiplier of the channels; 1 if not positive.', check=checks.finite
  )
  expansion_factor: float = setting(6.0, 'Network', 'mobilenet_v2: expansion of its blocks.')
  init_method: str = setting(
    'baseline', 'Network', 'Initial weights.', options=initializers.INIT_METHODS
  )
  data_format: str = setting(
    'channels_last', 'Network', 'channels_last or channels_first (GPU and TPU only).'
  )
  precision: str = setting(
    'float32',
    'Network',
    'Arithmetic of the network: float32 or bfloat16. Variables and masks are float32.',
    options=PRECISIONS,
  )
  num_label_classes: int = setting(1000, 'Network', 'Classes.', check=checks.positive)
  image_size: int = setting(224, 'Network', 'Height and width of an image.', check=checks.positive)
  train_steps: int = setting(
    2,
    'Optimisation',
    'Training steps, times training_steps_multiplier; the default only tries things out.',
    check=checks.positive,
  )
  train_batch_size: int = setting(
    1024, 'Optimisation', 'Images in a training batch.', check=checks.positive
  )
  base_learning_rate: float = setting(
    0.1,
    'Optimisation',
    'Learning rate for 256 images; it grows with the batch.',
    check=checks.positive,
  )
  use_adam: bool = setting(False, 'Optimisation', 'Adam, at a constant learning rate.')
  use_sgdr: bool = setting(False, 'Optimisation', 'Cosine decay with warm restarts.')
  sgdr_decay_step: float = setting(
    5.0, 'Optimisation', 'SGDR: epochs of the first cycle.', check=checks.positive
  )
  sgdr_t_mul: float = setting(
    1.5, 'Optimisation', 'SGDR: growth of the cycles.', check=checks.positive
  )
  sgdr_m_mul: float = setting(
    0.5, 'Optimisation', 'SGDR: decay of the peaks.', check=checks.positive
  )
  weight_decay: float = setting(1e-4, 'Optimisation', 'Coefficient of the L2 penalty.')
  label_smoothing: float = setting(
    0.1, 'Optimisation', 'Share of a label that is spread over all classes.', check=checks.below_one
  )
  num_train_images: int = setting(1281167, 'Data', 'Training images.', check=checks.positive)
  num_eval_images: int = setting(50000, 'Data', 'Validation images.', check=checks.positive)
  transpose_input: bool = setting(
    False, 'Data', 'Whether images come with the batch last, which suits a TPU.'
  )
  eval_batch_size: int = setting(
    1000, 'Evaluation', 'Images in evaluation batches.', check=checks.positive
  )
  use_batch_statistics: bool = setting(
    False, 'Evaluation', 'Whether evaluation normalises by the batch instead of moving averages.'
  )

  def __post_init__(self) -> None:
    """Checks the fields, then what they have in common."""
    super().__post_init__()
    if self.use_adam and self.use_sgdr:
      raise ValueError(
        'use_adam keeps the learning rate constant and use_sgdr changes it: choose one.'
      )
    if self.train_batch_size > self.num_train_images:
      raise ValueError(
        f'train_batch_size {self.train_batch_size} is more than '
        f'num_train_images {self.num_train_images}.'
      )
    if self.is_vgg and self.image_size < vgg.MIN_SIZE:
      raise ValueError(
        f'image_size {self.image_size} is too small for {self.model_architecture}, which needs '
        f'{vgg.MIN_SIZE}.'
      )
    # Only checks here.
    _ = self.total_steps
    make_network(self)

  @property
  def is_vgg(self) -> bool:
    """Whether the network is a VGG."""
    return self.model_architecture in networks.VGGS

  @property
  def network_name(self) -> str:
    """Architecture and depth, such as resnet-50."""
    depth = f'-{self.resnet_depth}' * (self.model_architecture == 'resnet')
    return f'{self.model_architecture}{depth}'

  @property
  def total_steps(self) -> int:
    """train_steps times training_steps_multiplier."""
    return lr_schedules.scaled_steps(
      'train_steps', self.train_steps, self.training_steps_multiplier
    )

  # --- Learning rate --------------------------------------------------------

  @property
  def peak_learning_rate(self) -> float:
    """base_learning_rate is that of 256 images."""
    return self.base_learning_rate * self.train_batch_size / 256

  @property
  def lr_schedule(self) -> list[tuple[float, float]]:
    """[(multiplier of the peak rate, epoch)], already scaled."""
    schedule = (
      _MOBILENET_LR_SCHEDULE if self.model_architecture.startswith('mobilenet') else _LR_SCHEDULE
    )
    return lr_schedules.scaled(schedule, self.training_steps_multiplier)

  def epoch_at(self, global_step: tf.Tensor) -> tf.Tensor:
    """Passes over the training images before a step, float32 scalar."""
    return lr_schedules.epoch_of(global_step, self.num_train_images, self.train_batch_size)

  def learning_rate_at(self, global_step: tf.Tensor) -> tf.Tensor:
    """The rate at a step, float32 scalar; restarts are not scaled."""
    if self.use_adam:
      return tf.constant(self.peak_learning_rate, tf.float32)
    epoch = self.epoch_at(global_step)
    if self.use_sgdr:
      return lr_schedules.warm_restarts(
        epoch, self.peak_learning_rate, self.sgdr_decay_step, self.sgdr_t_mul, self.sgdr_m_mul
      )
    return lr_schedules.epoch_decay(epoch, self.peak_learning_rate, self.lr_schedule)

  # --- Layers ---------------------------------------------------------------

  @property
  def first_layer(self) -> str:
    """Scope of the first layer."""
    if self.is_vgg:
      return f'{self.model_architecture}/conv1/conv1_1'
    return 'resnet_model/initial_conv'

  @property
  def last_layer(self) -> str:
    """Scope of the last layer."""
    if self.is_vgg:
      return f'{self.model_architecture}/fc8'
    return 'resnet_model/final_dense'

  @property
  def prune_first_layer(self) -> bool:
    """Whether the first layer has a mask."""
    if self.is_vgg:
      return True
    if self.model_architecture == 'resnet':
      return self.first_layer_sparsity != 0.0
    return self.first_layer_sparsity > 0.0

  @property
  def prune_last_layer(self) -> bool:
    """Whether the last layer has a mask."""
    return self.last_layer_sparsity != 0.0

  @property
  def custom_sparsity_map(self) -> dict[str, float]:
    """{layer: sparsity} of the layers that have their own."""
    custom = {}
    if self.first_layer_sparsity > 0.0 or (self.is_vgg and self.first_layer_sparsity == 0.0):
      custom[self.first_layer] = self.first_layer_sparsity
    if self.last_layer_sparsity > 0.0:
      custom[self.last_layer] = self.last_layer_sparsity
    return custom


@dataclasses.dataclass(frozen=True)
class RunSettings(TrainEvalSettings):
  """Data, files and devices, which may change when a training goes on."""

  num_parallel_calls: int = setting(64, 'Data', 'Images decoded at a time.', check=checks.positive)
  skip_corrupt_records: bool = setting(
    False, 'Data', 'Whether to leave out images that cannot be read instead of stopping.'
  )
  steps_per_eval: int = setting(
    1251, 'Evaluation', 'train_and_eval: steps between evaluations.', check=checks.positive
  )
  eval_once_ckpt_prefix: str = setting(
    '',
    'Evaluation',
    'eval_once: name of the checkpoint in the folder of the run, such as '
    'model.ckpt-32000; the latest one if empty.',
    is_path=True,
  )
  eval_on_train: bool = setting(False, 'Evaluation', 'Whether to evaluate on the training images.')
  output_dir: str = setting(
    '/tmp/imagenet/',
    'Output',
    'Folder in which each run has its own; to evaluate, also the folder of a run itself.',
    is_path=True,
  )
  use_folder_stub: bool = setting(
    True,
    'Output',
    'Whether a run has a folder named by its hyperparameters in output_dir, '
    'instead of output_dir itself.',
  )
  steps_per_checkpoint: int = setting(
    1000, 'Output', 'Steps between checkpoints.', check=checks.positive
  )
  steps_per_summary: int = setting(
    100, 'Output', 'Steps between summaries and progress reports.', check=checks.positive
  )
  log_mask_imgs_each_iteration: bool = setting(
    False,
    'Output',
    'Whether summaries have pictures of all masks, which is slow, instead of the first one alone.',
  )
  export_model_freq: int = setting(
    2502,
    'Output',
    'Steps between exported SavedModels; 0 for none, not even at the end.',
    check=checks.not_negative,
  )
  use_tpu: bool = setting(False, 'Devices', 'Train on a TPU.')
  master: str = setting('', 'Devices', 'Address of the TPU, unless --tpu says it.')
  tpu: str = setting('', 'Devices', "TPU: name, grpc://<host>:<port>, or 'local' on a TPU VM.")
  tpu_zone: str = setting('', 'Devices', 'TPU: its zone in Google Cloud.')
  gcp_project: str = setting('', 'Devices', 'TPU: its project in Google Cloud.')
  tpu_job_name: Optional[str] = setting(None, 'Devices', 'TPU: job name of the workers.')
  num_cores: int = setting(8, 'Devices', 'TPU: cores that share a batch.', check=checks.positive)
  iterations_per_loop: int = setting(
    1251, 'Devices', 'TPU: steps between returns to the host.', check=checks.positive
  )


SCHEMA = Schema(
  (SparsityConfig, ImageNetConfig),
  RunSettings,
  'output_dir',
  defaults={
    'training_method': 'scratch',
    'mask_init_method': '',
    'data_directory': None,
    'keep_checkpoint_max': 0,
    # prune has the schedule of the methods that move masks.
    'pruning_begin_step': None,
    'pruning_end_step': None,
    'pruning_frequency': None,
  },
  not_used={
    'ps_task': 0,
    'num_workers': 1,
    'is_warm_up': True,
    'block_width': 1,
    'block_height': 1,
  },
)


def check_combination(
  config: ImageNetConfig, sparsity: SparsityConfig, n_cores: Optional[int]
) -> None:
  """Raises ValueError unless the configs fit each other and the device.

  `n_cores` are those of the TPU, None for CPU or GPU.
  """
  if sparsity.mask_init_method == 'str' and config.network_name != 'resnet-50':
    raise ValueError('mask_init_method=str is a table of ResNet-50 and not of other networks.')
  if (
    config.data_format == 'channels_first'
    and n_cores is None
    and (not tf2.config.list_physical_devices('GPU'))
  ):
    raise ValueError(
      'data_format=channels_first needs a GPU or a TPU, and there is none. Use channels_last.'
    )
  for name in ('train_batch_size', 'eval_batch_size'):
    if n_cores is not None and getattr(config, name) % n_cores:
      raise ValueError(f'{name} {getattr(config, name)} is not a multiple of num_cores {n_cores}.')


def make_network(
  config: ImageNetConfig,
  init_sparsity: Optional[Union[float, Mapping[str, float]]] = None,
  masked_layers: Optional[Collection[str]] = None,
) -> blocks.ModelFn:
  """The function that builds the network, with masks whatever the method.

  Args:
    config: architecture and options.
    init_sparsity: what config.init_method assumes, see `blocks.LayerSpec`;
      None for ordinary initial weights.
    masked_layers: names of the layers that have a mask in a checkpoint, by
      which the first and the last layer get theirs; None to go by the config.

  Returns:
    fn(images, is_training) -> logits [batch, classes], where images is
    [batch, height, width, 3], or channels first.
  """
  prune_first, prune_last = config.prune_first_layer, config.prune_last_layer
  if masked_layers is not None:
    prune_first = config.first_layer in masked_layers
    prune_last = config.last_layer in masked_layers
  arguments: dict[str, Any] = {
    'num_classes': config.num_label_classes,
    'width': config.width if config.width > 0.0 else 1.0,
    'prune_first_layer': prune_first,
    'prune_last_layer': prune_last,
  }
  spec: dict[str, Any] = {
    'pruning_method': 'threshold',
    'init_method': 'baseline' if init_sparsity is None else config.init_method,
    'end_sparsity': init_sparsity or 0.0,
    'data_format': config.data_format,
    'weight_decay': config.weight_decay,
  }
  if config.is_vgg:
    return vgg.vgg(vgg_type=config.model_architecture, **arguments, **spec)
  if config.model_architecture == 'mobilenet_v1':
    return mobilenetv1_model.mobilenet_v1(**arguments, **spec)
  if config.model_architecture == 'mobilenet_v2':
    expansion = config.expansion_factor
    return mobilenetv2_model.mobilenet_v2(expansion_factor=expansion, **arguments, **spec)
  return resnet_model.resnet_v1_(config.resnet_depth, **arguments, **spec)

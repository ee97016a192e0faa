"""ResNets, MobileNets and VGGs on ImageNet: data, training step, exports."""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any, Mapping, Optional

from rigl import checkpoint_files, replicas
from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config, imagenet_data, imagenet_input, imagenet_model
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig, RunSettings
from rigl.model_pruning import pruning
from rigl.training import (
  checkpoints,
  distribution,
  export,
  factory,
  hooks,
  mask_init,
  mask_watch,
  specs,
  stop_at_nan,
  summaries,
  top_k,
)
from rigl.training import tpu as tpu_lib
from rigl.training.experiment import StepExperiment
from rigl.training.progress import ProgressHook


class ImageNetExperiment(StepExperiment):
  """A ResNet, MobileNet or VGG on ImageNet."""

  schema = imagenet_config.SCHEMA
  network_fields = (
    'model_architecture',
    'resnet_depth',
    'width',
    'expansion_factor',
    'num_label_classes',
  )
  lasting_fields = ('first_layer_sparsity', 'last_layer_sparsity')
  config: ImageNetConfig
  settings: RunSettings

  # --- Settings -------------------------------------------------------------

  @property
  def network(self) -> str:
    return self.config.network_name

  @property
  def split(self) -> str:
    return 'train images' if self.settings.eval_on_train else 'validation'

  @property
  def own_folder(self) -> str:
    """See StepExperiment; output_dir itself without use_folder_stub."""
    sparsity, config = self.sparsity, self.config
    if not self.settings.use_folder_stub:
      return self.settings.output_dir
    numbers = (
      sparsity.end_sparsity,
      sparsity.maskupdate_begin_step,
      sparsity.maskupdate_end_step,
      sparsity.maskupdate_frequency,
      sparsity.drop_fraction,
      config.label_smoothing,
      config.weight_decay,
    )
    return os.path.join(self.settings.output_dir, sparsity.training_method, *map(str, numbers))

  def check(self) -> None:
    settings, config = self.settings, self.config
    imagenet_config.check_combination(
      config, self.unscaled, settings.num_cores if settings.use_tpu else None
    )
    n_replicas = distribution.total_replicas(settings.num_replicas)
    if n_replicas > 1 and (settings.use_tpu or config.transpose_input):
      raise ValueError(
        f'{n_replicas} replicas (num_replicas, or workers of TF_CONFIG) do not work with use_tpu, '
        'where num_cores says how many share a batch, nor with transpose_input.'
      )
    self.check_common(config.train_batch_size, settings.mode, settings.use_tpu)

  def find_tpu(self) -> Optional[tpu_lib.TpuSetup]:
    """See StepExperiment; raises ValueError if there is none."""
    settings, config = self.settings, self.config
    if not settings.use_tpu:
      return None
    return tpu_lib.TpuSetup(
      tpu_lib.find(settings.tpu, settings.tpu_zone, settings.gcp_project, settings.master),
      config.train_batch_size,
      config.eval_batch_size,
      settings.num_cores,
      settings.iterations_per_loop,
      settings.tpu_job_name,
      batch_axis=(3, 0) if config.transpose_input else (0, 0),
    )

  # --- Data -----------------------------------------------------------------

  def load_data(self) -> imagenet_data.ImageNetData:
    return imagenet_data.find_data(
      self.settings.data_directory or '',
      use_synthetic_data=self.settings.use_synthetic_data,
      num_train_images=self.config.num_train_images,
      num_eval_images=self.config.num_eval_images,
      num_classes=self.config.num_label_classes,
    )

  def explained_errors(self, data: imagenet_data.ImageNetData) -> contextlib.AbstractContextManager:
    return imagenet_input.explained_errors(data)

  def _pipeline(
    self,
    data: imagenet_data.ImageNetData,
    batch_size: int,
    host_index: int,
    n_hosts: int,
    **of_the_mode: Any,
  ) -> imagenet_input.Pipeline:
    return imagenet_input.Pipeline(
      data,
      batch_size // n_hosts,
      image_size=self.config.image_size,
      num_parallel_calls=self.settings.num_parallel_calls,
      host_index=host_index,
      n_hosts=n_hosts,
      transpose_input=self.config.transpose_input,
      dtype=tf.as_dtype(self.config.precision),
      skip_corrupt_records=self.settings.skip_corrupt_records,
      **of_the_mode,
    )

  def train_input(self, data: imagenet_data.ImageNetData) -> specs.InputFn:
    return lambda host_index=0, n_hosts=1: self._pipeline(
      data,
      self.config.train_batch_size,
      host_index,
      n_hosts,
      mode='train',
      seed=self.sparsity.seed,
      first_iteration=self.first_iteration,
    ).batches()

  def eval_input(self, data: imagenet_data.ImageNetData) -> specs.InputFn:
    return lambda host_index=0, n_hosts=1: self._pipeline(
      data,
      self.config.eval_batch_size,
      host_index,
      n_hosts,
      mode='eval',
      eval_on_train=self.settings.eval_on_train,
      pad_last_batch=self.settings.use_tpu,
    ).batches()

  @property
  def eval_steps(self) -> Optional[int]:
    if not self.settings.use_tpu:
      return None
    config = self.config
    n_images = config.num_train_images if self.settings.eval_on_train else config.num_eval_images
    return math.ceil(n_images / config.eval_batch_size)

  # --- Reports --------------------------------------------------------------

  def text_of(self, metrics: Mapping[str, float]) -> str:
    return (
      f'step {metrics["global_step"]}: '
      f'top 1 {metrics["top_1_accuracy"]:.2%}, '
      f'top 5 {metrics["top_5_accuracy"]:.2%}, '
      f'loss {metrics["cross_loss"]:.4f}'
    )

  def describe(self, checkpoint: str) -> None:
    """Prints the sparsities of all masked layers, in the network's order."""
    found = checkpoints.mask_sparsities(checkpoint)
    sizes = imagenet_model.mask_sizes(self.config, self.masked_layers)
    for layer in sizes:
      print(f'  sparsity {found[layer]:.4f}  {layer}')
    if sizes:
      n_zeros = sum(found[layer] * size for layer, size in sizes.items())
      print(f'  sparsity {n_zeros / sum(sizes.values()):.4f}  of all of them')

  # --- Graph ----------------------------------------------------------------

  @property
  def custom_sparsity_map(self) -> dict[str, float]:
    return self.config.custom_sparsity_map

  def init_sparsity(self) -> Optional[Mapping[str, float]]:
    """{layer: sparsity} that init_method assumes; None for `baseline`."""
    config, sparsity = self.config, self.sparsity
    if config.init_method == 'baseline':
      return None
    with tf.Graph().as_default():
      # Shapes are known only once the network is there.
      imagenet_model.build_logits(tf.zeros([1, 64, 64, 3]), config)
      layers = mask_init.initial_sparsities(
        sparsity, self.custom_sparsity_map, self.settings.load_mask_dir
      )
    starts_dense = not sparsity.method.uses_masks or sparsity.method.prunes_gradually
    if config.init_method == 'sparse' and starts_dense:
      return dict.fromkeys(layers, 0.0)
    return layers

  def model_fn(
    self, features: tf.Tensor, labels: tf.Tensor, mode: str
  ) -> specs.TrainSpec | specs.EvalSpec:
    """The graph of a mode.

    Args:
      features: images [batch, height, width, 3], or [height, width, 3, batch]
        with transpose_input, of values 0 to 255.
      labels: int32 [batch]; -1 in evaluation marks padding.
      mode: 'train' or 'eval'.
    """
    config = self.config
    is_training = mode == 'train'
    if config.transpose_input:
      features = tf.transpose(features, [3, 0, 1, 2])
    labels = tf.cast(labels, tf.int32)
    logits = imagenet_model.build_logits(
      features,
      config,
      is_training or config.use_batch_statistics,
      self.init_sparsity() if is_training else None,
      self.masked_layers,
    )
    cross_loss = imagenet_model.mean_loss(labels, logits, config.label_smoothing)
    reg_loss = tf.losses.get_regularization_loss()
    loss = cross_loss + reg_loss
    if is_training:
      return self._train_spec(
        loss,
        {
          'cross_loss': cross_loss,
          'reg_loss': reg_loss,
          'top_1_accuracy': tf.reduce_mean(top_k.in_top_k(labels, logits, 1)),
        },
      )
    return specs.EvalSpec(
      loss,
      lambda labels, logits: imagenet_model.metric_fn(labels, logits, config.label_smoothing),
      [labels, logits],
    )

  def build_train_op(
    self,
    loss: tf.Tensor,
    scalars: Mapping[str, tf.Tensor],
    not_finite: Optional[stop_at_nan.NotFiniteHook] = None,
  ) -> tuple[tf.Operation, dict[str, tf.Tensor]]:
    """The train op, and {tag: what to report} of the network that its step begins with."""
    use_tpu = self.settings.use_tpu
    global_step = tf.train.get_or_create_global_step()
    step = global_step.read_value()
    learning_rate = self.config.learning_rate_at(step)
    inner = factory.make_inner_optimizer(
      'adam' if self.config.use_adam else 'momentum',
      learning_rate,
      self.config.momentum,
      use_nesterov=True,
    )
    if use_tpu:
      inner = tf.tpu.CrossShardOptimizer(inner)
    optimizer = factory.make_optimizer(self.sparsity, inner, use_tpu, self.custom_sparsity_map)
    gradients = factory.compute_gradients(optimizer, loss)
    reported = summaries.format_tensors(
      {
        'global_step': step,
        'learning_rate': learning_rate,
        'current_epoch': self.config.epoch_at(step),
        'drop_fraction': factory.annealed_drop_fraction(self.sparsity, step),
        **scalars,
      },
      summaries.norm_summaries(gradients),
      # Elsewhere the host looks at the masks, see progress.ProgressHook.
      summaries.mask_summaries(
        pruning.get_masks(), with_img=self.settings.log_mask_imgs_each_iteration
      )
      if use_tpu
      else {},
    )
    train_op = factory.make_train_op(
      optimizer,
      loss,
      global_step,
      gradients=gradients,
      not_finite=not_finite,
      first_iteration=None if use_tpu else self.first_iteration,
      reported=list(reported.values()),
    )
    with tf.control_dependencies([train_op]):
      trained = tf.not_equal(global_step.read_value(), step)
    reported.update(summaries.format_tensors({'trained': trained}))
    return train_op, reported

  def _train_spec(self, loss: tf.Tensor, scalars: Mapping[str, tf.Tensor]) -> specs.TrainSpec:
    settings = self.settings
    scalars = {tag: replicas.mean(value) for tag, value in scalars.items()}
    mean_loss = replicas.mean(loss)
    # On a TPU no hook sees each step: there the Estimator looks at the loss.
    not_finite = None if settings.use_tpu else stop_at_nan.NotFiniteHook(self.folder)
    train_op, reported = self.build_train_op(loss, scalars, not_finite)

    def host_call(**tensors):
      return summaries.host_call_fn(
        self.folder, steps_per_summary=settings.steps_per_summary, **tensors
      )

    step_hooks, chief_hooks, listeners = [], [], []
    if not_finite:
      step_hooks = [not_finite]
      recorded = {
        name: tf.squeeze(reported[tag]) if tag in reported else None
        for name, tag in (('epoch', 'current_epoch'), ('drop_fraction', 'drop_fraction'))
      }
      progress = ProgressHook(
        {
          'loss': mean_loss,
          'top_1_accuracy': scalars['top_1_accuracy'],
          'learning_rate': tf.squeeze(reported['learning_rate']),
        },
        self.config.total_steps,
        settings.steps_per_summary,
        self.folder,
        recorded,
        mask_watch.MaskWatch(pruning.get_masks(), settings.log_mask_imgs_each_iteration),
        shown=['loss'],
      )
      chief_hooks = [progress]
      listeners = [hooks.SaveState(progress.save_state)]
    return specs.TrainSpec(
      loss,
      train_op,
      self.make_scaffold,
      hooks=step_hooks,
      chief_hooks=chief_hooks,
      listeners=listeners,
      host_call=(host_call, reported),
      replica_means=[mean_loss, *scalars.values()],
    )

  # --- Exports --------------------------------------------------------------

  @property
  def export_steps(self) -> int:
    """See StepExperiment; workers export at the end only."""
    return self.settings.export_model_freq if distribution.n_workers() == 1 else 0

  def _export(self, checkpoint: str) -> str:
    """Writes `<folder>/export/<step>`, see imagenet_model.export_checkpoint."""
    return imagenet_model.export_checkpoint(
      self.config, checkpoint, os.path.join(self.folder, 'export')
    )

  def exporters(self) -> list[tf.train.CheckpointSaverListener]:
    if not self.export_steps:
      return []
    return [
      export.ExportModelHook(
        self._export, self.folder, self.export_steps, last_step=self.config.total_steps
      )
    ]

  def after_training(self) -> None:
    """Exports the latest checkpoint if a training stopped before it could."""
    if not (self.settings.export_model_freq and distribution.is_chief()):
      return
    step = checkpoints.latest_step(self.folder)
    if not tf.io.gfile.isdir(os.path.join(self.folder, 'export', str(step))):
      self._export(checkpoint_files.resolve(self.folder))

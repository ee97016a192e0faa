"""Graph of the ImageNet script: images to logits, loss, training, metrics."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any, Collection, Mapping, Optional, Union

from rigl import replicas
from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config, preprocessing
from rigl.model_pruning import pruning
from rigl.training import (
  checkpoints,
  export,
  factory,
  finite,
  hooks,
  mask_init,
  mask_watch,
  metrics,
  resuming,
  specs,
  summaries,
)
from rigl.training.config import SparsityConfig

# Statistics of ImageNet's pixels, 0 to 255, for red, green and blue.
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STDDEV_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)


@dataclasses.dataclass(frozen=True)
class Training:
  """The arguments of the graph.

  Attributes:
    sparsity: already scaled by config.training_steps_multiplier.
    config: network, optimizer and data.
    folder: folder of checkpoints and summaries.
    use_tpu: whether replicas on a TPU share each batch.
    load_mask_dir: checkpoint whose masks are used, or ''.
    initial_value_checkpoint: checkpoint whose parameters are used, or ''.
    steps_per_summary: steps between summaries and progress reports.
    log_mask_images: whether summaries show all masks or only the first.
    masked_layers: names of the layers with a mask in the checkpoint to
      evaluate; None to derive them from the config.
  """

  sparsity: SparsityConfig
  config: imagenet_config.ImageNetConfig
  folder: str
  use_tpu: bool = False
  load_mask_dir: str = ''
  initial_value_checkpoint: str = ''
  steps_per_summary: int = 100
  log_mask_images: bool = False
  masked_layers: Optional[Collection[str]] = None


def normalize(images: tf.Tensor,
              config: imagenet_config.ImageNetConfig) -> tf.Tensor:
  """Normalizes pixels for the networks.

  Args:
    images: [batch, height, width, 3] of values 0 to 255.
    config: data format and precision.

  Returns:
    float32 or bfloat16 of mean 0 and variance 1, of the same shape or, channels
    first, [batch, 3, height, width].
  """
  images = (tf.cast(images, tf.float32) - tf.constant(MEAN_RGB)) / tf.constant(
      STDDEV_RGB)
  if config.data_format == 'channels_first':
    images = tf.transpose(images, [0, 3, 1, 2])
  return tf.cast(images, tf.as_dtype(config.precision))


def build_logits(images: tf.Tensor, config: imagenet_config.ImageNetConfig,
                 is_training: bool = False,
                 init_sparsity: Optional[Mapping[str, float]] = None,
                 masked_layers: Optional[Collection[str]] = None) -> tf.Tensor:
  """The network on images of pixels 0 to 255 -> float32 [batch, classes].

  Args:
    images: [batch, height, width, 3].
    config: hyperparameters of the network.
    is_training: whether batch norm takes the statistics of the batch.
    init_sparsity: see `imagenet_config.make_network`.
    masked_layers: see `imagenet_config.make_network`.
  """
  network = imagenet_config.make_network(config, init_sparsity, masked_layers)
  return tf.cast(network(normalize(images, config), is_training), tf.float32)


def mask_sizes(training: Training) -> dict[str, int]:
  """{layer: number of weights} of all masked layers, in order."""
  with tf.Graph().as_default():
    build_logits(tf.zeros([1, 64, 64, 3]), training.config,
                 masked_layers=training.masked_layers)
    return {layer.name: layer.mask.shape.num_elements()
            for layer in pruning.masked_layers()}


def _init_sparsity(training: Training) -> Optional[Mapping[str, float]]:
  """{layer: sparsity} that init_method assumes; None for `baseline`."""
  config, sparsity = training.config, training.sparsity
  if config.init_method == 'baseline':
    return None
  with tf.Graph().as_default():
    # Build the network to learn its shapes.
    build_logits(tf.zeros([1, 64, 64, 3]), config)
    layers = mask_init.initial_sparsities(
        sparsity, config.custom_sparsity_map, training.load_mask_dir)
  starts_dense = (
      not sparsity.method.uses_masks or sparsity.method.prunes_gradually)
  if config.init_method == 'sparse' and starts_dense:
    return dict.fromkeys(layers, 0.)
  return layers


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor,
                  label_smoothing: float) -> tf.Tensor:
  """Loss of each example, float32 [batch].

  Args:
    labels: int32 [batch].
    logits: float32 [batch, classes].
    label_smoothing: share of the target spread over all classes
      (arXiv 1512.00567).
  """
  n_classes = logits.shape.as_list()[1]
  one_hot = tf.one_hot(labels, n_classes)
  targets = (1. - label_smoothing) * one_hot + label_smoothing / n_classes
  return tf.nn.softmax_cross_entropy_with_logits_v2(targets, logits)


def metric_fn(labels: tf.Tensor, logits: tf.Tensor,
              label_smoothing: float) -> dict[str, Any]:
  """Metrics over all evaluated images; labels of -1 mark padding.

  Args:
    labels: int32 [batch].
    logits: [batch, classes].
    label_smoothing: share of a label that is spread over all classes.
  """
  weights = tf.cast(labels >= 0, tf.float32)
  values = {
      'top_1_accuracy': metrics.in_top_k(labels, logits, 1),
      'top_5_accuracy': metrics.in_top_k(labels, logits, 5),
      'cross_loss': cross_entropy(labels, logits, label_smoothing),
  }
  return {name: tf.metrics.mean(value, weights)
          for name, value in values.items()}


def _mean_loss(labels: tf.Tensor, logits: tf.Tensor,
               label_smoothing: float) -> tf.Tensor:
  """Mean of `cross_entropy` over all images except padding."""
  weights = tf.cast(labels >= 0, tf.float32)
  total = tf.reduce_sum(
      weights * cross_entropy(labels, logits, label_smoothing))
  return total / tf.maximum(tf.reduce_sum(weights), 1.)


def _make_optimizer(training: Training,
                    learning_rate: tf.Tensor) -> tf.train.Optimizer:
  config = training.config
  inner = factory.make_inner_optimizer(
      'adam' if config.use_adam else 'momentum', learning_rate,
      config.momentum, use_nesterov=True)
  if training.use_tpu:
    inner = tf.tpu.CrossShardOptimizer(inner)
  return factory.make_optimizer(
      training.sparsity, inner, training.use_tpu, config.custom_sparsity_map)


def _make_scaffold(training: Training) -> tf.train.Scaffold:
  if training.initial_value_checkpoint:
    checkpoints.initialize_parameters_from_ckpt(
        training.initial_value_checkpoint, training.folder)
  return mask_init.make_scaffold(
      training.sparsity, training.config.custom_sparsity_map,
      training.load_mask_dir)


def build_train_op(
    training: Training, loss: tf.Tensor, scalars: Mapping[str, tf.Tensor],
    not_finite: Optional[finite.NotFiniteHook] = None
) -> tuple[tf.Operation, dict[str, tf.Tensor]]:
  """One training step.

  Args:
    training: method and optimizer.
    loss: scalar.
    scalars: further scalars to report.
    not_finite: see factory.make_train_op.

  Returns:
    (train op, {tag: summary}); summaries show the network before the step.
  """
  config = training.config
  global_step = tf.train.get_or_create_global_step()
  step = global_step.read_value()
  learning_rate = config.learning_rate_at(step)
  optimizer = _make_optimizer(training, learning_rate)
  gradients = factory.compute_gradients(optimizer, loss)
  reported = summaries.format_tensors(
      {'global_step': step, 'learning_rate': learning_rate,
       'current_epoch': config.epoch_at(step),
       'drop_fraction': factory.annealed_drop_fraction(training.sparsity, step),
       **scalars},
      summaries.norm_summaries(gradients),
      # Without a TPU, hooks.ProgressHook reports the masks.
      summaries.mask_summaries(
          pruning.get_masks(), with_img=training.log_mask_images)
      if training.use_tpu else {})
  # Moving averages are also updated in iterations that update masks.
  train_op = factory.make_train_op(
      optimizer, loss, global_step, gradients=gradients, not_finite=not_finite,
      update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS),
      first_iteration=None if training.use_tpu else (
          resuming.iterations_done(training.folder, training.sparsity)),
      reported=list(reported.values()))
  with tf.control_dependencies([train_op]):
    trained = tf.not_equal(global_step.read_value(), step)
  reported.update(summaries.format_tensors({'trained': trained}))
  return train_op, reported


def _train_spec(training: Training, loss: tf.Tensor,
                scalars: Mapping[str, tf.Tensor]) -> specs.TrainSpec:
  scalars = {tag: replicas.mean(value) for tag, value in scalars.items()}
  mean_loss = replicas.mean(loss)
  # On a TPU hooks do not see each step; there the Estimator checks the loss.
  not_finite = None if training.use_tpu else finite.NotFiniteHook(
      training.folder)
  train_op, reported = build_train_op(training, loss, scalars, not_finite)

  def host_call(**tensors):
    return summaries.host_call_fn(
        training.folder, steps_per_summary=training.steps_per_summary,
        **tensors)

  step_hooks, chief_hooks, listeners = [], [], []
  if not_finite:
    step_hooks = [not_finite]
    recorded = {
        'epoch': tf.squeeze(reported['current_epoch']),
        'drop_fraction': tf.squeeze(reported['drop_fraction'])
                         if 'drop_fraction' in reported else None}
    progress = hooks.ProgressHook(
        {'loss': mean_loss, 'top_1_accuracy': scalars['top_1_accuracy'],
         'learning_rate': tf.squeeze(reported['learning_rate'])},
        training.config.total_steps, training.steps_per_summary,
        training.folder, recorded, mask_watch.MaskWatch(
            pruning.get_masks(), training.log_mask_images), shown=['loss'])
    chief_hooks = [progress]
    listeners = [hooks.SaveState(progress.save_state)]
  return specs.TrainSpec(
      loss, train_op,
      lambda: _make_scaffold(training), hooks=step_hooks,
      chief_hooks=chief_hooks, listeners=listeners,
      host_call=(host_call, reported),
      means=[mean_loss, *scalars.values()])


def model_fn(features: tf.Tensor, labels: tf.Tensor, mode: str,
             training: Training) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """The graph of a mode.

  Args:
    features: images [batch, height, width, 3], or [height, width, 3, batch]
      with transpose_input, of values 0 to 255.
    labels: int32 [batch]; -1 in evaluation marks padding.
    mode: 'train' or 'eval'.
    training: describes the graph.
  """
  config = training.config
  is_training = mode == 'train'
  if config.transpose_input:
    features = tf.transpose(features, [3, 0, 1, 2])
  labels = tf.cast(labels, tf.int32)
  logits = build_logits(
      features, config, is_training or config.use_batch_statistics,
      _init_sparsity(training) if is_training else None,
      training.masked_layers)
  cross_loss = _mean_loss(labels, logits, config.label_smoothing)
  reg_loss = tf.losses.get_regularization_loss()
  loss = cross_loss + reg_loss
  if is_training:
    return _train_spec(training, loss, {
        'cross_loss': cross_loss,
        'reg_loss': reg_loss,
        'top_1_accuracy': tf.reduce_mean(metrics.in_top_k(labels, logits, 1)),
    })
  return specs.EvalSpec(
      loss, lambda labels, logits: metric_fn(
          labels, logits, config.label_smoothing), [labels, logits])


def _export_folder(training: Training) -> str:
  return os.path.join(training.folder, 'export')


def export_checkpoint(training: Training, checkpoint: str) -> str:
  """Writes `<folder>/export/<step>`, a SavedModel for images and JPEGs.

  Returns:
    The folder of the SavedModel.
  """
  config = training.config
  return export.export_saved_model(
      functools.partial(
          build_logits, config=config,
          is_training=config.use_batch_statistics), checkpoint,
      _export_folder(training),
      image_shape=[config.image_size, config.image_size, 3],
      decode=functools.partial(
          preprocessing.preprocess_eval, image_size=config.image_size))


def exporters(training: Training, every_n_steps: int) -> list[Any]:
  """Listeners that export during training and at its end.

  Args:
    training: describes the graph.
    every_n_steps: steps between exports; 0 for no exports.
  """
  if not every_n_steps:
    return []
  return [export.ExportModelHook(
      functools.partial(export_checkpoint, training), training.folder,
      every_n_steps, last_step=training.config.total_steps)]


def export_missing(training: Training) -> None:
  """Exports the latest checkpoint if training stopped before its export."""
  step = checkpoints.latest_step(training.folder)
  if not tf.io.gfile.isdir(os.path.join(_export_folder(training), str(step))):
    export_checkpoint(training, checkpoints.resolve(training.folder))

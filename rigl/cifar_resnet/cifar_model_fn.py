"""Graph of the CIFAR-10 script: images to logits, loss, training, metrics."""

from __future__ import annotations

import dataclasses
from typing import Any, Collection, Optional, Union

from rigl import replicas
from rigl.cifar_resnet import resnet_model
from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.model_pruning import dense_layers, pruning
from rigl.training import (
  checkpoints,
  factory,
  finite,
  hooks,
  mask_init,
  mask_watch,
  metrics,
  resuming,
  specs,
)
from rigl.training.config import SparsityConfig


@dataclasses.dataclass(frozen=True)
class Training:
  """The arguments of the graph.

  Attributes:
    sparsity: already scaled by config.training_steps_multiplier.
    config: network and optimizer.
    folder: folder of checkpoints and summaries.
    pruning_hparams: further hyperparameters of `prune`, name=value,...
    load_mask_dir: checkpoint whose masks are used, or ''.
    initial_value_checkpoint: checkpoint whose parameters are used, or ''.
    summaries_steps: steps between progress reports.
    per_class_metrics: whether to evaluate precision and recall of each class.
    masked_layers: names of the layers with a mask in the checkpoint to
      evaluate; None to derive them from method and config.
  """

  sparsity: SparsityConfig
  config: CifarConfig
  folder: str
  pruning_hparams: str = ''
  load_mask_dir: str = ''
  initial_value_checkpoint: str = ''
  summaries_steps: int = 300
  per_class_metrics: bool = True
  masked_layers: Optional[Collection[str]] = None


def build_model(mode: str,
                images: tf.Tensor,
                labels: tf.Tensor,
                training_method: str = 'baseline',
                num_classes: int = 10,
                depth: int = 10,
                width: int = 4,
                config: Optional[CifarConfig] = None,
                masked_layers: Optional[Collection[str]] = None):
  """Builds the network and its losses.

  Args:
    mode: 'train' or 'eval'.
    images: float32 [batch, 32, 32, 3].
    labels: integer [batch].
    training_method: a training method; decides whether layers have masks.
    num_classes: number of classes.
    depth: depth of the WideResNet, 6n + 4.
    width: width of the WideResNet.
    config: L2 penalty and layers with masks; the defaults if None.
    masked_layers: names of the layers to give a mask, as in a checkpoint; None
      to derive them from method and config.

  Returns:
    (global_step, accuracy, top_5, logits): accuracies are means over the
    batch; the losses are in the collections of tf.losses.
  """
  config = config or CifarConfig()
  if masked_layers is None:
    uses_masks = SparsityConfig(
        training_method=training_method).method.uses_masks
    masks: dict[str, Any] = {
        'pruning_method': 'threshold' if uses_masks else 'baseline',
        'prune_first_layer': config.prune_first_layer,
        'prune_last_layer': config.prune_last_layer}
  else:
    masks = resnet_model.masked_as(masked_layers)
  network = resnet_model.WideResNetModel(
      is_training=mode == 'train',
      regularizer=dense_layers.l2_regularizer(config.l2), **masks)
  # Dropout depends on the step, which must exist before the network.
  global_step = tf.train.get_or_create_global_step()
  logits = network.build(
      images, depth=depth, width=width, num_classes=num_classes)
  labels = tf.cast(labels, tf.int32)
  with tf.name_scope('computing_cross_entropy_loss'):
    tf.losses.sparse_softmax_cross_entropy(labels, logits)
  accuracy, top_5 = (
      tf.reduce_mean(metrics.in_top_k(labels, logits, k)) for k in (1, 5))
  return global_step, accuracy, top_5, logits


def metric_fn(labels: tf.Tensor, logits: tf.Tensor,
              per_class: bool) -> dict[str, Any]:
  """Metrics over all evaluated images.

  Args:
    labels: int32 [batch].
    logits: float32 [batch, classes].
    per_class: whether to include precision and recall of each class.
  """
  found = {
      'accuracy': tf.metrics.mean(metrics.in_top_k(labels, logits, 1)),
      'top_5_accuracy': tf.metrics.mean(metrics.in_top_k(labels, logits, 5)),
  }
  if per_class:
    predictions = tf.argmax(logits, 1, output_type=tf.int32)
    for c in range(logits.shape.as_list()[1]):
      is_class, said_class = tf.equal(labels, c), tf.equal(predictions, c)
      found[f'precision/class_{c}'] = tf.metrics.precision(
          is_class, said_class)
      found[f'recall/class_{c}'] = tf.metrics.recall(is_class, said_class)
  return found


def _train_spec(training: Training, loss: tf.Tensor,
                scalars: dict[str, tf.Tensor]) -> specs.TrainSpec:
  sparsity, config = training.sparsity, training.config
  global_step = tf.train.get_global_step()
  learning_rate = config.learning_rate_at(global_step)
  scalars = {tag: replicas.mean(value) for tag, value in scalars.items()}
  means = list(scalars.values())
  optimizer = factory.make_optimizer(
      sparsity, factory.make_inner_optimizer(
          'momentum', learning_rate, config.momentum, use_nesterov=True),
      pruning_hparams=training.pruning_hparams)
  drop_fraction = factory.annealed_drop_fraction(
      sparsity, global_step.read_value())
  not_finite = finite.NotFiniteHook(training.folder)
  train_op = factory.make_train_op(
      optimizer, loss, global_step, not_finite=not_finite,
      update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS),
      first_iteration=resuming.iterations_done(training.folder, sparsity),
      reported=[learning_rate, drop_fraction])
  if training.initial_value_checkpoint:
    checkpoints.initialize_parameters_from_ckpt(
        training.initial_value_checkpoint, training.folder)
  progress = hooks.ProgressHook(
      scalars,
      config.total_steps, training.summaries_steps, training.folder,
      {'learning_rate': learning_rate, 'drop_fraction': drop_fraction},
      mask_watch.MaskWatch(pruning.get_masks()))
  return specs.TrainSpec(
      loss, train_op, lambda: mask_init.make_scaffold(
          sparsity, load_mask_dir=training.load_mask_dir),
      hooks=[not_finite], chief_hooks=[progress],
      listeners=[hooks.SaveState(progress.save_state)],
      means=means)


def model_fn(features: tf.Tensor, labels: tf.Tensor, mode: str,
             training: Training) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """The graph of a mode.

  Args:
    features: images float32 [batch, 32, 32, 3].
    labels: int32 [batch].
    mode: 'train' or 'eval'.
    training: describes the graph.
  """
  config = training.config
  _, accuracy, top_5, logits = build_model(
      mode, features, labels, training.sparsity.training_method,
      config.num_classes, config.resnet_depth, config.resnet_width, config,
      training.masked_layers)
  # All replicas share the collection; the last loss is this replica's.
  cross_entropy = tf.losses.get_losses()[-1]
  loss = cross_entropy + tf.losses.get_regularization_loss()
  if mode == 'train':
    return _train_spec(training, loss, {
        'loss': loss,
        'cross_entropy_loss': cross_entropy,
        'accuracy': accuracy,
        'top_5_accuracy': top_5,
    })
  return specs.EvalSpec(
      loss, lambda labels, logits: metric_fn(
          labels, logits, training.per_class_metrics),
      [tf.cast(labels, tf.int32), logits])

"""WideResNet on CIFAR-10: data, network, loss, metrics and training step."""

from __future__ import annotations

import os
from typing import Any, Collection, Mapping, Optional

from rigl import replicas
from rigl.cifar_resnet import cifar_config, cifar_data, data_helper, resnet_model
from rigl.cifar_resnet.cifar_config import CifarConfig, RunSettings
from rigl.compat import tf
from rigl.model_pruning import dense_layers, pruning
from rigl.training import factory, hooks, mask_watch, specs, stop_at_nan, top_k
from rigl.training.config import SparsityConfig
from rigl.training.experiment import StepExperiment
from rigl.training.progress import ProgressHook


def build_model(
  mode: str,
  images: tf.Tensor,
  labels: tf.Tensor,
  training_method: str = 'baseline',
  num_classes: int = 10,
  depth: int = 10,
  width: int = 4,
  config: Optional[CifarConfig] = None,
  masked_layers: Optional[Collection[str]] = None,
):
  """Builds the network and its losses.

  Args:
    mode: 'train' or 'eval'.
    images: float32 [batch, 32, 32, 3].
    labels: integer [batch].
    training_method: a training method; decides whether layers carry masks.
    num_classes: classes.
    depth: depth of the WideResNet, 6n + 4.
    width: width of the WideResNet.
    config: L2 penalty and which layers carry masks; the defaults when None.
    masked_layers: names of the layers that have a mask in a checkpoint, which
      these then have too; None to go by method and config.

  Returns:
    (global_step, accuracy, top_5, logits): accuracies are means over the
    batch; the losses are in the collections of tf.losses.
  """
  config = config or CifarConfig()
  if masked_layers is None:
    uses_masks = SparsityConfig(training_method=training_method).method.uses_masks
    masks: dict[str, Any] = {
      'pruning_method': 'threshold' if uses_masks else 'baseline',
      'prune_first_layer': config.prune_first_layer,
      'prune_last_layer': config.prune_last_layer,
    }
  else:
    masks = resnet_model.masked_as(masked_layers)
  network = resnet_model.WideResNetModel(
    is_training=mode == 'train', regularizer=dense_layers.l2_regularizer(config.l2), **masks
  )
  # Dropout draws by the step, so the step must exist before the network.
  global_step = tf.train.get_or_create_global_step()
  logits = network.build(images, depth=depth, width=width, num_classes=num_classes)
  labels = tf.cast(labels, tf.int32)
  with tf.name_scope('computing_cross_entropy_loss'):
    tf.losses.sparse_softmax_cross_entropy(labels, logits)
  accuracy, top_5 = (tf.reduce_mean(top_k.in_top_k(labels, logits, k)) for k in (1, 5))
  return global_step, accuracy, top_5, logits


def metric_fn(labels: tf.Tensor, logits: tf.Tensor, per_class: bool) -> dict[str, Any]:
  """Metrics over all evaluated images; `per_class` with precision and recall of each class."""
  found = {
    'accuracy': tf.metrics.mean(top_k.in_top_k(labels, logits, 1)),
    'top_5_accuracy': tf.metrics.mean(top_k.in_top_k(labels, logits, 5)),
  }
  if per_class:
    predictions = tf.argmax(logits, 1, output_type=tf.int32)
    for c in range(logits.shape.as_list()[1]):
      is_class, said_class = tf.equal(labels, c), tf.equal(predictions, c)
      found[f'precision/class_{c}'] = tf.metrics.precision(is_class, said_class)
      found[f'recall/class_{c}'] = tf.metrics.recall(is_class, said_class)
  return found


class CifarExperiment(StepExperiment):
  """A WideResNet on CIFAR-10."""

  schema = cifar_config.SCHEMA
  network_fields = ('resnet_depth', 'resnet_width', 'num_classes')
  lasting_fields = ('prune_first_layer', 'prune_last_layer')
  config: CifarConfig
  settings: RunSettings

  @property
  def network(self) -> str:
    return f'WRN-{self.config.resnet_depth}-{self.config.resnet_width}'

  @property
  def pruning_hparams(self) -> str:
    """Further hyperparameters of `prune`, name=value,..."""
    return self.settings.pruning_hparams

  def check(self) -> None:
    self.check_common(self.config.batch_size, self.settings.mode)
    if self.config.num_classes < cifar_data.N_CLASSES:
      raise ValueError(
        f'num_classes must be >= {cifar_data.N_CLASSES}, got {self.config.num_classes}.'
      )
    factory.pruning_hparams_of(self.unscaled).parse(self.pruning_hparams)

  @property
  def own_folder(self) -> str:
    """<train_dir>/method/end_sparsity/begin/end/frequency."""
    sparsity, method = self.sparsity, self.sparsity.method
    steps: tuple[float, ...] = 0.0, 0.0, 0.0
    if method.is_dynamic:
      steps = (
        sparsity.maskupdate_begin_step,
        sparsity.maskupdate_end_step,
        sparsity.maskupdate_frequency,
      )
    elif method.prunes_gradually:
      steps = sparsity.pruning_begin_step, sparsity.pruning_end_step, sparsity.pruning_frequency
    parts = sparsity.end_sparsity if method.uses_masks else 0.0, *steps
    return os.path.join(self.settings.train_dir, sparsity.training_method, *map(str, parts))

  def load_data(self) -> cifar_data.CifarData:
    return cifar_data.load_cifar(
      self.settings.data_directory, use_synthetic_data=self.settings.use_synthetic_data
    )

  def train_input(self, data: cifar_data.CifarData) -> specs.InputFn:
    return lambda: data_helper.train_dataset(
      data.train_images,
      data.train_labels,
      self.config.batch_size,
      self.sparsity.seed,
      self.first_iteration,
    )

  def eval_input(self, data: cifar_data.CifarData) -> specs.InputFn:
    return lambda: data_helper.eval_dataset(
      data.test_images, data.test_labels, self.config.batch_size
    )

  def text_of(self, metrics: Mapping[str, float]) -> str:
    return (
      f'step {metrics["global_step"]}: '
      f'accuracy {metrics["accuracy"]:.2%}, '
      f'top 5 {metrics["top_5_accuracy"]:.2%}, '
      f'loss {metrics["loss"]:.4f}'
    )

  def model_fn(
    self, features: tf.Tensor, labels: tf.Tensor, mode: str
  ) -> specs.TrainSpec | specs.EvalSpec:
    """The graph of a mode.

    Args:
      features: images float32 [batch, 32, 32, 3].
      labels: int32 [batch].
      mode: 'train' or 'eval'.
    """
    config = self.config
    _, accuracy, top_5, logits = build_model(
      mode,
      features,
      labels,
      self.sparsity.training_method,
      config.num_classes,
      config.resnet_depth,
      config.resnet_width,
      config,
      self.masked_layers,
    )
    # The last one is this replica's: all of them share the collection.
    cross_entropy = tf.losses.get_losses()[-1]
    loss = cross_entropy + tf.losses.get_regularization_loss()
    if mode == 'train':
      scalars = {'loss': loss, 'cross_entropy_loss': cross_entropy}
      return self._train_spec(loss, {**scalars, 'accuracy': accuracy, 'top_5_accuracy': top_5})
    return specs.EvalSpec(
      loss,
      lambda labels, logits: metric_fn(labels, logits, self.settings.per_class_metrics),
      [tf.cast(labels, tf.int32), logits],
    )

  def _train_spec(self, loss: tf.Tensor, scalars: dict[str, tf.Tensor]) -> specs.TrainSpec:
    global_step = tf.train.get_global_step()
    learning_rate = self.config.learning_rate_at(global_step)
    scalars = {tag: replicas.mean(value) for tag, value in scalars.items()}
    optimizer = factory.make_optimizer(
      self.sparsity,
      factory.make_inner_optimizer(
        'momentum', learning_rate, self.config.momentum, use_nesterov=True
      ),
      pruning_hparams=self.pruning_hparams,
    )
    drop_fraction = factory.annealed_drop_fraction(self.sparsity, global_step.read_value())
    not_finite = stop_at_nan.NotFiniteHook(self.folder)
    train_op = factory.make_train_op(
      optimizer,
      loss,
      global_step,
      not_finite=not_finite,
      first_iteration=self.first_iteration,
      reported=[learning_rate, drop_fraction],
    )
    progress = ProgressHook(
      scalars,
      self.config.total_steps,
      self.settings.steps_per_summary,
      self.folder,
      {'learning_rate': learning_rate, 'drop_fraction': drop_fraction},
      mask_watch.MaskWatch(pruning.get_masks()),
    )
    return specs.TrainSpec(
      loss,
      train_op,
      self.make_scaffold,
      hooks=[not_finite],
      chief_hooks=[progress],
      listeners=[hooks.SaveState(progress.save_state)],
      replica_means=list(scalars.values()),
    )

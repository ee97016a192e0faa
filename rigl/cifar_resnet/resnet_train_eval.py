r"""Trains and evaluates WideResNets on CIFAR-10 with sparse training methods.

    python rigl/cifar_resnet/resnet_train_eval.py --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --data_directory=/data/cifar10

A run has its own folder below --train_dir. Started again it goes on where it
stopped; `--mode=eval` follows a run and evaluates each of its checkpoints.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any, Optional

from absl import flags, logging

from rigl import replicas
from rigl.cifar_resnet import cifar_data, data_helper, resnet_model
from rigl.compat import tf
from rigl.training import (
  checkpoints,
  command_line,
  distribution,
  factory,
  finite,
  hooks,
  lr_schedules,
  mask_init,
  runner,
  script,
  sparse_flags,
  summaries,
)
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = {
    'batch_size': 128,
    'data_directory': '',
    'drop_fraction_anneal': 'constant',
    'end_sparsity': 0.9,
    'keep_checkpoint_max': 5,
    'mask_init_method': 'random',
    'maskupdate_end_step': 75000,
    'mode': 'train',
    'pruning_frequency': 1000,
    'resnet_depth': 16,
    'training_method': 'baseline',
}
MODES = ('train', 'eval', 'train_and_eval')

sparse_flags.define_script(
    SCRIPT_DEFAULTS, 'initial_value_checkpoint', 'load_mask_dir', 'master',
    'ps_task', 'training_steps_multiplier', 'use_synthetic_data', modes=MODES)

with command_line.group('Gradual pruning'):
  flags.DEFINE_integer('sparsity_begin_step', 20000, 'prune: first step.')
  flags.DEFINE_integer('sparsity_end_step', 75000, 'prune: last step.')
  flags.DEFINE_string(
      'pruning_hparams', '', 'prune: further hyperparameters, name=value,... '
      '(see PruningHParams).')
with command_line.group('Network'):
  flags.DEFINE_integer('resnet_width', 4, 'Multiplier of the channels.')
  flags.DEFINE_integer('num_classes', 10, 'Classes.')
  flags.DEFINE_bool('prune_first_layer', False, 'Mask the first convolution.')
  flags.DEFINE_bool('prune_last_layer', True, 'Mask the last layer.')
with command_line.group('Optimisation'):
  flags.DEFINE_integer(
      'max_steps', 97656, 'Training steps, times training_steps_multiplier.')
  flags.DEFINE_float('l2', 5e-4, 'Coefficient of the L2 penalty.')
with command_line.group('Evaluation'):
  flags.DEFINE_bool('per_class_metrics', True,
                    'Whether to report precision and recall of each class.')
with command_line.group('Output'):
  flags.DEFINE_string(
      'train_dir', '/tmp/cifar10/', 'Folder in which each run has its own.')
  flags.DEFINE_integer(
      'checkpoint_steps', 5000, 'Steps between checkpoints.', lower_bound=1)
  flags.DEFINE_integer(
      'summaries_steps', 300, 'Steps between summaries and progress reports.',
      lower_bound=1)
with command_line.group('Not used'):
  flags.DEFINE_integer('dataset_size', 50000, 'Not used: size of the data.')


@dataclasses.dataclass(frozen=True)
class CifarConfig:
  """The hyperparameters of this script alone; flags of the same names."""

  batch_size: int = 128
  max_steps: int = 97656
  momentum: float = 0.9
  l2: float = 5e-4
  resnet_depth: int = 16
  resnet_width: int = 4
  num_classes: int = 10
  prune_first_layer: bool = False
  prune_last_layer: bool = True
  training_steps_multiplier: float = 1.

  def __post_init__(self):
    for name in ('batch_size', 'max_steps', 'resnet_width', 'num_classes',
                 'training_steps_multiplier'):
      value = getattr(self, name)
      if not (value > 0 and math.isfinite(value)):
        raise ValueError(f'{name} must be > 0, got {value}.')
    if not (self.l2 >= 0. and math.isfinite(self.l2)):
      raise ValueError(f'l2 must be >= 0, got {self.l2}.')
    if not 0. <= self.momentum < 1.:
      raise ValueError(f'momentum must be in [0, 1), got {self.momentum}.')
    resnet_model.check_depth(self.resnet_depth)
    if self.total_steps < 1:
      raise ValueError(
          f'max_steps {self.max_steps} times training_steps_multiplier '
          f'{self.training_steps_multiplier} is less than a step.')

  @property
  def total_steps(self) -> int:
    """max_steps times training_steps_multiplier."""
    return int(self.max_steps * self.training_steps_multiplier)

  def learning_rate_at(self, global_step: tf.Tensor) -> tf.Tensor:
    """0.1, divided by 5 every 30,000 steps times the multiplier.

    Args:
      global_step: int64 scalar.
    """
    boundaries = [
        int(step * self.training_steps_multiplier)
        for step in (30000, 60000, 90000)
    ]
    return lr_schedules.step_decay(global_step, 0.1, boundaries, 5.)


def configs_from_flags() -> tuple[SparsityConfig, CifarConfig]:
  """The validated hyperparameters, those of time not stretched yet.

  Raises:
    ValueError: a value is out of its range or unknown; names it.
  """
  renamed = {'pruning_begin_step': 'sparsity_begin_step',
             'pruning_end_step': 'sparsity_end_step'}
  own = [field.name for field in dataclasses.fields(CifarConfig)]
  sparse_flags.apply_gin({
      SparsityConfig: sparse_flags.flags_of(SparsityConfig, renamed),
      CifarConfig: sparse_flags.flags_of(CifarConfig),
  })
  config = CifarConfig(**{name: FLAGS[name].value for name in own})
  sparsity = sparse_flags.config_from_flags(renamed)
  return sparsity, config


def run_folder(sparsity: SparsityConfig) -> str:
  """<train_dir>/method/end_sparsity/begin/end/frequency.

  Args:
    sparsity: hyperparameters of the method, stretched.
  """
  parts = [0.0] * 4
  if sparsity.method.is_dynamic:
    parts = [sparsity.end_sparsity, sparsity.maskupdate_begin_step,
             sparsity.maskupdate_end_step, sparsity.maskupdate_frequency]
  elif sparsity.method.prunes_gradually:
    parts = [sparsity.end_sparsity, sparsity.pruning_begin_step,
             sparsity.pruning_end_step, sparsity.pruning_frequency]
  elif sparsity.method.uses_masks:
    parts[0] = sparsity.end_sparsity
  return os.path.join(
      FLAGS.train_dir, sparsity.training_method, *map(str, parts))


def build_model(mode: str,
                images: tf.Tensor,
                labels: tf.Tensor,
                training_method: str = 'baseline',
                num_classes: int = 10,
                depth: int = 10,
                width: int = 4,
                config: Optional[CifarConfig] = None):
  """Builds the network and its losses.

  Args:
    mode: 'train' or 'eval'.
    images: float32 [batch, 32, 32, 3].
    labels: integer [batch].
    training_method: a training method; decides whether layers carry masks.
    num_classes: classes.
    depth: of the WideResNet, 6n + 4.
    width: of the WideResNet.
    config: L2 penalty and which layers carry masks; the defaults when None.

  Returns:
    (global_step, accuracy, top_5, logits): accuracies are means over the
    batch; the losses are in the collections of tf.losses.
  """
  config = config or CifarConfig()
  uses_masks = SparsityConfig(training_method=training_method).method.uses_masks
  network = resnet_model.WideResNetModel(
      is_training=mode == 'train',
      regularizer=(lambda w: config.l2 * tf.nn.l2_loss(w)) if config.l2
      else None,
      pruning_method='threshold' if uses_masks else 'baseline',
      prune_first_layer=config.prune_first_layer,
      prune_last_layer=config.prune_last_layer)
  # Dropout draws by the step, so the step must exist before the network.
  global_step = tf.train.get_or_create_global_step()
  logits = network.build(
      images, depth=depth, width=width, num_classes=num_classes)
  labels = tf.cast(labels, tf.int32)
  with tf.name_scope('computing_cross_entropy_loss'):
    tf.losses.sparse_softmax_cross_entropy(labels, logits)
  is_right = tf.equal(tf.argmax(logits, 1, output_type=tf.int32), labels)
  in_top_5 = tf.math.in_top_k(logits, labels, min(5, num_classes))
  return (global_step, tf.reduce_mean(tf.cast(is_right, tf.float32)),
          tf.reduce_mean(tf.cast(in_top_5, tf.float32)), logits)


def _metric_fn(labels: tf.Tensor, logits: tf.Tensor, num_classes: int,
               per_class: bool) -> dict[str, Any]:
  """Metrics over all evaluated examples."""
  predictions = tf.argmax(logits, 1, output_type=tf.int32)
  metrics = {
      'accuracy': tf.metrics.accuracy(labels, predictions),
      'top_5_accuracy': tf.metrics.mean(tf.cast(
          tf.math.in_top_k(logits, labels, min(5, num_classes)), tf.float32)),
  }
  if per_class:
    for c in range(num_classes):
      is_class, said_class = tf.equal(labels, c), tf.equal(predictions, c)
      metrics[f'precision/class_{c}'] = tf.metrics.precision(
          is_class, said_class)
      metrics[f'recall/class_{c}'] = tf.metrics.recall(is_class, said_class)
  return metrics


def _train_spec(sparsity: SparsityConfig, config: CifarConfig, folder: str,
                loss: tf.Tensor, scalars: dict[str, tf.Tensor]) -> Any:
  global_step = tf.train.get_global_step()
  learning_rate = config.learning_rate_at(global_step)
  scalars = {tag: replicas.mean(value) for tag, value in scalars.items()}
  optimizer = factory.make_optimizer(
      sparsity, factory.make_inner_optimizer(
          'momentum', learning_rate, config.momentum, use_nesterov=True))
  train_op = factory.make_train_op(
      sparsity, optimizer, loss, global_step,
      pruning_hparams=FLAGS.pruning_hparams, on_nan=FLAGS.on_nan,
      update_ops=tf.get_collection(tf.GraphKeys.UPDATE_OPS))
  summaries.add_scalars({
      **scalars,
      'learning_rate': learning_rate,
      'drop_fraction': getattr(optimizer, 'drop_fraction', None),
      **summaries.mask_sparsities(),
  })
  if FLAGS.initial_value_checkpoint:
    checkpoints.initialize_parameters_from_ckpt(
        FLAGS.initial_value_checkpoint, folder)
  progress = hooks.ProgressHook(
      {tag.rsplit('/', 1)[-1]: value for tag, value in scalars.items()},
      config.total_steps, FLAGS.summaries_steps)
  return runner.train_spec(
      finite.without_nan(loss), train_op, lambda: mask_init.make_scaffold(
          sparsity, load_mask_dir=FLAGS.load_mask_dir),
      hooks=[finite.NotFiniteHook(FLAGS.on_nan, folder)],
      chief_hooks=[progress])


def wide_resnet_w_pruning(features: tf.Tensor, labels: tf.Tensor, mode: str,
                          params: dict[str, Any]) -> Any:
  """The model_fn of TPUEstimator.

  Args:
    features: images float32 [batch, 32, 32, 3].
    labels: int32 [batch].
    mode: of tf.estimator.ModeKeys.
    params: 'sparsity' (SparsityConfig), 'config' (CifarConfig) and 'folder' of
      the run.

  Returns:
    A TPUEstimatorSpec.
  """
  sparsity, config = params['sparsity'], params['config']
  _, accuracy, top_5, logits = build_model(
      mode, features, labels, sparsity.training_method, config.num_classes,
      config.resnet_depth, config.resnet_width, config)
  # The last one is this replica's: all of them share the collection.
  cross_entropy = tf.losses.get_losses()[-1]
  loss = cross_entropy + tf.losses.get_regularization_loss()
  if mode == 'train':
    return _train_spec(sparsity, config, params['folder'], loss, {
        'total_loss': loss,
        'computing_cross_entropy_loss/cross_entropy_loss': cross_entropy,
        'accuracy': accuracy,
        'top_5_accuracy': top_5,
    })
  return runner.eval_spec(
      loss, lambda labels, logits: _metric_fn(
          labels, logits, config.num_classes, FLAGS.per_class_metrics),
      [tf.cast(labels, tf.int32), logits])


def _print_metrics(metrics: dict[str, float]) -> None:
  print(f'step {metrics["global_step"]}: accuracy {metrics["accuracy"]:.2%}, '
        f'top 5 {metrics["top_5_accuracy"]:.2%}, loss {metrics["loss"]:.4f}',
        flush=True)


def run(mode: str, sparsity: SparsityConfig, config: CifarConfig,
        data: cifar_data.CifarData, folder: str) -> None:
  """Trains, evaluates or both in `folder`.

  Args:
    mode: one of MODES.
    sparsity: hyperparameters of the method, not stretched yet.
    config: hyperparameters of this script.
    data: the images.
    folder: of the run.
  """
  write_config = hooks.WriteConfigHook(folder, sparsity, config)
  sparsity = sparsity.scaled(config.training_steps_multiplier)
  estimator = runner.make_estimator(
      wide_resnet_w_pruning, folder, seed=sparsity.seed,
      train_batch_size=config.batch_size, eval_batch_size=config.batch_size,
      save_checkpoints_steps=FLAGS.checkpoint_steps,
      keep_checkpoint_max=FLAGS.keep_checkpoint_max,
      save_summary_steps=FLAGS.summaries_steps,
      params={'sparsity': sparsity, 'config': config, 'folder': folder},
      num_replicas=FLAGS.num_replicas)

  def train_input(params):
    return data_helper.input_fn({
        'batch_size': params['batch_size'], 'mode': 'train', 'data': data,
        'seed': sparsity.seed,
        'first_iteration': checkpoints.iterations_done(folder, sparsity)})

  def eval_input(params):
    return data_helper.input_fn({
        'batch_size': params['batch_size'], 'mode': 'eval', 'data': data})

  if mode == 'eval':
    for metrics in runner.evaluate_until(
        estimator, eval_input, config.total_steps):
      _print_metrics(metrics)
    return
  # Evaluated after each checkpoint, or trained in one go.
  chunk = FLAGS.checkpoint_steps if mode == 'train_and_eval' else (
      config.total_steps)
  step = checkpoints.latest_step(folder)
  if step >= config.total_steps:
    print(f'{folder} already holds {step} steps.')
  while step < config.total_steps:
    step = min(step - step % chunk + chunk, config.total_steps)
    if not runner.train(
        estimator, train_input, max_steps=step, hooks=[write_config]):
      return
    if mode == 'train_and_eval':
      _print_metrics(runner.evaluate(
          estimator, eval_input, checkpoints.resolve(folder)))


def _check_flags(sparsity: SparsityConfig, config: CifarConfig) -> None:
  """Raises ValueError for what would only show once the graph is built."""
  if config.num_classes < cifar_data.N_CLASSES:
    raise ValueError(f'num_classes must be >= {cifar_data.N_CLASSES}, got '
                     f'{config.num_classes}.')
  script.check_folder('train_dir', FLAGS.train_dir)
  mask_init.check_load_mask_dir(sparsity, FLAGS.load_mask_dir)
  if FLAGS.mode != 'eval':
    sparse_flags.check_checkpoints('load_mask_dir', 'initial_value_checkpoint')
  factory.pruning_hparams_of(sparsity).parse(FLAGS.pruning_hparams)


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains or evaluates."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  script.check_option('mode', FLAGS.mode, MODES)
  sparsity, config = configs_from_flags()
  distribution.check(
      FLAGS.num_replicas, config.batch_size, FLAGS.mode, FLAGS.on_nan)
  _check_flags(sparsity, config)
  data = cifar_data.load_cifar(
      FLAGS.data_directory, use_synthetic_data=FLAGS.use_synthetic_data,
      seed=sparsity.seed)
  folder = run_folder(sparsity.scaled(config.training_steps_multiplier))
  os.makedirs(folder, exist_ok=True)
  logging.info('Data: %s. Run: %s.', data.source, folder)
  run(FLAGS.mode, sparsity, config, data, folder)


if __name__ == '__main__':
  script.run(main)

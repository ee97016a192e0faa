r"""Trains LeNet-300-100 on MNIST with any of the sparse training methods.

    python rigl/mnist/mnist_train_eval.py --training_method=rigl \
        --end_sparsity=0.98 --save_path=/tmp/mnist_rigl

Started again with the same --save_path it goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from typing import Any, Optional

import numpy as np
from absl import flags, logging

from rigl import replicas
from rigl.compat import tf
from rigl.core import checks
from rigl.mnist import epoch_log, mnist_data, mnist_input
from rigl.mnist.compression import get_compressed_fc  # noqa: F401
from rigl.mnist.mnist_model import mnist_network_fc
from rigl.model_pruning import pruning
from rigl.training import (
  checkpoints,
  command_line,
  distribution,
  factory,
  finite,
  hooks,
  lr_schedules,
  mask_init,
  resuming,
  runner,
  script,
  sparse_flags,
)
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = {
    'batch_size': 100,
    'end_sparsity': 0.98,
    'drop_fraction_anneal': 'cosine',
    'mask_init_method': 'random',
    'maskupdate_end_step': 50000,
    'pruning_frequency': 500,
    'training_method': 'baseline',
}

sparse_flags.define_script(SCRIPT_DEFAULTS)

with command_line.group('Sparse training'):
  flags.DEFINE_float(
      'sparsity_scale', 0.9,
      'Sparsity of the second layer as a multiple of end_sparsity.')
with command_line.group('Gradual pruning'):
  flags.DEFINE_integer('prune_begin_step', 2000, 'prune: first step.')
  flags.DEFINE_integer('prune_end_step', 30000, 'prune: last step.')
with command_line.group('Network'):
  flags.DEFINE_string('network_type', 'fc', 'Network; fc is the only one.')
  flags.DEFINE_string(
      'input_mask_path', '',
      'Checkpoint (prefix or folder) of a former run: only the pixels its '
      'first layer was connected to are used.')
with command_line.group('Optimisation'):
  flags.DEFINE_integer('num_epochs', 200, 'Epochs to train.')
  flags.DEFINE_float('learning_rate', 0.2, 'Initial learning rate.')
  flags.DEFINE_integer(
      'lr_drop_epoch', 75,
      'The learning rate is divided by 3 after this epoch and 20 epochs later; '
      'that of the baseline after epochs 60, 70 and 80.')
  flags.DEFINE_string(
      'optimizer', 'momentum',
      f'Inner optimizer: {", ".join(factory.INNER_OPTIMIZERS)}.')
  flags.DEFINE_bool('use_nesterov', True, 'Nesterov momentum.')
  flags.DEFINE_float('l2_scale', 1e-4, 'Coefficient of the L2 penalty.')
with command_line.group('Data'):
  flags.DEFINE_string(
      'mnist', '/tmp/data',
      'Folder with the four IDX files of MNIST, gzipped or not. Without them, '
      'and if the flag is not given, TensorFlow Datasets or the sample in the '
      'package is used.')
with command_line.group('Output'):
  flags.DEFINE_string(
      'save_path', '',
      'Folder of checkpoints, logs and summaries. Without it nothing is kept.')
  flags.DEFINE_bool('save_model', True, 'Whether to write checkpoints.')
  flags.DEFINE_integer(
      'checkpoint_epochs', 10, 'Epochs between checkpoints.', lower_bound=1)
  flags.DEFINE_integer(
      'mask_record_frequency', 0,
      'Iterations between stored masks; 0 for none.', lower_bound=0)

_RENAMED = {'pruning_begin_step': 'prune_begin_step',
            'pruning_end_step': 'prune_end_step'}


@dataclasses.dataclass(frozen=True)
class MnistConfig:
  """The hyperparameters of this script alone; flags of the same names."""

  batch_size: int
  learning_rate: float
  momentum: float
  use_nesterov: bool
  num_epochs: int
  lr_drop_epoch: int
  optimizer: str
  l2_scale: float
  network_type: str
  sparsity_scale: float
  input_mask_path: str = ''

  def __post_init__(self):
    for name in ('batch_size', 'learning_rate', 'lr_drop_epoch'):
      checks.positive(name, getattr(self, name))
    for name in ('num_epochs', 'l2_scale', 'sparsity_scale'):
      checks.not_negative(name, getattr(self, name))
    checks.below_one('momentum', self.momentum)
    checks.one_of('network_type', self.network_type, ('fc',))
    checks.one_of('optimizer', self.optimizer, factory.INNER_OPTIMIZERS)

  def learning_rate_at(self, global_step: tf.Tensor, is_dense: bool,
                       n_batches: int) -> Any:
    """The rate at a step; the dense baseline drops it three times.

    Args:
      global_step: int64 scalar.
      is_dense: whether the training method is the baseline.
      n_batches: steps in an epoch.
    """
    if self.optimizer == 'adam':
      return self.learning_rate
    epochs = ((60, 70, 80) if is_dense else
              (self.lr_drop_epoch, self.lr_drop_epoch + 20))
    return lr_schedules.step_decay(
        global_step, self.learning_rate, [e * n_batches for e in epochs], 3.)


def custom_sparsity_map(sparsity: SparsityConfig,
                        config: MnistConfig) -> dict[str, float]:
  """The layers that are not as sparse as the rest: the last one is dense.

  Args:
    sparsity: hyperparameters.
    config: hyperparameters.

  Raises:
    ValueError: sparsity_scale leaves nothing of the second layer.
  """
  second = sparsity.end_sparsity * config.sparsity_scale
  if second >= 1.:
    raise ValueError(f'sparsity_scale={config.sparsity_scale} makes the '
                     f'sparsity of layer2 {second}, which is not in [0, 1).')
  return {'layer2': second, 'layer3': 0.}


def configs_from_flags() -> tuple[SparsityConfig, MnistConfig]:
  """The hyperparameters that flags and gin bindings give."""
  return sparse_flags.configs_from_flags(MnistConfig, _RENAMED)


def _kept_pixels(path: str) -> Optional[np.ndarray]:
  """bool [784]: the pixels that layer1 of another run was connected to."""
  if not path:
    return None
  prefix = checkpoints.resolve(path, 'input_mask_path')
  shapes = checkpoints.open_checkpoint(prefix).get_variable_to_shape_map()
  n_pixels = shapes.get('layer1/mask', [None])[0]
  if n_pixels is None:
    raise ValueError(f'input_mask_path={path}: layer1/mask is missing in '
                     f'{prefix}.')
  if n_pixels != 784:
    raise ValueError(
        f'input_mask_path={path}: layer1/mask in {prefix} is that of '
        f'{n_pixels} of the 784 pixels, as that run had an input mask itself. '
        'Give a run on all pixels.')
  mask = checkpoints.read_tensors(prefix, ['layer1/mask'])['layer1/mask']
  kept = mask.any(axis=1)
  if not kept.any():
    raise ValueError(f'input_mask_path={path}: no pixel is connected in '
                     f'{prefix}.')
  return kept


@dataclasses.dataclass(frozen=True)
class Training:
  """All that `model_fn` needs beyond its batch."""

  sparsity: SparsityConfig
  config: MnistConfig
  schedule: epoch_log.Schedule
  test_images: np.ndarray
  test_labels: np.ndarray
  folder: str
  name: str
  kept_pixels: Optional[np.ndarray] = None


def _make_log(training: Training, loss: tf.Tensor, accuracy: tf.Tensor,
              optimizer: tf.train.Optimizer) -> epoch_log.EpochLog:
  """Builds the test network on the trained variables, and the log."""
  images = tf.placeholder(
      tf.uint8, [None, training.test_images.shape[1]], 'test_images')
  labels = tf.placeholder(tf.uint8, [None], 'test_labels')
  test_loss, test_accuracy = mnist_network_fc(
      (mnist_input.scale_pixels(images), labels), reuse=True,
      model_pruning=training.sparsity.method.uses_masks, l2_scale=0.)
  fetches = epoch_log.Fetches(
      loss=loss, accuracy=accuracy,
      drop_fraction=getattr(optimizer, 'annealed_drop_fraction', None),
      test_loss=test_loss, test_accuracy=test_accuracy,
      test_feed={images: training.test_images, labels: training.test_labels},
      masks=pruning.get_masks())
  path = os.path.join(training.folder, training.name)
  return epoch_log.EpochLog(
      fetches, training.schedule, training.folder, f'{path}.txt',
      f'{path}_masks.npz', training.kept_pixels)


def make_model_fn(training: Training, logs: list[epoch_log.EpochLog]):
  """The model_fn of one training; appends its log to `logs`.

  Of several replicas the first one's log, which comes first, is in use.
  """

  def model_fn(features, labels, mode, params):
    del mode, params  # Tests run inside training, see epoch_log.
    sparsity, config = training.sparsity, training.config
    cross_entropy, accuracy = mnist_network_fc(
        (features, labels), model_pruning=sparsity.method.uses_masks,
        l2_scale=config.l2_scale)
    loss = cross_entropy + tf.losses.get_regularization_loss()
    global_step = tf.train.get_or_create_global_step()
    learning_rate = config.learning_rate_at(
        global_step, not sparsity.method.uses_masks,
        training.schedule.n_batches)
    custom_map = custom_sparsity_map(sparsity, config)
    optimizer = factory.make_optimizer(
        sparsity, factory.make_inner_optimizer(
            config.optimizer, learning_rate, config.momentum,
            config.use_nesterov), custom_sparsity_map=custom_map)
    train_op = factory.make_train_op(
        sparsity, optimizer, loss, global_step, custom_map,
        on_nan=FLAGS.on_nan)
    log = _make_log(
        training, replicas.mean(loss), replicas.mean(accuracy), optimizer)
    logs.append(log)
    return runner.train_spec(
        finite.without_nan(loss), train_op,
        lambda: mask_init.make_scaffold(sparsity, custom_map),
        hooks=[finite.NotFiniteHook(
            FLAGS.on_nan, training.folder if FLAGS.save_path else '')],
        chief_hooks=[log])

  return model_fn


def _saves() -> bool:
  """Whether there are to be checkpoints."""
  return bool(FLAGS.save_model and FLAGS.save_path)


def _make_estimator(training: Training, logs: list[epoch_log.EpochLog]) -> Any:
  n_batches = training.schedule.n_batches
  return runner.make_estimator(
      make_model_fn(training, logs), training.folder,
      seed=training.sparsity.seed,
      train_batch_size=training.config.batch_size,
      save_checkpoints_steps=(
          FLAGS.checkpoint_epochs * n_batches if _saves() else None),
      keep_checkpoint_max=2, save_summary_steps=0,
      num_replicas=FLAGS.num_replicas)


def _describe_stop(folder: str, sparsity: SparsityConfig,
                   n_iterations: int) -> str:
  """What is kept of a training that a signal has stopped."""
  if not FLAGS.save_path:
    return 'Stopped; nothing is kept, as there is no --save_path.'
  if not FLAGS.save_model:
    return 'Stopped; no checkpoint is kept, as of --nosave_model.'
  return (
      f'Stopped at iteration {resuming.iterations_done(folder, sparsity)} '
      f'of {n_iterations}, saved in {folder}. The same command goes on.')


def train(sparsity: SparsityConfig, config: MnistConfig,
          data: mnist_data.MnistData, folder: str) -> None:
  """Trains in `folder`, continuing what it finds there.

  Args:
    sparsity: hyperparameters of the method.
    config: hyperparameters of this script.
    data: the digits.
    folder: of the run.

  Raises:
    ValueError: a batch is more than the training images.
    hooks.StoppedError: a signal has stopped it.
  """
  if config.batch_size > len(data.train_images):
    raise ValueError(f'batch_size {config.batch_size} is more than the '
                     f'{len(data.train_images)} training digits.')
  resuming.check_same_settings(
      folder, 'save_path', (sparsity, config),
      ('optimizer', 'input_mask_path', 'sparsity_scale'))
  kept = _kept_pixels(config.input_mask_path)
  train_images = mnist_input.flat_pixels(data.train_images, kept)
  n_batches = len(train_images) // config.batch_size
  first_step = checkpoints.latest_step(folder)
  schedule = epoch_log.Schedule(
      n_batches=n_batches, n_epochs=config.num_epochs,
      first_iteration=resuming.iterations_done(folder, sparsity),
      record_frequency=FLAGS.mask_record_frequency)
  training = Training(
      sparsity, config, schedule,
      mnist_input.flat_pixels(data.test_images, kept), data.test_labels,
      folder, run_name(sparsity, config), kept)
  logging.info('Data: %s.', data.source)
  n_iterations = config.num_epochs * n_batches
  factory.warn_of_late_pruning(sparsity, n_iterations)

  def input_fn(params):
    del params
    return mnist_input.train_dataset(
        train_images, data.train_labels, config.batch_size,
        schedule.first_iteration, n_iterations, sparsity.seed)

  if schedule.first_iteration >= n_iterations > 0:
    print(f'{folder} already holds {config.num_epochs} epochs.')
    return
  logs: list[epoch_log.EpochLog] = []
  stopped_by = runner.train(
      _make_estimator(training, logs), input_fn, first_step=first_step,
      hooks=[hooks.WriteConfigHook(folder, sparsity, config)],
      saving_listeners=(
          [epoch_log.SaveRecords(lambda: logs[0])] if _saves() else []))
  logs[0].save_records()
  if stopped_by:
    raise hooks.StoppedError(
        stopped_by, _describe_stop(folder, sparsity, n_iterations))
  if logs[0].last_accuracy is not None:
    print(f'Test error: final {1. - logs[0].last_accuracy:.2%}, '
          f'best {1. - logs[0].best_accuracy:.2%}')


def run_name(sparsity: SparsityConfig, config: MnistConfig) -> str:
  """The hyperparameters that tell runs apart, as a file name.

  Not their number of epochs: who trains longer goes on with the same files.
  """
  parts = [sparsity.training_method, config.optimizer,
           f'lr{config.learning_rate:g}']
  if sparsity.method.uses_masks:
    parts += [f'sparsity{sparsity.end_sparsity:g}',
              f'scale{config.sparsity_scale:g}']
  if sparsity.method.is_dynamic:
    parts += [f'drop{sparsity.drop_fraction:g}',
              sparsity.drop_fraction_anneal,
              f'every{sparsity.maskupdate_frequency}']
  return '_'.join(parts + [f'seed{sparsity.seed}'])


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  sparsity, config = configs_from_flags()
  custom_sparsity_map(sparsity, config)  # Only a check here.
  distribution.check(
      FLAGS.num_replicas, config.batch_size, on_nan=FLAGS.on_nan)
  if distribution.n_workers() > 1 and (
      FLAGS.mask_record_frequency or not FLAGS.save_path):
    raise ValueError(
        'The workers of TF_CONFIG need a save_path, got '
        f'{FLAGS.save_path!r}, and mask_record_frequency=0, got '
        f'{FLAGS.mask_record_frequency}.')
  if FLAGS.mask_record_frequency and not sparsity.method.uses_masks:
    logging.warning('mask_record_frequency=%d has no effect: %s has no masks.',
                    FLAGS.mask_record_frequency, sparsity.training_method)
  script.check_folder('save_path', FLAGS.save_path)
  sparse_flags.check_checkpoints('input_mask_path')
  data = mnist_data.load_mnist(
      FLAGS.mnist, explicit=sparse_flags.user_gave('mnist'))
  if FLAGS.save_path:
    os.makedirs(FLAGS.save_path, exist_ok=True)
    train(sparsity, config, data, FLAGS.save_path)
    return
  with tempfile.TemporaryDirectory() as folder:
    logging.warning('No --save_path: nothing of this run will be kept.')
    train(sparsity, config, data, folder)


if __name__ == '__main__':
  script.run(main)

r"""Trains LeNet-300-100 on MNIST with any of the sparse training methods.

    python rigl/mnist/mnist_train_eval.py --training_method=rigl \
        --end_sparsity=0.98 --save_path=/tmp/mnist_rigl

Started again with the same --save_path it goes on where it stopped.
"""

from __future__ import annotations

import os
import tempfile
from typing import Optional

import numpy as np
from absl import flags, logging

from rigl.mnist import mnist_config
from rigl.mnist.mnist_config import MnistConfig
from rigl.training import command_line, config_flags, script, sparse_flags
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
config_flags.define(MnistConfig)

with command_line.group('Gradual pruning'):
  flags.DEFINE_integer('prune_begin_step', 2000, 'prune: first step.')
  flags.DEFINE_integer('prune_end_step', 30000, 'prune: last step.')
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

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(__name__)

from rigl.mnist import epoch_log, mnist_data, mnist_input, mnist_model_fn
from rigl.mnist.compression import get_compressed_fc  # noqa: F401
from rigl.mnist.mnist_model import mnist_network_fc  # noqa: F401
from rigl.training import (
  checkpoints,
  distribution,
  factory,
  hooks,
  resuming,
  runner,
  specs,
)

_RENAMED = {'pruning_begin_step': 'prune_begin_step',
            'pruning_end_step': 'prune_end_step'}


def configs_from_flags() -> tuple[SparsityConfig, MnistConfig]:
  """The hyperparameters that flags and gin bindings give."""
  return config_flags.hyperparameters(MnistConfig, _RENAMED)


def _saves() -> bool:
  """Whether there are to be checkpoints."""
  return bool(FLAGS.save_model and FLAGS.save_path)


def _make_loop(training: mnist_model_fn.Training,
               logs: list[epoch_log.EpochLog]) -> specs.Loop:
  save_steps = FLAGS.checkpoint_epochs * training.schedule.n_batches
  return runner.make_loop(
      specs.Job(
          mnist_model_fn.make_model_fn(training, logs), training.folder,
          seed=training.sparsity.seed,
          save_steps=save_steps if _saves() else None, keep_checkpoint_max=2,
          save_summary_steps=0), FLAGS.loop, FLAGS.num_replicas)


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
          data: mnist_data.MnistData, kept: Optional[np.ndarray],
          folder: str) -> None:
  """Trains in `folder`, continuing what it finds there.

  Args:
    sparsity: hyperparameters of the method.
    config: hyperparameters of this script.
    data: the digits.
    kept: bool [784], the pixels that are inputs; None for all.
    folder: folder of the run.

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
  mnist_config.keep_input_pixels(kept, folder)
  train_images = mnist_input.flat_pixels(data.train_images, kept)
  n_batches = len(train_images) // config.batch_size
  first_step = checkpoints.latest_step(folder)
  schedule = epoch_log.Schedule(
      n_batches=n_batches, n_epochs=config.num_epochs,
      first_iteration=resuming.iterations_done(folder, sparsity),
      record_frequency=FLAGS.mask_record_frequency)
  training = mnist_model_fn.Training(
      sparsity, config, schedule,
      mnist_input.flat_pixels(data.test_images, kept), data.test_labels,
      folder, mnist_config.run_name(sparsity, config), kept,
      bool(FLAGS.save_path), FLAGS.on_nan)
  (logging.warning if data.is_sample else logging.info)(
      'Data: %s.', data.source)
  n_iterations = schedule.n_iterations
  factory.warn_of_late_pruning(sparsity, n_iterations)

  def input_fn():
    # One more batch than iterations: see hooks.LastIterationHook.
    return mnist_input.train_dataset(
        train_images, data.train_labels, config.batch_size,
        schedule.first_iteration, n_iterations and n_iterations + 1,
        sparsity.seed)

  if schedule.first_iteration and schedule.first_iteration >= n_iterations:
    runner.end_at_once(
        folder, f'{schedule.first_iteration / n_batches:g} epochs')
    return
  logs: list[epoch_log.EpochLog] = []
  stopped_by = runner.train(
      _make_loop(training, logs), input_fn, first_step=first_step,
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


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  sparsity, config = configs_from_flags()
  mnist_config.custom_sparsity_map(sparsity, config)  # Only a check here.
  distribution.check(
      FLAGS.num_replicas, config.batch_size, on_nan=FLAGS.on_nan)
  runner.choose_loop(FLAGS.loop, FLAGS.num_replicas)
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
  kept = mnist_config.input_pixels(config.input_mask_path, FLAGS.save_path)
  data = mnist_data.load_mnist(
      FLAGS.mnist, explicit=sparse_flags.user_gave('mnist'))
  if FLAGS.save_path:
    os.makedirs(FLAGS.save_path, exist_ok=True)
    train(sparsity, config, data, kept, FLAGS.save_path)
    return
  with tempfile.TemporaryDirectory() as folder:
    logging.warning('No --save_path: nothing of this run will be kept.')
    train(sparsity, config, data, kept, folder)


if __name__ == '__main__':
  script.run(main, _ARGUMENTS)

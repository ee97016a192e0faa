"""Trains LeNet-300-100 in the folder of one run."""

from __future__ import annotations

import os
import shlex
import tempfile
from typing import Collection, Optional

import numpy as np
from absl import logging

from rigl.mnist import (
  epoch_log,
  mnist_config,
  mnist_data,
  mnist_input,
  mnist_model_fn,
)
from rigl.mnist.mnist_config import MnistConfig, RunSettings
from rigl.training import (
  calls,
  checkpoints,
  distribution,
  factory,
  history,
  hooks,
  resuming,
  runner,
  script,
  specs,
)
from rigl.training.config import SparsityConfig


def _make_loop(training: mnist_model_fn.Training,
               logs: list[epoch_log.EpochLog],
               settings: RunSettings) -> specs.Loop:
  save_steps = settings.checkpoint_epochs * training.schedule.n_batches
  return runner.make_loop(
      specs.Job(
          mnist_model_fn.make_model_fn(training, logs), training.folder,
          seed=training.sparsity.seed,
          save_steps=save_steps if settings.saves else None,
          keep_checkpoint_max=2),
      settings.loop, settings.num_replicas)


def _describe_stop(settings: RunSettings, sparsity: SparsityConfig,
                   n_iterations: int) -> str:
  """Tells what is saved of a training that a signal has stopped."""
  folder = settings.save_path
  if not folder:
    return 'Stopped; nothing is kept, as there is no --save_path.'
  if not settings.save_model:
    return 'Stopped; no checkpoint is kept, as of --nosave_model.'
  return (
      f'Stopped at iteration {resuming.iterations_done(folder, sparsity)} '
      f'of {n_iterations}, saved in {folder}. The same command goes on.')


def _describe_checkpoint(folder: str, sparsity: SparsityConfig) -> str:
  """The checkpoint, and why its step may differ from the iterations."""
  name = os.path.basename(checkpoints.latest(folder) or '')
  done = resuming.iterations_done(folder, sparsity)
  n_updates = done - checkpoints.latest_step(folder)
  return name + (f' (the other {n_updates:,} of {done:,} iterations set masks)'
                 if n_updates else '')


def _print_end(log: epoch_log.EpochLog, settings: RunSettings,
               sparsity: SparsityConfig) -> None:
  """Prints the quality and the place of the network, and how to use it."""
  best = log.best
  if log.last_accuracy is None or not best:
    return
  print(f'Test error: final {1. - log.last_accuracy:.2%}, '
        f'best {1. - best["accuracy"]:.2%} (epoch {best["epoch"]})')
  folder = settings.save_path
  if not folder:
    return
  kept = [history.METRICS_FILE]
  quoted = shlex.quote(folder)
  commands = [f'tensorboard --logdir={quoted}']
  if settings.mask_record_frequency:
    commands.append('python -m rigl.mnist.visualize_mask_records '
                    f'--records_path={quoted} --output=masks.png')
  if settings.saves:
    kept.insert(0, _describe_checkpoint(folder, sparsity))
    commands.append(
        f'python -m rigl.inference export {quoted} --output=model.tflite')
  print(f'Kept in {folder}: {" and ".join(kept)}. Next:',
        *(f'  {command}' for command in commands), sep='\n', flush=True)


def _make_training(
    sparsity: SparsityConfig, config: MnistConfig, settings: RunSettings,
    data: mnist_data.MnistData, kept: Optional[np.ndarray],
    folder: str) -> mnist_model_fn.Training:
  """The arguments of the model_fn of `train`."""
  schedule = epoch_log.Schedule(
      n_batches=len(data.train_images) // config.batch_size,
      n_epochs=config.num_epochs,
      first_iteration=resuming.iterations_done(folder, sparsity),
      record_frequency=settings.mask_record_frequency)
  return mnist_model_fn.Training(
      sparsity, config, schedule,
      mnist_input.flat_pixels(data.test_images, kept), data.test_labels,
      folder, mnist_config.run_name(sparsity, config), kept,
      bool(settings.save_path))


def train(sparsity: SparsityConfig, config: MnistConfig, settings: RunSettings,
          data: mnist_data.MnistData, kept: Optional[np.ndarray],
          folder: str) -> None:
  """Trains in `folder`, resuming from a checkpoint there.

  Args:
    sparsity: hyperparameters of the method.
    config: hyperparameters of network and optimizer.
    settings: files and devices.
    data: the digits.
    kept: bool [784], the pixels that are inputs; None for all.
    folder: folder of the run, from the settings or temporary.

  Raises:
    ValueError: a batch is larger than the training set.
    hooks.StoppedError: a signal has stopped the training.
  """
  if config.batch_size > len(data.train_images):
    raise ValueError(f'batch_size {config.batch_size} is more than the '
                     f'{len(data.train_images)} training digits.')
  resuming.check_same_settings(
      folder, 'save_path', (sparsity, config),
      ('optimizer', 'input_mask_path', 'sparsity_scale'))
  mnist_config.keep_input_pixels(kept, folder)
  train_images = mnist_input.flat_pixels(data.train_images, kept)
  training = _make_training(sparsity, config, settings, data, kept, folder)
  schedule = training.schedule
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
    n_epochs = schedule.first_iteration // schedule.n_batches
    runner.end_at_once(folder, f'{n_epochs} epochs')
    return
  logs: list[epoch_log.EpochLog] = []
  stopped_by = runner.train(
      _make_loop(training, logs, settings), input_fn,
      first_step=checkpoints.latest_step(folder),
      hooks=[hooks.WriteConfigHook(folder, sparsity, config)])
  logs[0].save_records()
  if stopped_by:
    raise hooks.StoppedError(
        stopped_by, _describe_stop(settings, sparsity, n_iterations))
  _print_end(logs[0], settings, sparsity)


def _check(sparsity: SparsityConfig, config: MnistConfig,
           settings: RunSettings) -> None:
  """Raises ValueError early for settings that would fail later."""
  mnist_config.custom_sparsity_map(sparsity, config)  # Only a check here.
  distribution.check(settings.num_replicas, config.batch_size)
  runner.choose_loop(settings.loop, settings.num_replicas)
  if distribution.n_workers() > 1 and (
      settings.mask_record_frequency or not settings.save_path):
    raise ValueError(
        'The workers of TF_CONFIG need a save_path, got '
        f'{settings.save_path!r}, and mask_record_frequency=0, got '
        f'{settings.mask_record_frequency}.')
  if settings.mask_record_frequency and not sparsity.method.uses_masks:
    logging.warning('mask_record_frequency=%d has no effect: %s has no masks.',
                    settings.mask_record_frequency, sparsity.training_method)
  script.check_folder('save_path', settings.save_path)


def run(sparsity: SparsityConfig, config: MnistConfig, settings: RunSettings,
        explicit_data: bool) -> str:
  """Checks everything, then trains.

  Args:
    sparsity: hyperparameters of the method.
    config: hyperparameters of network and optimizer.
    settings: data, files and devices.
    explicit_data: whether the user gave settings.mnist.

  Returns:
    The folder of the run, '' if it was temporary.

  Raises:
    ValueError: settings are invalid, or contradict each other or the folder;
      names them.
    hooks.StoppedError: a signal has stopped the training.
  """
  _check(sparsity, config, settings)
  kept = mnist_config.input_pixels(config.input_mask_path, settings.save_path)
  data = mnist_data.load_mnist(settings.mnist, explicit=explicit_data)
  if settings.save_path:
    os.makedirs(settings.save_path, exist_ok=True)
    train(sparsity, config, settings, data, kept, settings.save_path)
    return settings.save_path
  with tempfile.TemporaryDirectory() as folder:
    logging.warning('No --save_path: nothing of this run will be kept.')
    train(sparsity, config, settings, data, kept, folder)
  return ''


def _run_of_call(sparsity: SparsityConfig, config: MnistConfig,
                 settings: RunSettings, given: Collection[str]) -> str:
  return run(sparsity, config, settings, explicit_data='mnist' in given)


SCRIPT = calls.Script(
    _run_of_call, (SparsityConfig, MnistConfig, RunSettings),
    mnist_config.DEFAULTS, mnist_config.RENAMED, 'save_path')

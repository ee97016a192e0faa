"""Trains and evaluates in the folder of one CIFAR-10 run."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Collection

from rigl.cifar_resnet import (
  cifar_config,
  cifar_data,
  cifar_model_fn,
  data_helper,
)
from rigl.cifar_resnet.cifar_config import CifarConfig, RunSettings
from rigl.cifar_resnet.cifar_model_fn import Training
from rigl.compat import tf
from rigl.training import (
  calls,
  checkpoints,
  distribution,
  evaluating,
  factory,
  history,
  hooks,
  mask_init,
  resuming,
  runner,
  script,
  specs,
)
from rigl.training.config import SparsityConfig


def run_folder(sparsity: SparsityConfig, settings: RunSettings) -> str:
  """<train_dir>/method/end_sparsity/begin/end/frequency.

  For evaluation, train_dir may also be this folder.
  """
  if evaluating.is_run(settings.mode, settings.train_dir):
    return settings.train_dir
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
      settings.train_dir, sparsity.training_method, *map(str, parts))


def make_training(sparsity: SparsityConfig, config: CifarConfig,
                  settings: RunSettings) -> Training:
  """The arguments of the graph of a training."""
  sparsity = sparsity.scaled(config.training_steps_multiplier)
  return Training(
      sparsity, config, run_folder(sparsity, settings),
      settings.pruning_hparams, settings.load_mask_dir,
      settings.initial_value_checkpoint, settings.summaries_steps,
      settings.per_class_metrics)


def _print_metrics(found: dict[str, float]) -> None:
  print(f'step {found["global_step"]}: accuracy {found["accuracy"]:.2%}, '
        f'top 5 {found["top_5_accuracy"]:.2%}, loss {found["loss"]:.4f}',
        flush=True)


def train_or_evaluate(training: Training, settings: RunSettings,
                      data: cifar_data.CifarData,
                      write_config: tf.train.SessionRunHook) -> None:
  """Trains, evaluates or both in the folder of a training.

  Args:
    training: describes the graph.
    settings: mode, files and devices.
    data: the images.
    write_config: hook that writes the hyperparameters to the folder.
  """
  sparsity, config = training.sparsity, training.config
  loop = runner.make_loop(
      specs.Job(
          functools.partial(cifar_model_fn.model_fn, training=training),
          training.folder, seed=sparsity.seed,
          save_steps=settings.checkpoint_steps,
          keep_checkpoint_max=settings.keep_checkpoint_max),
      settings.loop, settings.num_replicas)

  def train_input():
    return data_helper.train_dataset(
        data.train_images, data.train_labels, config.batch_size, sparsity.seed,
        resuming.iterations_done(training.folder, sparsity))

  def eval_input():
    return data_helper.eval_dataset(
        data.test_images, data.test_labels, config.batch_size)

  def evaluate(checkpoint):
    found = runner.evaluate(loop, eval_input, checkpoint)
    _print_metrics(found)
    history.record_evaluation(training.folder, 'test', found)

  if settings.mode == 'eval':
    with evaluating.explained_misfits(
        training.folder, (sparsity, config), cifar_config.NETWORK):
      for found in runner.evaluate_until(
          loop, eval_input, config.total_steps):
        _print_metrics(found)
        history.record_evaluation(
            os.path.join(training.folder, 'eval'), 'test', found)
    return
  factory.warn_of_late_pruning(
      sparsity, config.total_steps, training.pruning_hparams)
  runner.train_in_turns(
      loop, train_input, config.total_steps, settings.checkpoint_steps,
      evaluate if settings.mode == 'train_and_eval' else None,
      hooks=[write_config])


def _check(sparsity: SparsityConfig, config: CifarConfig,
           settings: RunSettings) -> None:
  """Raises ValueError early for settings that would fail later."""
  distribution.check(settings.num_replicas, config.batch_size, settings.mode)
  runner.choose_loop(settings.loop, settings.num_replicas)
  if config.num_classes < cifar_data.N_CLASSES:
    raise ValueError(f'num_classes must be >= {cifar_data.N_CLASSES}, got '
                     f'{config.num_classes}.')
  script.check_folder('train_dir', settings.train_dir)
  mask_init.check_load_mask_dir(sparsity, settings.load_mask_dir)
  factory.pruning_hparams_of(sparsity).parse(settings.pruning_hparams)
  if settings.mode != 'eval':
    checkpoints.check_given(
        settings, 'load_mask_dir', 'initial_value_checkpoint')


def run(sparsity: SparsityConfig, config: CifarConfig,
        settings: RunSettings) -> str:
  """Checks everything, then trains or evaluates.

  Args:
    sparsity: unscaled hyperparameters of the method.
    config: hyperparameters of network and optimizer.
    settings: mode, data, files and devices.

  Returns:
    The folder of the run.

  Raises:
    ValueError: settings are invalid, or contradict each other or the folder;
      names them.
    hooks.StoppedError: a signal has stopped the training.
  """
  _check(sparsity, config, settings)
  training = make_training(sparsity, config, settings)
  if settings.mode != 'eval':
    resuming.check_same_settings(
        training.folder, 'train_dir', (sparsity, config),
        (*cifar_config.NETWORK, 'prune_first_layer', 'prune_last_layer'))
  elif checkpoint := checkpoints.latest(training.folder):
    training = dataclasses.replace(
        training, masked_layers=checkpoints.masked_layers(checkpoint))
  data = cifar_data.load_cifar(
      settings.data_directory, use_synthetic_data=settings.use_synthetic_data)
  script.announce(
      settings.mode, f'WRN-{config.resnet_depth}-{config.resnet_width}, '
      f'{sparsity}, {config.total_steps:,} steps', data.source, training.folder)
  train_or_evaluate(training, settings, data, hooks.WriteConfigHook(
      training.folder, sparsity, config))
  return training.folder


def _run_of_call(sparsity: SparsityConfig, config: CifarConfig,
                 settings: RunSettings, given: Collection[str]) -> str:
  del given
  return run(sparsity, config, settings)


SCRIPT = calls.Script(
    _run_of_call, (SparsityConfig, CifarConfig, RunSettings),
    {**cifar_config.DEFAULTS, 'mode': 'train_and_eval'}, cifar_config.RENAMED,
    'train_dir')

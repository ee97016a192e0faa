"""Trains, evaluates and exports in the folder of one ImageNet run."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any, Callable, Collection, Optional

from rigl.compat import tf
from rigl.imagenet_resnet import (
  imagenet_config,
  imagenet_data,
  imagenet_input,
  imagenet_model_fn,
)
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig, RunSettings
from rigl.imagenet_resnet.imagenet_model_fn import Training
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
from rigl.training import tpu as tpu_lib
from rigl.training.config import SparsityConfig


def run_folder(settings: RunSettings, sparsity: SparsityConfig,
               config: ImageNetConfig) -> str:
  """The folder of a run, named by its hyperparameters.

  Args:
    settings: parent folder, and whether to use it directly.
    sparsity: hyperparameters of the method, scaled.
    config: hyperparameters of the script.
  """
  if not settings.use_folder_stub or evaluating.is_run(
      settings.mode, settings.output_dir):
    return settings.output_dir
  return os.path.join(settings.output_dir, sparsity.training_method, *map(str, (
      sparsity.end_sparsity, sparsity.maskupdate_begin_step,
      sparsity.maskupdate_end_step, sparsity.maskupdate_frequency,
      sparsity.drop_fraction, config.label_smoothing, config.weight_decay)))


def config_folder(settings: RunSettings) -> Optional[str]:
  """The folder whose config.gin completes the flags of an evaluation."""
  if settings.mode not in evaluating.MODES:
    return None
  path = settings.output_dir
  if settings.mode == 'eval_once':
    path = os.path.join(path, settings.eval_once_ckpt_prefix)
  return path if tf.io.gfile.isdir(path) else os.path.dirname(path)


def make_training(sparsity: SparsityConfig, config: ImageNetConfig,
                  settings: RunSettings) -> Training:
  """The arguments of the graph of a training."""
  scaled = sparsity.scaled(config.training_steps_multiplier)
  return Training(
      scaled, config, run_folder(settings, scaled, config),
      settings.use_tpu, settings.load_mask_dir,
      settings.initial_value_checkpoint, settings.steps_per_summary,
      settings.log_mask_imgs_each_iteration)


def check(sparsity: SparsityConfig, config: ImageNetConfig,
          settings: RunSettings) -> None:
  """Raises ValueError early for settings that would fail later."""
  imagenet_config.check_combination(
      config, sparsity, settings.num_cores if settings.use_tpu else None)
  mask_init.check_load_mask_dir(sparsity, settings.load_mask_dir)
  distribution.check(settings.num_replicas, config.train_batch_size,
                     settings.mode)
  n_replicas = distribution.total_replicas(settings.num_replicas)
  if n_replicas > 1 and (settings.use_tpu or config.transpose_input):
    raise ValueError(
        f'{n_replicas} replicas (num_replicas, or workers of TF_CONFIG) do not '
        'work with use_tpu, where num_cores says how many share a batch, nor '
        'with transpose_input.')
  runner.choose_loop(settings.loop, settings.num_replicas, settings.use_tpu)


def make_input_fn(training: Training, settings: RunSettings, mode: str,
                  data: imagenet_data.ImageNetData) -> specs.InputFn:
  """The input_fn of a mode.

  Args:
    training: the training, which determines the first batch.
    settings: options of reading.
    mode: 'train' or 'eval'.
    data: the images.
  """
  config, sparsity = training.config, training.sparsity

  def input_fn(host_index=0, n_hosts=1):
    batch_size, first_iteration = config.eval_batch_size, 0
    if mode == 'train':
      batch_size = config.train_batch_size
      first_iteration = resuming.iterations_done(training.folder, sparsity)
    return imagenet_input.input_fn({
        'batch_size': batch_size // n_hosts, 'mode': mode, 'data': data,
        'seed': sparsity.seed, 'first_iteration': first_iteration,
        'image_size': config.image_size,
        'num_parallel_calls': settings.num_parallel_calls,
        'host_index': host_index, 'n_hosts': n_hosts,
        'transpose_input': config.transpose_input,
        'dtype': tf.as_dtype(config.precision),
        'eval_on_train': settings.eval_on_train,
        'pad_last_batch': training.use_tpu,
        'skip_corrupt_records': settings.skip_corrupt_records})

  return input_fn


def find_tpu(settings: RunSettings,
             config: ImageNetConfig) -> Optional[tpu_lib.TpuSetup]:
  """The TPU to use; None for CPU or GPU.

  Raises:
    ValueError: the TPU was not found.
  """
  if not settings.use_tpu:
    return None
  return tpu_lib.TpuSetup(
      tpu_lib.find(settings.tpu, settings.tpu_zone, settings.gcp_project,
                   settings.master),
      config.train_batch_size, config.eval_batch_size, settings.num_cores,
      settings.iterations_per_loop, settings.tpu_job_name,
      batch_axis=(3, 0) if config.transpose_input else (0, 0))


def _print_metrics(metrics: dict[str, float]) -> None:
  print(f'step {metrics["global_step"]}: '
        f'top 1 {metrics["top_1_accuracy"]:.2%}, '
        f'top 5 {metrics["top_5_accuracy"]:.2%}, '
        f'loss {metrics["cross_loss"]:.4f}', flush=True)


def _print_sparsities(checkpoint: str, training: Training) -> None:
  """Prints the sparsities of all masked layers, in order."""
  found = checkpoints.mask_sparsities(checkpoint)
  sizes = imagenet_model_fn.mask_sizes(training)
  for layer in sizes:
    print(f'  sparsity {found[layer]:.4f}  {layer}')
  if sizes:
    n_zeros = sum(found[layer] * size for layer, size in sizes.items())
    print(f'  sparsity {n_zeros / sum(sizes.values()):.4f}  of all of them')


def _export_steps(settings: RunSettings) -> int:
  """Steps between exports; 0 for workers, which export only at the end."""
  return settings.export_model_freq if distribution.n_workers() == 1 else 0


def _train(loop: specs.Loop, training: Training, settings: RunSettings,
           data: imagenet_data.ImageNetData,
           evaluate: Optional[Callable[[str], Any]],
           write_config: tf.train.SessionRunHook) -> None:
  """Trains, with an evaluation every steps_per_eval steps if given."""
  factory.warn_of_late_pruning(training.sparsity, training.config.total_steps)
  exporters = imagenet_model_fn.exporters(training, _export_steps(settings))
  runner.train_in_turns(
      loop, make_input_fn(training, settings, 'train', data),
      training.config.total_steps, settings.steps_per_eval, evaluate,
      hooks=[write_config], saving_listeners=exporters)
  if settings.export_model_freq and distribution.is_chief():
    imagenet_model_fn.export_missing(training)


def _find_checkpoint(training: Training, settings: RunSettings,
                     sparsity: SparsityConfig) -> Optional[str]:
  """The checkpoint to evaluate, or that `eval` evaluates first, if any.

  Raises:
    ValueError: a checkpoint in the settings is missing, or training cannot
      resume from that of the folder.
  """
  if settings.mode == 'eval_once':
    return checkpoints.resolve(
        os.path.join(training.folder, settings.eval_once_ckpt_prefix),
        among=settings.output_dir)
  if settings.mode == 'eval':
    return checkpoints.latest(training.folder)
  checkpoints.check_given(
      settings, 'load_mask_dir', 'initial_value_checkpoint')
  resuming.check_same_settings(
      training.folder, 'output_dir', (sparsity, training.config),
      (*imagenet_config.NETWORK, 'first_layer_sparsity',
       'last_layer_sparsity'))
  return None


def run(sparsity: SparsityConfig, config: ImageNetConfig,
        settings: RunSettings) -> str:
  """Trains or evaluates, after `check`.

  Args:
    sparsity: unscaled hyperparameters of the method.
    config: hyperparameters of the script.
    settings: mode, data, files and devices.

  Returns:
    The folder of the run.

  Raises:
    ValueError: the settings contradict the folder or the data; names them.
    hooks.StoppedError: a signal has stopped the training.
  """
  script.check_folder('output_dir', settings.output_dir)
  training = make_training(sparsity, config, settings)
  checkpoint = _find_checkpoint(training, settings, sparsity)
  if checkpoint:
    training = dataclasses.replace(
        training, masked_layers=checkpoints.masked_layers(checkpoint))
  tpu = find_tpu(settings, config)
  data = imagenet_data.find_data(
      settings.data_directory or '',
      use_synthetic_data=settings.use_synthetic_data,
      num_train_images=config.num_train_images,
      num_eval_images=config.num_eval_images,
      num_classes=config.num_label_classes)
  script.announce(
      settings.mode, f'{config.network_name}, {sparsity}, '
      f'{config.total_steps:,} steps', data.source, training.folder)
  write_config = hooks.WriteConfigHook(training.folder, sparsity, config)
  with imagenet_input.explained_errors(data):
    _train_or_evaluate(
        training, settings, data, checkpoint, write_config, tpu)
  return training.folder


def _train_or_evaluate(
    training: Training, settings: RunSettings,
    data: imagenet_data.ImageNetData, checkpoint: Optional[str],
    write_config: tf.train.SessionRunHook,
    tpu: Optional[tpu_lib.TpuSetup]) -> None:
  """Trains, evaluates one checkpoint, or alternates, by the mode."""
  config = training.config
  loop = runner.make_loop(
      specs.Job(
          functools.partial(imagenet_model_fn.model_fn, training=training),
          training.folder, seed=training.sparsity.seed,
          save_steps=settings.steps_per_checkpoint,
          keep_checkpoint_max=settings.keep_checkpoint_max,
          save_summary_steps=settings.steps_per_summary,
          export_steps=_export_steps(settings)),
      settings.loop, settings.num_replicas, tpu)
  eval_input = make_input_fn(training, settings, 'eval', data)
  n_eval = (
      config.num_train_images if settings.eval_on_train else
      config.num_eval_images)
  eval_steps = math.ceil(n_eval / config.eval_batch_size) if tpu else None

  split = 'train images' if settings.eval_on_train else 'validation'
  own_folder = os.path.join(training.folder, 'eval')

  def evaluate(prefix: str) -> None:
    metrics = runner.evaluate(loop, eval_input, prefix, eval_steps)
    _print_metrics(metrics)
    history.record_evaluation(
        own_folder if settings.mode == 'eval_once' else training.folder,
        split, metrics)

  if settings.mode not in evaluating.MODES:
    _train(loop, training, settings, data,
           evaluate if settings.mode == 'train_and_eval' else None,
           write_config)
    return
  with evaluating.explained_misfits(
      os.path.dirname(checkpoint) if checkpoint else training.folder,
      (training.sparsity, config), imagenet_config.NETWORK):
    if settings.mode == 'eval_once' and checkpoint:
      evaluate(checkpoint)
      _print_sparsities(checkpoint, training)
      return
    for metrics in runner.evaluate_until(
        loop, eval_input, config.total_steps, steps=eval_steps):
      _print_metrics(metrics)
      history.record_evaluation(own_folder, split, metrics)


def _run_of_call(sparsity: SparsityConfig, config: ImageNetConfig,
                 settings: RunSettings, given: Collection[str]) -> str:
  del given
  check(sparsity, config, settings)
  return run(sparsity, config, settings)


SCRIPT = calls.Script(
    _run_of_call, (SparsityConfig, ImageNetConfig, RunSettings),
    {**imagenet_config.DEFAULTS, 'mode': 'train_and_eval'},
    imagenet_config.RENAMED, 'output_dir')

"""Trains, evaluates and exports in the folder of one ImageNet run."""

from __future__ import annotations

import functools
import math
import os
from typing import Any, Callable, Optional

from rigl.compat import tf
from rigl.imagenet_resnet import (
  imagenet_data,
  imagenet_input,
  imagenet_model_fn,
)
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig, RunSettings
from rigl.imagenet_resnet.imagenet_model_fn import Training
from rigl.training import (
  checkpoints,
  distribution,
  factory,
  resuming,
  runner,
  specs,
)
from rigl.training import tpu as tpu_lib
from rigl.training.config import SparsityConfig


def run_folder(settings: RunSettings, sparsity: SparsityConfig,
               config: ImageNetConfig) -> str:
  """The folder of a run, by its hyperparameters.

  Args:
    settings: what is above it, and whether it has a name of its own.
    sparsity: hyperparameters of the method, stretched.
    config: hyperparameters of the script.
  """
  if not settings.use_folder_stub:
    return settings.output_dir
  return os.path.join(settings.output_dir, sparsity.training_method, *map(str, (
      sparsity.end_sparsity, sparsity.maskupdate_begin_step,
      sparsity.maskupdate_end_step, sparsity.maskupdate_frequency,
      sparsity.drop_fraction, config.label_smoothing, config.weight_decay)))


def make_input_fn(training: Training, settings: RunSettings, mode: str,
                  data: imagenet_data.ImageNetData) -> specs.InputFn:
  """The input_fn of a mode.

  Args:
    training: the training; its hyperparameters and folder tell where to go on.
    settings: how to read.
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
  """The TPU that is to be used; None for CPU or GPU.

  Args:
    settings: how it is found.
    config: whether the batch comes last.

  Raises:
    ValueError: there is none.
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


def _print_sparsities(checkpoint: str, config: ImageNetConfig) -> None:
  """Those of all layers with a mask, in the order of the network."""
  found = checkpoints.mask_sparsities(checkpoint)
  sizes = imagenet_model_fn.masked_layers(config)
  for layer in sizes:
    print(f'  sparsity {found[layer]:.4f}  {layer}')
  if sizes:
    n_zeros = sum(found[layer] * size for layer, size in sizes.items())
    print(f'  sparsity {n_zeros / sum(sizes.values()):.4f}  of all of them')


def _export_steps(settings: RunSettings) -> int:
  """Steps between exports; 0 for workers, which export at the end only."""
  return settings.export_model_freq if distribution.n_workers() == 1 else 0


def _train(loop: specs.Loop, training: Training, settings: RunSettings,
           data: imagenet_data.ImageNetData,
           evaluate: Optional[Callable[[str], Any]],
           write_config: tf.train.SessionRunHook) -> None:
  """Trains, and evaluates every steps_per_eval steps if it can."""
  factory.warn_of_late_pruning(training.sparsity, training.config.total_steps)
  exporters = imagenet_model_fn.exporters(training, _export_steps(settings))
  runner.train_in_turns(
      loop, make_input_fn(training, settings, 'train', data),
      training.config.total_steps, settings.steps_per_eval, evaluate,
      hooks=[write_config], saving_listeners=exporters)
  if settings.export_model_freq and distribution.is_chief():
    imagenet_model_fn.export_missing(training)


def run(mode: str, training: Training, settings: RunSettings,
        data: imagenet_data.ImageNetData, checkpoint: str,
        write_config: tf.train.SessionRunHook,
        tpu: Optional[tpu_lib.TpuSetup] = None) -> None:
  """Trains, evaluates or both.

  Args:
    mode: train, eval, eval_once or train_and_eval.
    training: what to train.
    settings: when to save and to evaluate, and on which devices.
    data: the images.
    checkpoint: that of eval_once.
    write_config: hook that notes the hyperparameters in the folder.
    tpu: from `find_tpu`.
  """
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

  def evaluate(prefix: str) -> None:
    _print_metrics(runner.evaluate(loop, eval_input, prefix, eval_steps))

  if mode == 'eval_once':
    evaluate(checkpoint)
    _print_sparsities(checkpoint, config)
  elif mode == 'eval':
    for metrics in runner.evaluate_until(
        loop, eval_input, config.total_steps, steps=eval_steps):
      _print_metrics(metrics)
  else:
    _train(loop, training, settings, data,
           evaluate if mode == 'train_and_eval' else None, write_config)

r"""Trains and evaluates ResNets, MobileNets and VGGs on ImageNet.

    python rigl/imagenet_resnet/imagenet_train_eval.py --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --first_layer_sparsity=-1 \
        --train_steps=32000 --train_batch_size=4096 --data_directory=$IMAGENET

A run has its own folder below --output_dir. Started again it goes on where it
stopped; `--mode=eval` follows a run and evaluates its newest checkpoint at each
look, `--mode=eval_once` evaluates one. docs/imagenet.md has the commands of all
published results.
"""

from __future__ import annotations

import os
from typing import Any, Union

from absl import flags, logging

from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig, RunSettings
from rigl.training import command_line, config_flags, script, sparse_flags
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = {
    'data_directory': None,
    'drop_fraction_anneal': 'constant',
    'end_sparsity': 0.9,
    'keep_checkpoint_max': 0,
    'master': '',
    'mask_init_method': '',
    'maskupdate_end_step': 25000,
    'mode': 'train',
    'resnet_depth': 50,
    'training_method': 'scratch',
}

sparse_flags.define_script(
    SCRIPT_DEFAULTS, 'initial_value_checkpoint', 'load_mask_dir', 'ps_task',
    'training_steps_multiplier', 'use_synthetic_data', helps={
        'gin_config': 'Gin file of hyperparameters, lines such as '
                      'SparsityConfig.end_sparsity = 0.95; or the name of one '
                      'that comes with this script, such as rigl',
        'maskupdate_begin_step': 'First global step that may move masks. prune '
                                 'has this schedule too.',
        'master': 'Address of the TPU, unless --tpu says it.',
        'resnet_depth':
            'Depth of the ResNet: 18, 34, 50, 101, 152 or 200.',
    })
config_flags.define(ImageNetConfig)
config_flags.define(RunSettings)

with command_line.group('Not used'):
  flags.DEFINE_integer('num_workers', 1, 'Not used: number of workers.')
  flags.DEFINE_bool('is_warm_up', True, 'Not used: warm-up of the penalty.')
  flags.DEFINE_integer('block_width', 1, 'Not used: width of a block.')
  flags.DEFINE_integer('block_height', 1, 'Not used: height of a block.')

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(__name__)

from rigl.imagenet_resnet import (
  imagenet_data,
  imagenet_input,
  imagenet_model_fn,
  imagenet_run,
)
from rigl.training import (
  checkpoints,
  distribution,
  hooks,
  mask_init,
  resuming,
  runner,
  specs,
)

# prune has the schedule of the methods that move masks.
_RENAMED = {'pruning_begin_step': 'maskupdate_begin_step',
            'pruning_end_step': 'maskupdate_end_step',
            'pruning_frequency': 'maskupdate_frequency'}

# What set_lr_schedule found: [(multiplier of the peak rate, epoch)].
LR_SCHEDULE: list[tuple[float, float]] = []


def configs_from_flags() -> tuple[SparsityConfig, ImageNetConfig]:
  """The validated hyperparameters, those of time not stretched yet.

  Raises:
    ValueError: a value is out of its range or unknown, or two contradict each
      other; names them.
  """
  sparsity, config = config_flags.hyperparameters(ImageNetConfig, _RENAMED)
  imagenet_config.check_combination(
      config, sparsity, FLAGS.num_cores if FLAGS.use_tpu else None)
  mask_init.check_load_mask_dir(sparsity, FLAGS.load_mask_dir)
  distribution.check(FLAGS.num_replicas, config.train_batch_size, FLAGS.mode,
                     FLAGS.on_nan)
  n_replicas = distribution.total_replicas(FLAGS.num_replicas)
  if n_replicas > 1 and (FLAGS.use_tpu or config.transpose_input):
    raise ValueError(
        f'{n_replicas} replicas (num_replicas, or workers of TF_CONFIG) do not '
        'work with use_tpu, where num_cores says how many share a batch, nor '
        'with transpose_input.')
  runner.choose_loop(FLAGS.loop, FLAGS.num_replicas, FLAGS.use_tpu)
  return sparsity, config


def set_lr_schedule() -> list[tuple[float, float]]:
  """Sets LR_SCHEDULE to what the flags say and returns it.

  The flags stay as they are, so that a second call changes nothing.
  """
  LR_SCHEDULE[:] = configs_from_flags()[1].lr_schedule
  return LR_SCHEDULE


def make_training(sparsity: SparsityConfig,
                  config: ImageNetConfig) -> imagenet_model_fn.Training:
  """The training of hyperparameters that are not stretched yet."""
  stretched = sparsity.scaled(config.training_steps_multiplier)
  folder = imagenet_run.run_folder(
      config_flags.from_flags(RunSettings), stretched, config)
  return imagenet_model_fn.Training(
      stretched, config, folder, FLAGS.use_tpu,
      FLAGS.load_mask_dir, FLAGS.initial_value_checkpoint,
      FLAGS.steps_per_summary, FLAGS.log_mask_imgs_each_iteration,
      FLAGS.on_nan)


def resnet_model_fn_w_pruning(
    features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """`imagenet_model_fn.model_fn` of the flags unless params has 'training'.
  """
  training = params.get('training') or make_training(*configs_from_flags())
  return imagenet_model_fn.model_fn(features, labels, mode, training)


def _find_checkpoint(mode: str, folder: str, sparsity: SparsityConfig,
                     config: ImageNetConfig) -> str:
  """The checkpoint that eval_once is to evaluate, else ''.

  Raises:
    ValueError: a checkpoint that the flags name is not there, or that of the
      folder cannot be gone on from.
  """
  if mode == 'eval_once':
    return checkpoints.resolve(
        os.path.join(folder, FLAGS.eval_once_ckpt_prefix))
  if mode != 'eval':
    sparse_flags.check_checkpoints('load_mask_dir', 'initial_value_checkpoint')
    resuming.check_same_settings(
        folder, 'output_dir', (sparsity, config),
        ('model_architecture', 'resnet_depth', 'width', 'expansion_factor',
         'num_label_classes', 'first_layer_sparsity', 'last_layer_sparsity'))
  return ''


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains or evaluates."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  sparsity, config = configs_from_flags()
  script.check_folder('output_dir', FLAGS.output_dir)
  training = make_training(sparsity, config)
  checkpoint = _find_checkpoint(FLAGS.mode, training.folder, sparsity, config)
  settings = config_flags.from_flags(RunSettings)
  tpu = imagenet_run.find_tpu(settings, config)
  data = imagenet_data.find_data(
      FLAGS.data_directory or '', use_synthetic_data=FLAGS.use_synthetic_data,
      num_train_images=config.num_train_images,
      num_eval_images=config.num_eval_images,
      num_classes=config.num_label_classes)
  logging.info('Data: %s. Run: %s.', data.source, training.folder)
  write_config = hooks.WriteConfigHook(training.folder, sparsity, config)
  with imagenet_input.explained_errors(data), (
      imagenet_model_fn.explained_misfits(config)):
    imagenet_run.run(
        FLAGS.mode, training, settings, data, checkpoint, write_config, tpu)


if __name__ == '__main__':
  script.run(main, _ARGUMENTS)

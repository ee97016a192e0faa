r"""Trains and evaluates ResNets, MobileNets and VGGs on ImageNet.

    python rigl/imagenet_resnet/imagenet_train_eval.py --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --first_layer_sparsity=-1 \
        --train_steps=32000 --train_batch_size=4096 --data_directory=$IMAGENET

A run has its own folder below --output_dir. Started again it goes on where it
stopped; `--mode=eval` follows a run and evaluates its newest checkpoint at each
look, `--mode=eval_once` evaluates one. Both take the folder of the run as
--output_dir, and the network from there. docs/imagenet.md has the commands of
all published results.
"""

from __future__ import annotations

from typing import Any, Union

from absl import flags

from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig, RunSettings
from rigl.training import command_line, config_flags, script, sparse_flags
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = imagenet_config.DEFAULTS

sparse_flags.define_script(
    SCRIPT_DEFAULTS, 'initial_value_checkpoint', 'load_mask_dir', 'ps_task',
    'training_steps_multiplier', 'use_synthetic_data', helps={
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

from rigl.imagenet_resnet import imagenet_model_fn, imagenet_run
from rigl.training import specs

# What set_lr_schedule found: [(multiplier of the peak rate, epoch)].
LR_SCHEDULE: list[tuple[float, float]] = []


def configs_from_flags() -> tuple[SparsityConfig, ImageNetConfig]:
  """The validated hyperparameters, those of time not stretched yet.

  An evaluation takes what is not given from the folder of the run.

  Raises:
    ValueError: a value is out of its range or unknown, or two contradict each
      other; names them.
  """
  settings = config_flags.from_flags(RunSettings)
  sparsity, config = config_flags.hyperparameters(
      ImageNetConfig, imagenet_config.RENAMED,
      imagenet_run.config_folder(settings))
  imagenet_run.check(sparsity, config, settings)
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
  return imagenet_run.make_training(
      sparsity, config, config_flags.from_flags(RunSettings))


def resnet_model_fn_w_pruning(
    features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """`imagenet_model_fn.model_fn` of the flags unless params has 'training'.
  """
  training = params.get('training') or make_training(*configs_from_flags())
  return imagenet_model_fn.model_fn(features, labels, mode, training)


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains or evaluates."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  imagenet_run.run(
      *configs_from_flags(), config_flags.from_flags(RunSettings))


if __name__ == '__main__':
  script.run(main, _ARGUMENTS)

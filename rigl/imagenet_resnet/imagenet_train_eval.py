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

from rigl.compat import tf
from rigl.imagenet_resnet.imagenet_config import SCHEMA, ImageNetConfig
from rigl.training import script, setting_flags
from rigl.training.config import SparsityConfig

setting_flags.define(SCHEMA)

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(SCHEMA, __name__)

from rigl.imagenet_resnet import imagenet_model_fn, imagenet_run
from rigl.training import specs

# What set_lr_schedule found: [(multiplier of the peak rate, epoch)].
LR_SCHEDULE: list[tuple[float, float]] = []


def configs_from_flags() -> tuple[SparsityConfig, ImageNetConfig]:
  """The validated hyperparameters, schedules not scaled yet.

  Raises:
    ValueError: a value is out of its range or unknown, or two contradict each
      other; names them.
  """
  sparsity, config, _ = imagenet_run.configs_of(setting_flags.given(SCHEMA))
  return sparsity, config


def set_lr_schedule() -> list[tuple[float, float]]:
  """Sets LR_SCHEDULE to what the flags say and returns it.

  The flags stay as they are, so that a second call changes nothing.
  """
  LR_SCHEDULE[:] = configs_from_flags()[1].lr_schedule
  return LR_SCHEDULE


def make_training(sparsity: SparsityConfig,
                  config: ImageNetConfig) -> imagenet_model_fn.Training:
  """The training of unscaled hyperparameters and the other flags."""
  return imagenet_run.make_training(
      sparsity, config, SCHEMA.settings(setting_flags.given(SCHEMA)))


def resnet_model_fn_w_pruning(
    features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """`imagenet_model_fn.model_fn` of the flags unless params has 'training'.
  """
  training = params.get('training') or make_training(*configs_from_flags())
  return imagenet_model_fn.model_fn(features, labels, mode, training)


def main(argv: list[str]) -> None:
  """Raises ValueError for wrong settings, else trains or evaluates."""
  del argv  # script.run refuses everything but flags.
  imagenet_run.run_given(setting_flags.given(SCHEMA))


if __name__ == '__main__':
  script.run(main, SCHEMA, _ARGUMENTS)

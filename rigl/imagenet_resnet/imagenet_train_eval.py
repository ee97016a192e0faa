r"""Trains and evaluates ResNets, MobileNets and VGGs on ImageNet.

    python -m rigl.imagenet_resnet.imagenet_train_eval --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --first_layer_sparsity=-1 \
        --train_steps=32000 --train_batch_size=4096 --data_directory=$IMAGENET

A run has its own folder below --output_dir. Started again it goes on where it
stopped. `--mode=eval` evaluates the newest checkpoint of a run, then those that
follow; `--mode=eval_once` evaluates one. Both take the folder of the run as
--output_dir, and the network from there. docs/imagenet.md has the commands of
all published results.
"""

from __future__ import annotations

from typing import Any, Union

from rigl.compat import tf
from rigl.imagenet_resnet.imagenet_config import SCHEMA
from rigl.training import command_line, script

command_line.define(SCHEMA)

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(SCHEMA, __name__)

from rigl.imagenet_resnet.imagenet_experiment import ImageNetExperiment
from rigl.training import specs

# What set_lr_schedule found: [(multiplier of the peak rate, epoch)].
LR_SCHEDULE: list[tuple[float, float]] = []


def experiment_from_flags() -> ImageNetExperiment:
  """The experiment of the flags; raises ValueError for wrong ones, and names them."""
  return ImageNetExperiment.of(command_line.given(SCHEMA))


def set_lr_schedule() -> list[tuple[float, float]]:
  """Sets LR_SCHEDULE to what the flags say and returns it.

  The flags stay as they are, so that a second call changes nothing.
  """
  LR_SCHEDULE[:] = experiment_from_flags().config.lr_schedule
  return LR_SCHEDULE


def resnet_model_fn_w_pruning(
  features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """The graph of a mode, as a model_fn of its own.

  Args:
    features: images [batch, height, width, 3] of values 0 to 255.
    labels: int32 [batch].
    mode: 'train' or 'eval'.
    params: may hold 'experiment'; without it, the flags say what to build.
  """
  experiment = params.get('experiment') or experiment_from_flags()
  return experiment.model_fn(features, labels, mode)


def main(argv: list[str]) -> None:
  """Raises ValueError for wrong settings, else trains or evaluates."""
  del argv  # script.run refuses everything but flags.
  experiment_from_flags().run()


if __name__ == '__main__':
  script.run(main, SCHEMA, _ARGUMENTS)

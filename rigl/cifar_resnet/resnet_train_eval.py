r"""Trains and evaluates WideResNets on CIFAR-10 with sparse training methods.

    python -m rigl.cifar_resnet.resnet_train_eval --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --data_directory=/data/cifar10

A run has its own folder below --train_dir. Started again it goes on where it
stopped. `--mode=eval` evaluates the newest checkpoint of a run, then those that
follow. It takes the folder of the run as --train_dir, and the network from
there.
"""

from __future__ import annotations

from typing import Any, Union

from rigl.cifar_resnet.cifar_config import SCHEMA
from rigl.compat import tf
from rigl.training import command_line, script

command_line.define(SCHEMA)

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(SCHEMA, __name__)

from rigl.cifar_resnet.cifar_experiment import (
  CifarExperiment,
  build_model,  # noqa: F401
)
from rigl.training import specs


def experiment_from_flags() -> CifarExperiment:
  """The experiment of the flags; raises ValueError for wrong ones, and names them."""
  return CifarExperiment.of(command_line.given(SCHEMA))


def wide_resnet_w_pruning(
  features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """The graph of a mode, as a model_fn of its own.

  Args:
    features: images float32 [batch, 32, 32, 3].
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

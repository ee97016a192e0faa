r"""Trains and evaluates WideResNets on CIFAR-10 with sparse training methods.

    python rigl/cifar_resnet/resnet_train_eval.py --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --data_directory=/data/cifar10

A run has its own folder below --train_dir. Started again it goes on where it
stopped; `--mode=eval` follows a run and evaluates its newest checkpoint at each
look. It takes the folder of the run as --train_dir, and the network from there.
"""

from __future__ import annotations

from typing import Any, Union

from absl import flags

from rigl.cifar_resnet import cifar_config
from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.training import command_line, config_flags, script, sparse_flags
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = cifar_config.DEFAULTS
MODES = cifar_config.MODES

sparse_flags.define_script(
    SCRIPT_DEFAULTS, 'initial_value_checkpoint', 'load_mask_dir', 'ps_task',
    'training_steps_multiplier', 'use_synthetic_data', modes=MODES,
    helps={
        'master': 'Not used: address of a server.',
        'resnet_depth': 'Depth of the WideResNet, 6n + 4.',
    })
config_flags.define(CifarConfig)
config_flags.define(cifar_config.RunSettings)

with command_line.group('Gradual pruning'):
  flags.DEFINE_integer('sparsity_begin_step', 20000, 'prune: first step.')
  flags.DEFINE_integer('sparsity_end_step', 75000, 'prune: last step.')
with command_line.group('Not used'):
  flags.DEFINE_integer('dataset_size', 50000, 'Not used: size of the data.')

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(__name__)

from rigl.cifar_resnet import cifar_model_fn, cifar_run
from rigl.cifar_resnet.cifar_model_fn import build_model  # noqa: F401
from rigl.training import evaluating, specs


def configs_from_flags() -> tuple[SparsityConfig, CifarConfig]:
  """The validated hyperparameters, those of time not stretched yet.

  An evaluation takes what is not given from the folder of the run.

  Raises:
    ValueError: a value is out of its range or unknown; names it.
  """
  settings = settings_from_flags()
  return config_flags.hyperparameters(
      CifarConfig, cifar_config.RENAMED,
      settings.train_dir if settings.mode in evaluating.MODES else None)


def settings_from_flags() -> cifar_config.RunSettings:
  """What the flags say beside hyperparameters."""
  return config_flags.from_flags(cifar_config.RunSettings)


def wide_resnet_w_pruning(
    features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """The graph of a mode, as a model_fn of its own.

  Args:
    features: images float32 [batch, 32, 32, 3].
    labels: int32 [batch].
    mode: 'train' or 'eval'.
    params: 'training', a Training; that of the flags when it is not there.
  """
  training = params.get('training') or cifar_run.make_training(
      *configs_from_flags(), settings_from_flags())
  return cifar_model_fn.model_fn(features, labels, mode, training)


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains or evaluates."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  settings = settings_from_flags()
  cifar_run.run(*configs_from_flags(), settings)


if __name__ == '__main__':
  script.run(main, _ARGUMENTS)

r"""Trains LeNet-300-100 on MNIST with any of the sparse training methods.

    python rigl/mnist/mnist_train_eval.py --training_method=rigl \
        --end_sparsity=0.98 --save_path=/tmp/mnist_rigl

Started again with the same --save_path it goes on where it stopped.
"""

from __future__ import annotations

from absl import flags

from rigl.mnist import mnist_config
from rigl.mnist.mnist_config import MnistConfig
from rigl.training import command_line, config_flags, script, sparse_flags
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = mnist_config.DEFAULTS

sparse_flags.define_script(SCRIPT_DEFAULTS)
config_flags.define(MnistConfig)
config_flags.define(mnist_config.RunSettings)

with command_line.group('Gradual pruning'):
  flags.DEFINE_integer('prune_begin_step', 2000, 'prune: first step.')
  flags.DEFINE_integer('prune_end_step', 30000, 'prune: last step.')

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(__name__)

from rigl.mnist import mnist_run
from rigl.mnist.compression import get_compressed_fc  # noqa: F401
from rigl.mnist.mnist_model import mnist_network_fc  # noqa: F401


def configs_from_flags() -> tuple[SparsityConfig, MnistConfig]:
  """The hyperparameters that flags and gin bindings give."""
  return config_flags.hyperparameters(MnistConfig, mnist_config.RENAMED)


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  sparsity, config = configs_from_flags()
  mnist_run.run(
      sparsity, config, config_flags.from_flags(mnist_config.RunSettings),
      explicit_data=sparse_flags.user_gave('mnist'))


if __name__ == '__main__':
  script.run(main, _ARGUMENTS)

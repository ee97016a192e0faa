r"""Trains LeNet-300-100 on MNIST with any of the sparse training methods.

    python rigl/mnist/mnist_train_eval.py --training_method=rigl \
        --end_sparsity=0.98 --save_path=/tmp/mnist_rigl

Started again with the same --save_path it goes on where it stopped.
"""

from __future__ import annotations

from rigl.mnist.mnist_config import SCHEMA, MnistConfig
from rigl.training import script, setting_flags
from rigl.training.config import SparsityConfig

setting_flags.define(SCHEMA)

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(SCHEMA, __name__)

from rigl.mnist import mnist_run
from rigl.mnist.compression import get_compressed_fc  # noqa: F401
from rigl.mnist.mnist_model import mnist_network_fc  # noqa: F401


def configs_from_flags() -> tuple[SparsityConfig, MnistConfig]:
  """The hyperparameters that flags and gin bindings give."""
  sparsity, config = SCHEMA.hyperparameters(setting_flags.given(SCHEMA))
  return sparsity, config


def main(argv: list[str]) -> None:
  """Raises ValueError for wrong settings, else trains."""
  del argv  # script.run refuses everything but flags.
  mnist_run.run_given(setting_flags.given(SCHEMA))


if __name__ == '__main__':
  script.run(main, SCHEMA, _ARGUMENTS)

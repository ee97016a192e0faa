r"""Trains LeNet-300-100 on MNIST with any of the sparse training methods.

    python -m rigl.mnist.mnist_train_eval --training_method=rigl \
        --end_sparsity=0.98 --save_path=/tmp/mnist_rigl

Started again with the same --save_path it goes on where it stopped.
"""

from __future__ import annotations

from rigl.mnist.mnist_config import SCHEMA
from rigl.training import command_line, script

command_line.define(SCHEMA)

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(SCHEMA, __name__)

from rigl.mnist.compression import get_compressed_fc  # noqa: F401
from rigl.mnist.mnist_experiment import MnistExperiment
from rigl.mnist.mnist_model import mnist_network_fc  # noqa: F401


def experiment_from_flags() -> MnistExperiment:
  """The experiment of the flags; raises ValueError for wrong ones, and names them."""
  return MnistExperiment.of(command_line.given(SCHEMA))


def main(argv: list[str]) -> None:
  """Raises ValueError for wrong settings, else trains."""
  del argv  # script.run refuses everything but flags.
  experiment_from_flags().run()


if __name__ == '__main__':
  script.run(main, SCHEMA, _ARGUMENTS)

"""WideResNet on CIFAR-10."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
  from rigl.training import calls


def train(
  method: str = 'rigl', sparsity: Optional[float] = None, verbose: bool = False, **settings: Any
) -> calls.Result:
  """Trains as the script `resnet_train_eval` does.

      result = rigl.cifar_resnet.train(method='rigl', sparsity=0.95,
                                       data_directory=...)
      result.history[-1]

  Arguments, result and errors are those of `rigl.mnist.train`. The settings are flags of this
  script: with train_dir the run is kept there, and mode is train_and_eval unless given.
  """
  # Loads TensorFlow.
  from rigl.cifar_resnet.cifar_experiment import CifarExperiment
  from rigl.training import calls

  return calls.train(
    CifarExperiment, method, sparsity, verbose, {'mode': 'train_and_eval', **settings}
  )

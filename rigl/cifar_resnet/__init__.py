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

  Args:
    method: training method.
    sparsity: overall sparsity; that of the script unless given.
    verbose: whether to print what the script prints.
    **settings: flags of the script, by their names; `--help` lists them. With
      train_dir the run is kept there, and the same call goes on with one that
      was stopped. mode is train_and_eval unless given.

  Returns:
    Its history, masks and weights.

  Raises:
    ValueError: a setting does not exist or its value cannot be; names it.
    KeyboardInterrupt: Ctrl-C, or the notebook, has stopped it.
  """
  # Loads TensorFlow.
  from rigl.cifar_resnet.cifar_experiment import CifarExperiment
  from rigl.training import calls

  return calls.train(
    CifarExperiment, method, sparsity, verbose, {'mode': 'train_and_eval', **settings}
  )

"""LeNet-300-100 on MNIST: the smallest complete example of sparse training.

`train`, and the script `mnist_train_eval`, train and evaluate, `mnist_data`
finds the digits, `compression` tells how small the network gets once its
unconnected pixels and neurons are dropped, and `mask_records` with
`visualize_mask_records` keep the masks of a run and turn them into pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
  from rigl.training import calls


def train(
  method: str = 'rigl', sparsity: Optional[float] = None, verbose: bool = False, **settings: Any
) -> calls.Result:
  """Trains as the script `mnist_train_eval` does.

      result = rigl.mnist.train(method='rigl', sparsity=0.95, num_epochs=20)
      result.history[-1]['accuracy']

  Args:
    method: training method.
    sparsity: overall sparsity; that of the script unless given.
    verbose: whether to print what the script prints.
    **settings: flags of the script, by their names; `--help` lists them. With
      save_path the run is kept there, and the same call goes on with one that
      was stopped.

  Returns:
    Its history, masks and weights.

  Raises:
    ValueError: a setting does not exist or has a wrong value; names it.
    KeyboardInterrupt: Ctrl-C, or the notebook, has stopped it.
  """
  # Loads TensorFlow.
  from rigl.mnist.mnist_experiment import MnistExperiment
  from rigl.training import calls

  return calls.train(MnistExperiment, method, sparsity, verbose, settings)

"""Loads the network of a run: `rigl.checkpoints.load(folder)`.

Arrays are numpy's. No graph is built: TensorFlow only reads the files.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Optional

import numpy as np

from rigl import checkpoint_files, gin_configs
from rigl.core import connections, layer_names


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
  """The network in a checkpoint.

  Attributes:
    checkpoint: prefix of the checkpoint that was read.
    step: global step of the checkpoint.
    weights: {layer: weights}, of layers with or without a mask; zero where the
      mask is.
    masks: {layer: 0/1 array}; empty for a dense network.
    variables: {name: value} of all other parameters: biases and batch
      normalization.
    config: {hyperparameter: value} of the config.gin beside the checkpoint;
      None if there is none.
  """

  checkpoint: str
  step: int
  weights: dict[str, np.ndarray]
  masks: dict[str, np.ndarray]
  variables: dict[str, np.ndarray]
  config: Optional[dict[str, Any]]

  @property
  def sparsities(self) -> dict[str, float]:
    """{layer: share of zeros} of the masks."""
    return {layer: float(np.mean(mask == 0)) for layer, mask in self.masks.items()}

  @property
  def sparsity(self) -> float:
    """Share of zeros in all masks together; 0 without any."""
    return connections.sparsity(self.masks)

  @property
  def files(self) -> list[str]:
    """The files that another machine needs to load and evaluate it."""
    return [
      *checkpoint_files.files_of(self.checkpoint),
      *gin_configs.files_in(os.path.dirname(self.checkpoint)),
    ]


def load(path: str | os.PathLike[str]) -> TrainedNetwork:
  """The network that a run has trained.

  Args:
    path: folder of a run, whose newest checkpoint is read; or the prefix of a
      checkpoint, such as 'run/model.ckpt-1000'.

  Raises:
    ValueError: there is no checkpoint, or it is damaged; says what to do.
  """
  path = os.path.expanduser(os.fspath(path))
  prefix = checkpoint_files.resolve(path)
  try:
    masks, values = checkpoint_files.read_network(prefix)
    step = checkpoint_files.read_tensors(prefix, ['global_step'])
  except ValueError as error:
    others = [
      other for other in checkpoint_files.all_complete(os.path.dirname(prefix)) if other != prefix
    ]
    remedy = (
      f'Load another one, such as {others[-1]}.'
      if others
      else 'Copy it again from where it was trained.'
    )
    raise ValueError(f'{error} {remedy}') from error
  weights, variables = {}, {}
  for name, value in values.items():
    layer = layer_names.layer_of_weights(name, masks)
    if layer is None:
      variables[name] = value
    else:
      weights[layer] = value
  return TrainedNetwork(
    prefix,
    int(step['global_step']),
    weights,
    masks,
    variables,
    gin_configs.values_in(os.path.dirname(prefix)),
  )

"""Initial masks of a training: loaded, random or all ones.

A `custom_sparsity_map` is {layer name: sparsity} of exceptions, and
`load_mask_dir` the prefix or folder of a checkpoint, or ''.
"""

from __future__ import annotations

from typing import Mapping, Optional

import numpy as np

from rigl import checkpoint_files, replicas, sparse_utils
from rigl.compat import tf
from rigl.model_pruning import pruning
from rigl.training import checkpoints
from rigl.training.config import SparsityConfig


def _sparsities(
  config: SparsityConfig, custom_sparsity_map: Optional[Mapping[str, float]]
) -> dict[str, float]:
  """{name of a mask: sparsity} by the distribution of the config."""
  return sparse_utils.get_sparsities(
    pruning.get_masks(),
    config.mask_init_method,
    config.end_sparsity,
    custom_sparsity_map,
    erk_power_scale=config.erk_power_scale,
  )


def _loaded_masks(load_mask_dir: str) -> dict[str, np.ndarray]:
  """{mask variable name: 0/1 array} of all masks of the graph."""
  return checkpoints.read_values(checkpoint_files.resolve(load_mask_dir), pruning.get_masks())


def random_masks(
  config: SparsityConfig, custom_sparsity_map: Optional[Mapping[str, float]] = None
) -> dict[str, np.ndarray]:
  """{mask variable name: 0/1 array}, random, of all masked layers at their sparsities.

  One generator, seeded by the config, draws all layers in order, so the masks
  are the same in every process.
  """
  sparsities = _sparsities(config, custom_sparsity_map)
  random_state = np.random.RandomState(config.seed)
  return {
    mask.op.name: sparse_utils.get_mask_random_numpy(
      mask.shape.as_list(), sparsities[mask.name], random_state
    )
    for mask in pruning.get_masks()
  }


def check_load_mask_dir(config: SparsityConfig, load_mask_dir: str) -> None:
  """Raises ValueError if masks are given to a method that takes none."""
  if load_mask_dir and not config.method.inits_masks:
    raise ValueError(
      f'load_mask_dir={load_mask_dir!r} has no meaning for training_method '
      f'{config.training_method!r}, which does not start from masks.'
    )


def initial_sparsities(
  config: SparsityConfig,
  custom_sparsity_map: Optional[Mapping[str, float]] = None,
  load_mask_dir: str = '',
) -> dict[str, float]:
  """{layer: sparsity} of the masks that `make_scaffold` sets.

  For methods that choose their masks later: their target sparsities.
  """
  if load_mask_dir:
    sparsities = {
      name: float(np.mean(mask == 0)) for name, mask in _loaded_masks(load_mask_dir).items()
    }
  else:
    sparsities = _sparsities(config, custom_sparsity_map)
  return {
    sparse_utils.mask_extract_name_fn(name): sparsity for name, sparsity in sparsities.items()
  }


def make_scaffold(
  config: SparsityConfig,
  custom_sparsity_map: Optional[Mapping[str, float]] = None,
  load_mask_dir: str = '',
) -> tf.train.Scaffold:
  """A Scaffold that sets the masks of a new training.

  Masks come from `load_mask_dir`, or are random if the method starts sparse, or
  all ones. A resumed training keeps its masks.

  The session loads the values into the variables: as constants they would add
  100 MB to every saved graph of a ResNet-50.

  Raises:
    ValueError: `load_mask_dir` for a method that does not start from masks, or
      a checkpoint that does not fit.
  """
  masks = pruning.get_masks()
  check_load_mask_dir(config, load_mask_dir)
  if not config.method.inits_masks:
    return tf.train.Scaffold()
  values = (
    _loaded_masks(load_mask_dir) if load_mask_dir else random_masks(config, custom_sparsity_map)
  )

  def load_masks(scaffold, session):
    del scaffold
    checkpoints.assign(
      session, [(copy, values[mask.op.name]) for mask in masks for copy in replicas.copies(mask)]
    )

  return tf.train.Scaffold(init_fn=load_masks)

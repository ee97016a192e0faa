"""The hyperparameters of an MNIST training, and what follows from them."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Optional

import numpy as np

from rigl import checkpoint_files, files
from rigl.compat import tf
from rigl.core import checks, layer_names
from rigl.mnist import mnist_data
from rigl.training import lr_schedules
from rigl.training.config import INNER_OPTIMIZERS, OptimizerConfig, ScriptSettings, SparsityConfig
from rigl.training.schema import Schema, setting

_PIXELS_FILE = 'input_pixels.npy'


@dataclasses.dataclass(frozen=True)
class MnistConfig(OptimizerConfig):
  """The hyperparameters of this script alone."""

  sparsity_scale: float = setting(
    0.9,
    'Sparse training',
    'Sparsity of the second layer as a multiple of end_sparsity.',
    check=checks.not_negative,
  )
  network_type: str = setting('fc', 'Network', 'Network; fc is the only one.', options=('fc',))
  input_mask_path: str = setting(
    '',
    'Network',
    'Checkpoint (prefix or folder) of a former run: only the pixels its '
    'first layer was connected to are used.',
    is_path=True,
  )
  batch_size: int = setting(100, 'Optimisation', 'Examples in a batch.', check=checks.positive)
  num_epochs: int = setting(200, 'Optimisation', 'Epochs to train.', check=checks.not_negative)
  learning_rate: float = setting(
    0.2, 'Optimisation', 'Initial learning rate.', check=checks.positive
  )
  lr_drop_epoch: int = setting(
    75,
    'Optimisation',
    'The learning rate is divided by 3 after this epoch and 20 epochs later; '
    'that of the baseline after epochs 60, 70 and 80.',
    check=checks.positive,
  )
  optimizer: str = setting(
    'momentum',
    'Optimisation',
    f'Inner optimizer: {", ".join(INNER_OPTIMIZERS)}.',
    options=INNER_OPTIMIZERS,
  )
  use_nesterov: bool = setting(True, 'Optimisation', 'Nesterov momentum.')
  l2_scale: float = setting(
    1e-4, 'Optimisation', 'Coefficient of the L2 penalty.', check=checks.not_negative
  )

  def learning_rate_at(self, global_step: tf.Tensor, is_dense: bool, n_batches: int) -> Any:
    """The rate at a step; the dense baseline drops it three times."""
    if self.optimizer == 'adam':
      return self.learning_rate
    epochs = (60, 70, 80) if is_dense else (self.lr_drop_epoch, self.lr_drop_epoch + 20)
    return lr_schedules.step_decay(
      global_step, self.learning_rate, [e * n_batches for e in epochs], 3.0
    )


@dataclasses.dataclass(frozen=True)
class RunSettings(ScriptSettings):
  """Data, files and devices, which may change when a training goes on."""

  mnist: str = setting(
    '/tmp/data',
    'Data',
    'Folder with the four IDX files of MNIST, gzipped or not. Without them, and if the flag is '
    'not given, TensorFlow Datasets or the sample in the package is used.',
    is_path=True,
  )
  save_path: str = setting(
    '',
    'Output',
    'Folder of checkpoints, logs and summaries. Without it nothing is kept. '
    'In its text file "compressed a-b-c-d" is the network without the pixels '
    'and neurons that no path of connections leads through: a pixels, b and '
    'c neurons of the hidden layers and d outputs are left.',
    is_path=True,
  )
  save_model: bool = setting(True, 'Output', 'Whether to write checkpoints.')
  checkpoint_epochs: int = setting(
    10, 'Output', 'Epochs between checkpoints.', check=checks.positive
  )
  mask_record_frequency: int = setting(
    0, 'Output', 'Iterations between stored masks; 0 for none.', check=checks.not_negative
  )

  @property
  def saves(self) -> bool:
    """Whether there are to be checkpoints."""
    return bool(self.save_model and self.save_path)


SCHEMA = Schema(
  (SparsityConfig, MnistConfig),
  RunSettings,
  'save_path',
  defaults={'end_sparsity': 0.98, 'drop_fraction_anneal': 'cosine', 'maskupdate_end_step': 50000},
  other_names={'prune_begin_step': 'pruning_begin_step', 'prune_end_step': 'pruning_end_step'},
)


def kept_pixels(path: str) -> Optional[np.ndarray]:
  """bool [pixels]: those that layer1 of the run at `path` was connected to; None for ''.

  Raises:
    ValueError: it has no mask of all pixels, or one that connects none.
  """
  if not path:
    return None
  prefix = checkpoint_files.resolve(path, 'input_mask_path')
  shapes = checkpoint_files.open_checkpoint(prefix).get_variable_to_shape_map()
  name = layer_names.mask_of('layer1')
  n_pixels = shapes.get(name, [None])[0]
  if n_pixels is None:
    raise ValueError(f'input_mask_path={path}: {name} is missing in {prefix}.')
  if n_pixels != mnist_data.N_PIXELS:
    raise ValueError(
      f'input_mask_path={path}: {name} in {prefix} is that of '
      f'{n_pixels} of the {mnist_data.N_PIXELS} pixels, as that run had an input mask itself. '
      'Give a run on all pixels.'
    )
  mask = checkpoint_files.read_tensors(prefix, [name])[name]
  kept = np.any(mask, axis=1)
  if not kept.any():
    raise ValueError(f'input_mask_path={path}: no pixel is connected in {prefix}.')
  return kept


def input_pixels(path: str, folder: str) -> Optional[np.ndarray]:
  """The `kept_pixels` of the run in `folder`, or those of a new run.

  A run goes on with the pixels that it began with: the other run may have moved
  its masks since, or be gone.

  Raises:
    ValueError: see `kept_pixels`; or the file in `folder` is damaged.
  """
  file = os.path.join(folder, _PIXELS_FILE)
  if not (path and folder and os.path.exists(file) and checkpoint_files.latest(folder)):
    return kept_pixels(path)
  try:
    kept = np.load(file)
    if kept.shape != (mnist_data.N_PIXELS,) or kept.dtype != bool:
      raise ValueError(f'{kept.dtype} {kept.shape}')
  except (EOFError, ValueError) as error:
    raise ValueError(
      f'{file} is damaged: {error}. It holds the pixels, bool [{mnist_data.N_PIXELS}], that {path} '
      'gave the training.'
    ) from error
  return kept


def keep_input_pixels(kept: Optional[np.ndarray], folder: str) -> None:
  """Saves the pixels for `input_pixels`; nothing for all pixels."""
  if kept is not None:
    with files.replaced(os.path.join(folder, _PIXELS_FILE)) as temporary:
      with open(temporary, 'wb') as file:
        np.save(file, kept)


def run_name(sparsity: SparsityConfig, config: MnistConfig) -> str:
  """The hyperparameters that distinguish runs, as a file name.

  Without the number of epochs: a training that is extended keeps its files.
  """
  parts = [sparsity.training_method, config.optimizer, f'lr{config.learning_rate:g}']
  if sparsity.method.uses_masks:
    parts += [f'sparsity{sparsity.end_sparsity:g}', f'scale{config.sparsity_scale:g}']
  if sparsity.method.is_dynamic:
    parts += [
      f'drop{sparsity.drop_fraction:g}',
      sparsity.drop_fraction_anneal,
      f'every{sparsity.maskupdate_frequency}',
    ]
  return '_'.join(parts + [f'seed{sparsity.seed}'])

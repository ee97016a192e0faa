"""Checks the arguments of optimizers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Union

import keras
import numpy as np

from rigl.core import checks, grow_init, methods
from rigl.keras import selection
from rigl.keras.first_masks import MASK_INITS


@dataclasses.dataclass(frozen=True)
class Arguments:
  """The user's arguments, in one object that Keras does not wrap or track."""

  sparsities: selection.Sparsities
  mask_init: Union[str, Mapping[str, np.ndarray]]
  seed: int
  hyperparameters: Mapping[str, Any]

  def __post_init__(self):
    checks.integer('seed', self.seed)
    if isinstance(self.mask_init, str):
      checks.one_of('mask_init', self.mask_init, MASK_INITS)

  def as_config(self) -> dict[str, Any]:
    """Arguments of the constructor that JSON can hold."""
    config = {
      **vars(self.sparsities),
      # Masks are saved with the other variables.
      'mask_init': self.mask_init if isinstance(self.mask_init, str) else 'random',
      'seed': self.seed,
      **self.hyperparameters,
    }
    if callable(config['filters']):
      config['filters'] = keras.saving.serialize_keras_object(config['filters'])
    return config


def check_inner(optimizer: Any, name: str) -> None:
  """Raises ValueError unless an optimizer can be wrapped."""
  if isinstance(optimizer, str):
    raise ValueError(
      f'{name} wraps an optimizer, got the name {optimizer!r}. '
      f'Use keras.optimizers.get({optimizer!r}).'
    )
  if isinstance(optimizer, type):
    kind = optimizer.__name__
    raise ValueError(f'{name} wraps an optimizer, got the class {kind}. Call it: {kind}().')
  if not isinstance(optimizer, keras.optimizers.Optimizer):
    raise ValueError(
      f'{name} wraps an optimizer of Keras 3, got {optimizer!r} of {type(optimizer).__module__}.'
    )
  if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
    raise ValueError(
      f'{name} does not wrap a LossScaleOptimizer. Wrap the other way round: '
      f'keras.optimizers.LossScaleOptimizer({name}(optimizer)).'
    )
  if hasattr(optimizer, 'get_masks'):
    raise ValueError(
      f'{name} wraps an optimizer that trains dense networks, got {type(optimizer).__name__}. Give '
      f'it an optimizer of Keras: {name}(keras.optimizers.Adam()).'
    )
  if optimizer.built:
    raise ValueError(
      f'{name} wraps an optimizer that is not built yet, but {optimizer.name} is. Make a new one, '
      f'for example {type(optimizer).__name__}.from_config(optimizer.get_config()).'
    )


def check_method(method: methods.Method, mask_init: Any, name: str) -> None:
  """Raises ValueError unless Keras can train with a method, from these initial masks."""
  if 'initial_dist' in str(getattr(method, 'grow_init', '')):
    raise ValueError(
      'grow_init initial_dist needs the initial weights, which Keras does not keep. Use one of '
      f'{", ".join(g for g in grow_init.GROW_INITS if g != "initial_dist")}.'
    )
  if mask_init == 'magnitude' and not method.inits_masks:
    raise ValueError(
      f"mask_init='magnitude' has no effect on {name}, which starts dense. Leave it out."
    )

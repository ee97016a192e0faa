"""Gradual magnitude pruning (Zhu & Gupta, arXiv 1710.01878).

Re-exports the getters of `rigl.model_pruning.mask_collections`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Optional, Sequence

from rigl import replicas
from rigl.compat import tf
from rigl.core import checks, methods
from rigl.model_pruning.mask_collections import (
  MaskedLayer,
  apply_mask,
  get_masked_weights,
  get_masks,
  get_thresholds,
  get_weight_sparsity,
  get_weights,
  masked_layers,
)

__all__ = [
  'Pruning',
  'PruningHParams',
  'apply_mask',
  'get_masked_weights',
  'get_masks',
  'get_pruning_hparams',
  'get_thresholds',
  'get_weight_sparsity',
  'get_weights',
  'masked_layers',
]

# {hyperparameter: field of methods.GradualPruning}.
_OF_METHOD = {
  'begin_pruning_step': 'begin_step',
  'end_pruning_step': 'end_step',
  'pruning_frequency': 'frequency',
  'initial_sparsity': 'initial_sparsity',
  'target_sparsity': 'target_sparsity',
  'sparsity_function_begin_step': 'ramp_begin_step',
  'sparsity_function_end_step': 'ramp_end_step',
  'sparsity_function_exponent': 'exponent',
  'threshold_decay': 'threshold_decay',
}


def _sparsity_by_pattern(entries: Sequence[str]) -> dict[str, float]:
  """See PruningHParams.sparsity_by_pattern."""
  targets = {}
  for entry in entries:
    if not entry:
      continue
    pattern, _, value = entry.rpartition(':')
    if pattern in targets:
      raise ValueError(f"weight_sparsity_map entry '{entry}' is the second for '{pattern}'.")
    try:
      targets[pattern] = float(value)
      re.compile(pattern)
    except (ValueError, re.error) as error:
      raise ValueError(
        f"weight_sparsity_map entry '{entry}' is not of the form regex:value."
      ) from error
    if not pattern or not 0.0 <= targets[pattern] < 1.0:
      raise ValueError(
        f"weight_sparsity_map entry '{entry}' needs a name and a sparsity in [0, 1)."
      )
  return targets


@dataclasses.dataclass
class PruningHParams:
  """Hyperparameters of gradual pruning.

  `set_hparam` and `parse` change them in place, as in tf.contrib.

  Attributes:
    name: scope of the pruning variables.
    begin_pruning_step: first step at which masks may change.
    end_pruning_step: last such step; -1 for no end.
    weight_sparsity_map: entries 'regex:value'. For layers in whose weight name
      the regex is found, the schedule is scaled to reach `value`.
    threshold_decay: d in threshold = d * old + (1 - d) * new; 0 for none.
    pruning_frequency: steps between mask updates.
    initial_sparsity: s_i, in [0, 1).
    target_sparsity: s_f, in [0, 1).
    sparsity_function_begin_step: t_0.
    sparsity_function_end_step: t_1.
    sparsity_function_exponent: 3 in the paper.
  """

  name: str = 'model_pruning'
  begin_pruning_step: int = 0
  end_pruning_step: int = -1
  weight_sparsity_map: tuple[str, ...] = ()
  threshold_decay: float = 0.0
  pruning_frequency: int = 10
  initial_sparsity: float = 0.0
  target_sparsity: float = 0.5
  sparsity_function_begin_step: int = 0
  sparsity_function_end_step: int = 100
  sparsity_function_exponent: float = 3.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      self.set_hparam(field.name, getattr(self, field.name))
    if 0 <= self.end_pruning_step < self.begin_pruning_step:
      raise ValueError(
        f'end_pruning_step ({self.end_pruning_step}) must not lie before begin_pruning_step '
        f'({self.begin_pruning_step}); a negative one means no end.'
      )
    if self.sparsity_function_end_step <= self.sparsity_function_begin_step:
      raise ValueError(
        f'sparsity_function_end_step ({self.sparsity_function_end_step}) must lie behind '
        f'sparsity_function_begin_step ({self.sparsity_function_begin_step}).'
      )
    if any(self.sparsity_by_pattern().values()) and not self.target_sparsity:
      raise ValueError('weight_sparsity_map needs a target_sparsity > 0.')

  def set_hparam(self, name: str, value: Any) -> None:
    """Sets one value.

    `Pruning` checks that the values fit each other, so several can be set one
    after the other.

    Args:
      name: name of the hyperparameter.
      value: number or text, like its default; a list of entries for
        weight_sparsity_map.

    Raises:
      ValueError: an unknown name, or a value of the wrong type or out of range;
        nothing is changed.
    """
    kind = self._type_of(name)
    if kind is int:
      checks.integer(name, value)
    elif kind is float and name == 'sparsity_function_exponent':
      checks.finite(name, value)
    elif kind is float:
      checks.below_one(name, value)
    elif kind is str and not isinstance(value, str):
      raise ValueError(f'{name} must be a text, got {value!r}.')
    elif kind is tuple:
      if not isinstance(value, (list, tuple)) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(f'{name} must be a list of texts, got {value!r}.')
      _sparsity_by_pattern(value)
    if name == 'pruning_frequency':
      checks.positive(name, value)
    setattr(self, name, kind(value))

  def method(self) -> methods.GradualPruning:
    """The method with these values, without the sparsities of layers."""
    return methods.GradualPruning(
      **{field: getattr(self, name) for name, field in _OF_METHOD.items()}
    )

  @classmethod
  def of(cls, method: methods.Method, weight_sparsity_map: Sequence[str] = ()) -> PruningHParams:
    """The hyperparameters of a method; the inverse of `method()`.

    Args:
      method: a methods.GradualPruning.
      weight_sparsity_map: see the class.
    """
    return cls(
      weight_sparsity_map=tuple(weight_sparsity_map),
      **{name: getattr(method, field) for name, field in _OF_METHOD.items()},
    )

  def parse(self, text: str) -> PruningHParams:
    """Sets the values of 'name=value,name=[a,b],...'.

    Returns:
      These hyperparameters themselves.

    Raises:
      ValueError: an unknown name, a value of the wrong type or out of range, or
        values that do not fit each other; names them. Nothing is changed.
    """
    changes: dict[str, Any] = {}
    entry = r'([^=,]+)=(?:\[([^\]]*)\]|([^,]*))(?:,|$)'
    if re.sub(entry, '', text).strip():
      raise ValueError(f'Cannot parse {text!r} as name=value,name=value.')
    for name, listed, value in re.findall(entry, text):
      name = name.strip()
      kind = self._type_of(name)
      if kind is tuple:
        changes[name] = tuple(entry.strip() for entry in (listed or value).split(','))
        continue
      try:
        changes[name] = kind(value)
      except ValueError as error:
        given = f'[{listed}]' if listed else value
        raise ValueError(
          f'Pruning hyperparameter {name}={given!r} is not of type {kind.__name__}.'
        ) from error
    vars(self).update(vars(dataclasses.replace(self, **changes)))
    return self

  def sparsity_by_pattern(self) -> dict[str, float]:
    """The entries of weight_sparsity_map as {regex: target sparsity}."""
    return _sparsity_by_pattern(self.weight_sparsity_map)

  def _type_of(self, name: str) -> type:
    """The type of a hyperparameter; raises ValueError if there is none."""
    names = [field.name for field in dataclasses.fields(self)]
    if name not in names:
      raise ValueError(f'Unknown pruning hyperparameter {name!r}; known: {", ".join(names)}.')
    return type(getattr(PruningHParams, name))


def get_pruning_hparams() -> PruningHParams:
  """The default hyperparameters, new each time."""
  return PruningHParams()


class Pruning:
  """Raises the sparsity of all masked layers along a schedule.

  Usage: run `conditional_mask_update_op()` after each training step. To combine
  both in one train op, pass the global step before the training step, which the
  2020 implementation uses:

      step = global_step.read_value()
      with tf.control_dependencies([step]):
        train_op = optimizer.minimize(loss, global_step)
      with tf.control_dependencies([train_op]):
        train_op = pruner.conditional_mask_update_op(step)

  Attributes:
    sparsity: float32 scalar tensor, the overall target at the global step.
  """

  def __init__(
    self, hparams: Optional[PruningHParams] = None, global_step: Optional[tf.Variable] = None
  ):
    """Creates the step counter of the updates, `<name>/last_mask_update_step`.

    Args:
      hparams: defaults to get_pruning_hparams().
      global_step: defaults to the graph's global step.
    """
    # The copy checks that the values fit each other.
    self._hparams = dataclasses.replace(hparams or get_pruning_hparams())
    self._method = self._hparams.method()
    self._global_step = (
      global_step if global_step is not None else tf.train.get_or_create_global_step()
    )
    with tf.variable_scope(self._hparams.name):
      self._last_update_step = tf.get_variable(
        'last_mask_update_step', [], tf.int32, tf.zeros_initializer(), trainable=False
      )
    self.sparsity = self._method.sparsity_at(self._global_step.read_value())

  def _check_patterns(self) -> None:
    names = [replicas.name_of(weights) for weights in get_weights()]
    for pattern in self._hparams.sparsity_by_pattern():
      if not any(re.search(pattern, name) for name in names):
        raise ValueError(
          f'weight_sparsity_map entry {pattern!r} matches no '
          f'masked layer; their weights are {names}.'
        )

  def _layer_sparsity(self, weights: tf.Variable) -> float:
    name = replicas.name_of(weights)
    targets = [
      value
      for pattern, value in self._hparams.sparsity_by_pattern().items()
      if re.search(pattern, name)
    ]
    if len(targets) > 1:
      raise ValueError(
        f'Several entries of weight_sparsity_map match {name}: '
        f'{list(self._hparams.weight_sparsity_map)}.'
      )
    return targets[0] if targets else self._method.target_sparsity

  def _update_layer(self, layer: MaskedLayer, step: tf.Tensor) -> tf.Operation:
    values = methods.Layer(
      layer.mask.read_value(),
      layer.weights.read_value(),
      state=layer.threshold.read_value(),
      sparsity=self._layer_sparsity(layer.weights),
    )
    [update] = self._method.update([values], step)
    return tf.group(layer.threshold.assign(update.state), layer.mask.assign(update.mask))

  def mask_update_op(self, step: Optional[tf.Tensor] = None) -> tf.Operation:
    """Updates all masks to the sparsity of a step.

    Args:
      step: integer scalar; the global step when the op runs if None.

    Raises:
      ValueError: an entry of weight_sparsity_map matches no layer, or several
        match the same layer; names them.
    """
    self._check_patterns()
    if step is None:
      step = self._global_step.read_value()
    updates = [self._update_layer(layer, step) for layer in masked_layers()]
    with tf.control_dependencies(updates):
      return self._last_update_step.assign(tf.cast(step, tf.int32)).op

  def conditional_mask_update_op(self, step: Optional[tf.Tensor] = None) -> tf.Operation:
    """`mask_update_op(step)` at the steps of the schedule, else nothing."""

    def update_if_due():
      now = self._global_step.read_value() if step is None else step
      is_update = self._method.is_update(now, self._last_update_step.read_value())

      def update():
        with tf.control_dependencies([self.mask_update_op(now)]):
          return tf.constant(True)

      return tf.cond(is_update, update, lambda: tf.constant(False)).op

    return replicas.on_each_device(update_if_due)

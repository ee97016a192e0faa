"""One sparse kernel: its variables and how they begin."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

import keras
import numpy as np

from rigl.core import arrays, methods, stateless_random

# The name that Keras gives to sums of gradients.
ACCUMULATOR = 'gradient_accumulator'


class Slot(NamedTuple):
  """A variable that an optimizer keeps of a kernel, of the kernel's shape.

  Attributes:
    variable: of Keras.
    initializer: gives its first value.
  """

  variable: Any
  initializer: Any

  def first_value(self) -> Any:
    """What the optimizer itself starts the slot with, [...]."""
    value = self.initializer(self.variable.shape, dtype=self.variable.dtype)
    return arrays.of(self.variable).asarray(value)


@dataclasses.dataclass(eq=False)
class Kernel:
  """What the wrapping optimizer knows of one sparse kernel.

  Attributes:
    path: of its variable.
    position: of the kernel among the trainable variables.
    variable: of Keras, [...], 0 at inactive connections.
    sparsity: share of zeros that it is to have.
    mask: bool variable [...].
    state: variable of what the method keeps, or None.
    inactive: variable [...] with the weights of inactive connections, for
      methods that bring them back; else None.
    slots: of the inner optimizer.
    accumulator: sum of the gradients since the last training step, or None.
  """

  path: str
  position: int
  variable: Any
  sparsity: float
  mask: Any
  state: Optional[Any] = None
  inactive: Optional[Any] = None
  slots: list[Slot] = dataclasses.field(default_factory=list)
  accumulator: Optional[Any] = None

  @property
  def kept(self) -> list[Any]:
    """The variables that a training needs to go on."""
    return [variable for variable in (self.mask, self.state, self.inactive)
            if variable is not None]

  def layer(self, method: methods.Method,
            seed: Callable[[str], stateless_random.Seed],
            gradient: Callable[[], Any]) -> methods.Layer:
    """What a method sees of the kernel.

    Args:
      method: knows what becomes of inactive weights.
      seed: gives the seed of the draws for a purpose.
      gradient: gives the gradient of the whole batch, [...].
    """
    xp = arrays.of(self.variable)
    active, weights = xp.asarray(self.mask), xp.asarray(self.variable)
    if method.prunes_gradually:
      weights = where(active, weights, self.inactive)
    return methods.Layer(
        # Methods may calculate with it.
        xp.cast_like(active, weights), weights, seed, gradient,
        None if self.state is None else xp.asarray(self.state), self.sparsity)

  def apply(self, method: methods.Method, layer: methods.Layer,
            update: methods.Update) -> None:
    """Assigns what an update made of the kernel.

    Args:
      method: made the update.
      layer: what `layer` gave.
      update: new mask and state, and which connections begin anew.
    """
    weights = layer.weights
    xp = arrays.of(weights)
    mask = xp.not_equal(update.mask, xp.zeros_like(update.mask))
    if method.prunes_gradually:
      # A weight of 0 has nothing to come back with.
      mask = mask & (xp.asarray(self.mask) | xp.not_equal(
          weights, xp.zeros_like(weights)))
    if update.restarted is not None:
      weights = xp.where(update.restarted, method.new_weights(layer), weights)
    self.mask.assign(mask)
    self.variable.assign(where(mask, weights))
    if self.inactive is not None:
      self.inactive.assign(weights)
    if self.state is not None:
      self.state.assign(update.state)
    if not method.trains_all_weights:
      for slot in self.slots:
        start = slot.first_value()
        value = where(mask, slot.variable, start)
        if update.restarted is not None:
          value = xp.where(
              update.restarted, method.new_slot(layer, start), value)
        slot.variable.assign(value)


def where(mask: Any, values: Any, otherwise: Any = None) -> Any:
  """Values where a mask is set, elsewhere 0 or others, [...].

  Not a product, which NaN would survive.

  Args:
    mask: bool tensor or variable [...].
    values: tensor or variable [...].
    otherwise: tensor or variable of the same type, or None for 0.
  """
  xp = arrays.of(mask)
  values = xp.asarray(values)
  return xp.where(
      xp.asarray(mask), values,
      xp.zeros_like(values) if otherwise is None else xp.asarray(otherwise))


def read(variable: Any) -> np.ndarray:
  """The value of a variable, [...].

  Args:
    variable: variable of Keras, or tensor.
  """
  # numpy warns of Keras' own conversion of variables and of bfloat16.
  xp = arrays.of(variable)
  tensor = xp.asarray(variable)
  return (tensor.numpy() if xp.library == 'tensorflow' else
          keras.ops.convert_to_numpy(tensor))


@contextlib.contextmanager
def recorded_slots() -> Iterator[list[tuple[Any, str, Slot]]]:
  """Lists (variable, name, slot) of all slots that are made meanwhile.

  Keras has no way to ask for them afterwards, and their names are ambiguous.
  """
  base = keras.optimizers.Optimizer
  made: list[tuple[Any, str, Slot]] = []
  original = base.add_variable_from_reference

  def record(self, reference_variable, name=None, initializer='zeros'):
    variable = original(self, reference_variable, name, initializer)
    made.append((reference_variable, name or '', Slot(
        variable, keras.initializers.get(initializer))))
    return variable

  base.add_variable_from_reference = record
  try:
    yield made
  finally:
    # Which it inherits.
    del base.add_variable_from_reference


def give_slots(kernels: Sequence[Kernel],
               made: Sequence[tuple[Any, str, Slot]]) -> None:
  """Hands each kernel the slots that belong to it.

  Args:
    kernels: those of one optimizer.
    made: from `recorded_slots`.
  """
  for kernel in kernels:
    for reference, name, slot in made:
      if reference is not kernel.variable:
        continue
      if name == ACCUMULATOR:
        kernel.accumulator = slot.variable
      else:
        kernel.slots.append(slot)

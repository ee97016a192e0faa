"""A sparse kernel: its variables and their initial values."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

import keras
import numpy as np

from rigl.core import arrays, methods, stateless_random

# Keras' name for accumulated gradients.
ACCUMULATOR = 'gradient_accumulator'


class Slot(NamedTuple):
  """A variable of an optimizer for a kernel, of the kernel's shape.

  Attributes:
    variable: Keras variable.
    initializer: returns its initial value.
  """

  variable: Any
  initializer: Any

  def first_value(self) -> Any:
    """The optimizer's own initial value of the slot, [...]."""
    value = self.initializer(self.variable.shape, dtype=self.variable.dtype)
    return arrays.of(self.variable).asarray(value)


@dataclasses.dataclass(eq=False)
class Kernel:
  """A sparse kernel with the variables of its optimizer.

  Attributes:
    path: path of its variable.
    position: index of the kernel among the trainable variables.
    variable: Keras variable [...], 0 at inactive connections.
    sparsity: wanted share of zeros.
    mask: bool variable [...].
    state: variable of the method's state, or None.
    inactive: variable [...] with the weights of inactive connections, for
      methods that reuse them; else None.
    slots: slots of the inner optimizer.
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
    """The variables to save, so that training can resume."""
    return [variable for variable in (self.mask, self.state, self.inactive) if variable is not None]

  def zero_now(self, mask: np.ndarray, weights: np.ndarray) -> bool:
    """Sets inactive weights to 0, not in a graph; returns whether any of them was not 0.

    Gets the values of `mask` and `variable`. By numpy, because JAX would compile an operation for
    each shape.
    """
    was_dense = bool(np.any(weights[~mask]))
    if was_dense:
      self.variable.assign(np.where(mask, weights, 0))
    return was_dense

  def layer(
    self,
    method: methods.Method,
    seed: Callable[[str], stateless_random.Seed],
    gradient: Callable[[], Any],
  ) -> methods.Layer:
    """The kernel as input of a method.

    `seed` returns the seed of random numbers for a purpose, `gradient` the gradient of the whole
    batch, [...].
    """
    xp = arrays.of(self.variable)
    active, weights = xp.asarray(self.mask), xp.asarray(self.variable)
    if method.prunes_gradually:
      weights = where(active, weights, self.inactive)
    return methods.Layer(
      # Methods may compute with the mask.
      xp.cast_like(active, weights),
      weights,
      seed,
      gradient,
      None if self.state is None else xp.asarray(self.state),
      self.sparsity,
    )

  def apply(self, method: methods.Method, layer: methods.Layer, update: methods.Update) -> None:
    """Assigns the update of a layer by its method."""
    weights = layer.weights
    xp = arrays.of(weights)
    mask = xp.asarray(update.mask, 'bool')
    if method.prunes_gradually:
      # An inactive connection whose weight is 0 stays inactive.
      mask = mask & (xp.asarray(self.mask) | xp.asarray(weights, 'bool'))
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
        start, value = slot.first_value(), xp.asarray(slot.variable)
        if update.restarted is not None:
          value = xp.where(update.restarted, method.new_slot(layer, start), value)
        slot.variable.assign(where(mask, value, start))


def all_true(shape: Sequence[int], dtype: str) -> Any:
  """An initializer. JAX would compile a conversion for each shape if it got no type."""
  return keras.ops.convert_to_tensor(np.ones(shape, dtype), dtype)


def where(mask: Any, values: Any, otherwise: Any = None) -> Any:
  """Values where a mask is set, elsewhere 0 or others, all tensors or variables [...].

  Not a product, since 0 * NaN is NaN.
  """
  xp = arrays.of(mask)
  others = 0 if otherwise is None else xp.asarray(otherwise)
  return xp.where(xp.asarray(mask), xp.asarray(values), others)


def masks_of(kernels: Sequence[Kernel]) -> dict[str, np.ndarray]:
  """{path: mask}; if kernels have the same path, the second is `<path>_2`, and so on."""
  masks: dict[str, np.ndarray] = {}
  for kernel in kernels:
    name, n = kernel.path, 1
    while name in masks:
      n += 1
      name = f'{kernel.path}_{n}'
    masks[name] = read(kernel.mask)
  return masks


def read(variable: Any) -> np.ndarray:
  """The value of a variable of Keras, or of a tensor, [...]."""
  # Keras' own conversion of variables and of bfloat16 causes numpy warnings.
  xp = arrays.of(variable)
  tensor = xp.asarray(variable)
  return tensor.numpy() if xp.library == 'tensorflow' else keras.ops.convert_to_numpy(tensor)


@contextlib.contextmanager
def recorded_slots() -> Iterator[list[tuple[Any, str, Slot]]]:
  """A context that lists (variable, name, slot) of all slots created in it.

  Keras has no way to list them afterwards, and their names are ambiguous.
  """
  base = keras.optimizers.Optimizer
  made: list[tuple[Any, str, Slot]] = []
  original = base.add_variable_from_reference

  def record(self, reference_variable, name=None, initializer='zeros'):
    variable = original(self, reference_variable, name, initializer)
    slot = Slot(variable, keras.initializers.get(initializer))
    made.append((reference_variable, name or '', slot))
    return variable

  base.add_variable_from_reference = record
  try:
    yield made
  finally:
    # So that the inherited method is found again.
    del base.add_variable_from_reference


def give_slots(kernels: Sequence[Kernel], made: Sequence[tuple[Any, str, Slot]]) -> None:
  """Gives each kernel of an optimizer its slots among the `recorded_slots`."""
  for kernel in kernels:
    for reference, name, slot in made:
      if reference is not kernel.variable:
        continue
      if name == ACCUMULATOR:
        kernel.accumulator = slot.variable
      else:
        kernel.slots.append(slot)

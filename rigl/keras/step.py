"""One step of a sparse optimizer: training, a mask update, or both."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Callable, Mapping, Sequence

import keras

from rigl.core import arrays, methods
from rigl.keras import kernel_variables
from rigl.keras.accumulation import Window
from rigl.keras.backends import Backend
from rigl.keras.kernel_variables import Kernel


def hold_at_zero(backend: Backend, all_kernels: Sequence[Kernel]) -> None:
  """Sets inactive weights to 0, within `Backend.once` or outside all replicas."""
  for kernel in all_kernels:
    backend.update(
      kernel.variable, lambda weights, mask: kernel_variables.where(mask, weights), kernel.mask
    )


@dataclasses.dataclass(frozen=True)
class Step:
  """A step of all replicas together.

  Attributes:
    backend: runs the step.
    method: decides when and how masks change.
    inner_optimizer: trains the weights.
    kernels: the sparse kernels.
    last_update: variable, the step of the last mask update.
    seed_for: (number of a kernel, purpose) -> seed.
    grads: gradients from `Backend.once`; None where the loss does not depend on
      a variable.
    variables: the variables of the gradients.
    positions: of these variables among all trainable ones.
    all_variables: all variables that a step may assign.
  """

  backend: Backend
  method: methods.Method
  inner_optimizer: keras.optimizers.Optimizer
  kernels: Sequence[Kernel]
  last_update: Any
  seed_for: Callable[[int, str], int]
  grads: Sequence[Any]
  variables: Sequence[Any]
  positions: Sequence[int]
  all_variables: Sequence[Any]

  def run(self) -> None:
    """Trains and, when due, updates masks, in the order of the method."""
    method = self.method
    step = method.seen_step(self._window.step())
    # Before training, which empties the accumulators.
    gradients = self._gradients() if (method.gradient and not method.replaces_step) else {}
    is_update = self._window.ends_with(
      method.is_update(step, arrays.of(self.last_update).asarray(self.last_update))
    )
    if method.replaces_step:
      otherwise = self._train_and_hold
    else:
      self._next_states(gradients)
      self._train()
      otherwise = self._hold_at_zero
    if method.when == 'never':
      otherwise()
    else:
      self.backend.branch(
        is_update, functools.partial(self._update, step, gradients), otherwise, self.all_variables
      )

  @functools.cached_property
  def _window(self) -> Window:
    return Window(self.inner_optimizer)

  @functools.cached_property
  def _trained(self) -> dict[int, int]:
    """{number of a kernel: position of its gradient}.

    Kernels that the loss does not depend on stay unchanged.
    """
    places = {
      position: place
      for place, position in enumerate(self.positions)
      if self.grads[place] is not None
    }
    return {
      number: places[kernel.position]
      for number, kernel in enumerate(self.kernels)
      if kernel.position in places
    }

  def _gradients(self) -> dict[int, Any]:
    """{number of a kernel: gradient of the whole batch}."""
    return {
      number: self._window.mean(
        self.backend.total(self.grads[place], self.kernels[number].variable),
        self.kernels[number].accumulator,
      )
      for number, place in self._trained.items()
    }

  def _next_states(self, gradients: Mapping[int, Any]) -> None:
    for number, gradient in gradients.items():
      state = self.kernels[number].state
      if state is not None:
        old = arrays.of(state).asarray(state)
        state.assign(self._window.at_end(self.method.next_state(old, gradient), old))

  def _train(self) -> None:
    if self.method.trains_all_weights:
      for number in self._trained:
        kernel = self.kernels[number]
        self.backend.update(kernel.variable, lambda _, weights: weights, kernel.inactive)

    def apply(grads):
      masked = grads if self.method.trains_all_weights else self._masked(grads)
      self.inner_optimizer.apply(masked, self.variables)

    self.backend.on_replicas(apply, self.grads)

  def _hold_at_zero(self) -> None:
    hold_at_zero(self.backend, self.kernels)

  def _train_and_hold(self) -> None:
    self._train()
    self._hold_at_zero()

  def _masked(self, grads: Sequence[Any]) -> list[Any]:
    """Gradients that leave the slots of inactive connections unchanged."""
    masked = list(grads)
    for number, place in self._trained.items():
      kernel = self.kernels[number]
      masked[place] = self._window.masked(grads[place], kernel.mask, kernel.accumulator)
    return masked

  def _update(self, step: Any, gradients: Mapping[int, Any]) -> None:
    """Updates all masks."""
    if self.method.gradient and not gradients:
      gradients = self._gradients()
    layers = {
      number: self.kernels[number].layer(
        self.method,
        functools.partial(self._seed, number, step),
        functools.partial(gradients.get, number),
      )
      for number in self._trained
    }
    if layers:
      updates = self.method.update(list(layers.values()), step)
      for (number, layer), update in zip(layers.items(), updates):
        self.kernels[number].apply(self.method, layer, update)
    if self.method.when != 'always':
      self.last_update.assign(step)
    if self.method.replaces_step:
      self._window.begin_again()

  def _seed(self, number: int, step: Any, purpose: str) -> tuple[int, Any]:
    return self.seed_for(number, purpose), step

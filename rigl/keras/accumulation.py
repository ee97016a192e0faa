"""Gradient accumulation: several steps whose gradients are summed."""

from __future__ import annotations

from typing import Any

import keras

from rigl.core import arrays
from rigl.keras import kernel_variables


class Window:
  """The steps whose gradients are accumulated; one without accumulation.

  Mask updates happen at the end of a window and use the mean gradient.
  """

  def __init__(self, optimizer: keras.optimizers.Optimizer):
    self._optimizer = optimizer
    self._length = optimizer.gradient_accumulation_steps or 1
    if self._length > 1:
      raw = arrays.of(optimizer._iterations).asarray(optimizer._iterations)
      # Evaluated now, before the optimizer increases its step.
      self._is_at_end = arrays.of(raw).equal((raw + 1) % self._length, 0)

  def step(self) -> Any:
    """How many times the optimizer has trained, integer scalar."""
    iterations = self._optimizer.iterations
    return arrays.of(iterations).asarray(iterations)

  def ends_with(self, condition: Any) -> Any:
    """Whether `condition`, a bool scalar, holds at the end of a window."""
    return condition & self._is_at_end if self._length > 1 else condition

  def at_end(self, value: Any, otherwise: Any) -> Any:
    """`value` at the end of a window, else `otherwise`, tensors [...] of the same type."""
    if self._length == 1:
      return value
    return arrays.of(value).where(self._is_at_end, value, otherwise)

  def mean(self, grad: Any, accumulator: Any) -> Any:
    """The gradient that the optimizer applies at the end of a window.

    Args:
      grad: gradient of the last step, [...], as the optimizer gets it.
      accumulator: variable with the sum of those before, or None.
    """
    scale = self._optimizer.loss_scale_factor
    if scale:
      grad = grad / scale
    if self._length == 1:
      return grad
    return (grad + arrays.of(grad).asarray(accumulator)) / self._length

  def masked(self, grad: Any, mask: Any, accumulator: Any) -> Any:
    """Masks a gradient and the accumulated ones at the end of a window.

    Before the end they stay dense, because an update uses their mean. `grad` and `accumulator` are
    those of `mean`; `mask` is a bool variable [...].
    """
    if self._length == 1:
      return kernel_variables.where(mask, grad)
    passes = arrays.of(grad).asarray(mask) | ~self._is_at_end
    accumulator.assign(kernel_variables.where(passes, accumulator))
    return kernel_variables.where(passes, grad)

  def begin_again(self) -> None:
    """Drops the gradients of a window that ends without training."""
    if self._length > 1:
      self._optimizer._backend_reset_gradient_accumulators()
      self._optimizer._iterations.assign_sub(self._length - 1)

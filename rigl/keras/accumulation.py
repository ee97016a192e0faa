"""Steps whose gradients an optimizer adds up before it trains by them."""

from __future__ import annotations

from typing import Any

import keras

from rigl.core import arrays
from rigl.keras import kernels


class Window:
  """The steps between two trainings, one without gradient accumulation.

  A mask update falls on the end of a window and goes by the mean gradient.
  """

  def __init__(self, optimizer: keras.optimizers.Optimizer):
    self._optimizer = optimizer
    self._length = optimizer.gradient_accumulation_steps or 1
    if self._length > 1:
      raw = arrays.of(optimizer._iterations).asarray(optimizer._iterations)
      # Now: a step of the optimizer counts on.
      self._is_at_end = arrays.of(raw).equal((raw + 1) % self._length, 0)

  def step(self) -> Any:
    """How many times the optimizer has trained, integer scalar."""
    iterations = self._optimizer.iterations
    return arrays.of(iterations).asarray(iterations)

  def ends_with(self, condition: Any) -> Any:
    """Whether a condition holds at the end of a window, bool scalar.

    Args:
      condition: bool scalar.
    """
    return condition & self._is_at_end if self._length > 1 else condition

  def at_end(self, value: Any, otherwise: Any) -> Any:
    """A value at the end of a window, before that another one, [...].

    Args:
      value: tensor [...].
      otherwise: tensor [...] of the same type.
    """
    if self._length == 1:
      return value
    return arrays.of(value).where(self._is_at_end, value, otherwise)

  def mean(self, grad: Any, accumulator: Any) -> Any:
    """The gradient that the optimizer trains by at the end of a window.

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
    """The gradient to train by, and the same of those before it.

    Up to the end of the window they stay dense, since an update then goes by
    their mean.

    Args:
      grad: [...].
      mask: bool variable [...].
      accumulator: variable with the sum of those before, or None.
    """
    if self._length == 1:
      return kernels.where(mask, grad)
    xp = arrays.of(grad)
    passes = xp.asarray(mask) | ~self._is_at_end
    accumulator.assign(kernels.where(passes, accumulator))
    return kernels.where(passes, grad)

  def begin_again(self) -> None:
    """Forgets the gradients of a window that ends without training."""
    if self._length > 1:
      self._optimizer._backend_reset_gradient_accumulators()
      self._optimizer._iterations.assign_sub(self._length - 1)

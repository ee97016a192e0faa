"""The operations that `rigl.micronet.counting` has rules for, and their counts.

Named tuples; the order of the fields is part of the interface. Images, kernels
and strides are square, except in `DotProducts` and `Arithmetic`. Every
`activation` is a key of `rigl.micronet.counting.ACTIVATION_FLOPS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Union

Strides = Union[int, Sequence[int]]


class Conv2D(NamedTuple):
  """Convolution with a kernel of shape [k, k, c_in, c_out]."""

  input_size: int
  kernel_shape: Sequence[int]
  strides: Strides
  padding: str
  use_bias: bool
  activation: str | None


class DepthWiseConv2D(NamedTuple):
  """Depthwise convolution with a kernel of shape [k, k, c, multiplier]."""

  input_size: int
  kernel_shape: Sequence[int]
  strides: Strides
  padding: str
  use_bias: bool
  activation: str | None


class FullyConnected(NamedTuple):
  """Matrix product with a kernel of shape [c_in, c_out]."""

  kernel_shape: Sequence[int]
  use_bias: bool
  activation: str | None


class GlobalAvg(NamedTuple):
  """Average over all positions of an image, per channel."""

  input_size: int
  n_channels: int


class Scale(NamedTuple):
  """Multiplication of every element by a factor, as in squeeze-and-excite."""

  input_size: int
  n_channels: int


class Add(NamedTuple):
  """Elementwise addition of two images, as in a residual connection."""

  input_size: int
  n_channels: int


class DotProducts(NamedTuple):
  """The general form of an operation with a kernel.

  Use it for operations the other classes cannot describe, such as grouped or
  three-dimensional convolutions.

  Attributes:
    n_weights: elements of the kernel.
    vector_length: length of the dot product of one output element when dense.
    n_positions: output positions of one example.
    n_channels: output elements at one position.
    n_biases: bias values, each added once at every position.
    activation: its name, or None.
  """

  n_weights: int
  vector_length: float
  n_positions: int
  n_channels: int
  n_biases: int
  activation: str | None


class Arithmetic(NamedTuple):
  """A known number of multiplications and additions without a kernel."""

  n_mults: int
  n_adds: int


class Counts(NamedTuple):
  """Stored bits, multiplications and additions of an operation."""

  param_bits: float
  n_mults: float
  n_adds: float

  @property
  def flops(self) -> float:
    """Multiplications and additions."""
    return self.n_mults + self.n_adds


class Info(NamedTuple):
  """Sizes of an operation; -1 where one does not apply."""

  input_size: int
  kernel_size: int
  in_channels: int
  out_channels: int

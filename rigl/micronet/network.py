"""Networks as lists of named layers, counted at layer-wise sparsities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rigl.core import checks, distributions
from rigl.micronet import counting


class Layer(NamedTuple):
  """An operation and its name, which masks and sparsities refer to.

  Attributes:
    name: unique in its network.
    op: an operation of `rigl.micronet.counting`.
    shape: shape of the kernel; None takes it from the operation.
    kind: kind of layer, for reports; None takes the class of the operation.
  """

  name: str
  op: Any
  shape: tuple[int, ...] | None = None
  kind: str | None = None

  @property
  def kernel_shape(self) -> tuple[int, ...]:
    """Shape of the kernel, () where there is none."""
    if self.shape is not None:
      return tuple(self.shape)
    return tuple(getattr(self.op, 'kernel_shape', ()))


@dataclasses.dataclass(frozen=True)
class Network:
  """A network ready to be counted.

  Attributes:
    layers: all operations, in the order of the training graph.
    first_layer: name of the layer that sees the image.
    last_layer: name of the layer that gives the predictions.
    sparsity_factors: layer name -> default of its sparsity, as a multiple of
      the default sparsity of the network, as in the training scripts; 0 for a
      layer without a mask. Other layers follow the distribution.
    distribution_layers: layers whose shapes a distribution uses, if not
      `layers`.
  """

  layers: tuple[Layer, ...]
  first_layer: str
  last_layer: str
  sparsity_factors: Mapping[str, float] = dataclasses.field(default_factory=dict)
  distribution_layers: tuple[Layer, ...] | None = None

  @property
  def weighted_layers(self) -> tuple[Layer, ...]:
    """The layers with a kernel."""
    return tuple(layer for layer in self.layers if counting.has_kernel(layer.op))

  @property
  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Layer name -> kernel shape, for `rigl.core.distributions`."""
    return kernel_shapes(self.distribution_layers or self.layers)

  def custom_sparsities(self, sparsity: float) -> dict[str, float]:
    """Returns name -> sparsity of the layers outside the distribution."""
    return {name: factor * sparsity for name, factor in self.sparsity_factors.items()}


class _Counted:
  """What follows from `counts`: stored bits, multiplications and additions."""

  counts: Any

  @property
  def flops(self) -> float:
    """Multiplications and additions."""
    return self.counts.flops

  @property
  def n_bytes(self) -> float:
    """Stored size: kernels with their masks, and biases."""
    return self.counts.param_bits / 8


@dataclasses.dataclass(frozen=True)
class LayerCount(_Counted):
  """The cost of a layer.

  Attributes:
    name: name of the layer.
    kind: kind of layer.
    shape: shape of the kernel, () where there is none.
    sparsity: fraction of zeros in the kernel.
    n_weights: elements of the kernel.
    n_kept: elements that are not masked.
    counts: stored bits, multiplications and additions.
  """

  name: str
  kind: str
  shape: tuple[int, ...]
  sparsity: float
  n_weights: int
  n_kept: int
  counts: counting.Counts


@dataclasses.dataclass(frozen=True)
class NetworkCount(_Counted):
  """The layers of a network and their sums."""

  layers: tuple[LayerCount, ...]

  @property
  def counts(self) -> counting.Counts:
    """The sum over the layers."""
    return counting.add_counts(layer.counts for layer in self.layers)

  @property
  def megabytes(self) -> float:
    """Stored size in 10^6 bytes."""
    return self.n_bytes / 1e6

  @property
  def n_weights(self) -> int:
    """Weights of all kernels, zeros included."""
    return sum(layer.n_weights for layer in self.layers)

  @property
  def n_kept(self) -> int:
    """Weights that are not zero."""
    return sum(layer.n_kept for layer in self.layers)

  @property
  def real_sparsity(self) -> float:
    """Fraction of zeros over all kernels, 0 for a network without kernels."""
    if not self.n_weights:
      return 0.0
    return 1.0 - self.n_kept / self.n_weights


def kernel_shapes(layers: Iterable[Layer]) -> dict[str, tuple[int, ...]]:
  """Returns layer name -> shape for the layers with a kernel.

  Raises:
    ValueError: if two layers share a name.
  """
  shapes = {}
  for layer in layers:
    if not counting.has_kernel(layer.op):
      continue
    if layer.name in shapes:
      raise ValueError(f'Two layers are named {layer.name!r}.')
    shapes[layer.name] = layer.kernel_shape
  return shapes


def count_network(
  layers: Sequence[Layer],
  sparsities: Mapping[str, float] | None = None,
  param_bits: int = 32,
  n_zeros: Mapping[str, int] | None = None,
) -> NetworkCount:
  """Counts every layer.

  Args:
    layers: what to count.
    sparsities: layer name -> sparsity. Layers left out are dense.
    param_bits: bits of a stored value.
    n_zeros: layer name -> number of zeros of its mask; overrides `sparsities`.

  Raises:
    ValueError: if a sparsity names no layer with a kernel, two layers share a
      name, an operation has no rule, or `param_bits` are not positive.
  """
  checks.positive('param_bits', param_bits)
  sparsities, n_zeros = sparsities or {}, n_zeros or {}
  shapes = kernel_shapes(layers)
  counting.check_names({*sparsities, *n_zeros}, shapes)
  rows = []
  for layer in layers:
    sparsity = float(sparsities.get(layer.name, 0.0))
    size = math.prod(shapes[layer.name]) if layer.name in shapes else 0
    zeros = distributions.get_n_zeros(size, sparsity)
    if layer.name in n_zeros:
      zeros = n_zeros[layer.name]
      sparsity = zeros / size
    rows.append(
      LayerCount(
        name=layer.name,
        kind=layer.kind or type(layer.op).__name__,
        shape=shapes.get(layer.name, ()),
        sparsity=sparsity,
        n_weights=size,
        n_kept=size - zeros,
        counts=counting.count_ops(layer.op, sparsity, param_bits),
      )
    )
  return NetworkCount(tuple(rows))


def check_channels(layers: Iterable[Layer], title: str) -> None:
  """Raises ValueError for a kernel without input or output channels."""
  for layer in layers:
    if 0 in layer.kernel_shape:
      raise ValueError(
        f'{title} has a layer without channels: {layer.name!r} of shape {layer.kernel_shape}.'
      )


def scale_width(
  layers: Iterable[Layer], width: float, first_layer: str, last_layer: str
) -> list[Layer]:
  """Multiplies the channels of kernels.

  Except the input channels of the first layer, the output channels of the last
  layer, and dimensions of 1. Sizes are truncated to integers. Each layer needs a kernel.
  """

  def scaled(channels: int) -> int:
    return channels if channels == 1 else int(channels * width)

  result = []
  for layer in layers:
    *kernel, c_in, c_out = layer.op.kernel_shape
    if layer.name != first_layer:
      c_in = scaled(c_in)
    if layer.name != last_layer:
      c_out = scaled(c_out)
    op = layer.op._replace(kernel_shape=(*kernel, c_in, c_out))
    result.append(layer._replace(op=op))
  return result

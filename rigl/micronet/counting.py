"""The counting rules of the MicroNet Challenge, one handler per operation.

A FLOP count is a convention. The one here is that of the NeurIPS 2019 MicroNet
Challenge (https://micronet-challenge.github.io/), which the RigL paper uses
(https://arxiv.org/abs/1911.11134):

- One multiplication is 1 FLOP and one addition is 1 FLOP; a fused multiply-add
  is 2. Counts are for the inference of one example.
- Images, kernels and strides are square. A convolution's output has
  ceil((size - k + 1 + 2 * pad) / stride) rows, with pad = k // 2 for 'same' and
  0 for 'valid'.
- Each output element is a dot product of length L: k * k * c_in * (1 - s) for
  a convolution, k * k * (1 - s) for a depthwise one, c_in * (1 - s) for a fully
  connected layer at sparsity s. It takes L multiplications and L - 1 additions,
  so the count is linear in the density 1 - s. Where a kernel is so sparse that
  L < 1 the term L - 1 is negative; the addition of the bias makes up for it.
- A bias takes one addition for each output element it is added to. An
  activation takes, for each output element, the FLOPs in `ACTIVATION_FLOPS`.
- A tensor of n elements stores n * param_bits * (1 - s) bits, plus a mask of n
  bits where s > 0. Biases are always dense.
- The number of biases is the last dimension of the kernel. For a depthwise
  convolution that dimension is 1: it is charged one bias value and one addition
  per output position, not per channel. The published MobileNet figures are
  counted this way.
- Memory traffic, batch normalization (folded into a neighbouring layer at
  inference), pooling other than the global average, and the indexing that
  a real sparse kernel needs are free.

Sparsity changes only the operations with a kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rigl.core import checks
from rigl.micronet.operations import (
  Add,
  Arithmetic,
  Conv2D,
  Counts,
  DepthWiseConv2D,
  DotProducts,
  FullyConnected,
  GlobalAvg,
  Info,
  Scale,
  Strides,
)

# Name -> (multiplications, additions) for each output element. None is the
# absence of an activation.
ACTIVATION_FLOPS = {None: (0, 0), 'relu': (1, 0), 'swish': (3, 1), 'sigmoid': (2, 1)}


def add_counts(counts: Iterable[Counts]) -> Counts:
  """Returns the field-by-field sum, zero for no counts."""
  total = Counts(0, 0, 0)
  for count in counts:
    total = Counts(*(a + b for a, b in zip(total, count)))
  return total


def conv_output_size(input_size: int, kernel_size: int, padding: str, stride: int) -> int:
  """Returns the rows of the output of a convolution that is square throughout.

  Raises:
    ValueError: on another padding, a stride below 1, or an output without rows.
  """
  checks.one_of('padding', padding, ('same', 'valid'))
  checks.positive('stride', stride)
  pad = kernel_size // 2 if padding == 'same' else 0
  size = math.ceil((input_size - kernel_size + 1 + 2 * pad) / stride)
  if size < 1:
    raise ValueError(
      f'A {padding!r} convolution of size {kernel_size} and stride {stride} '
      f'leaves nothing of an input of size {input_size}.'
    )
  return size


def _square(values: Strides, what: str, op: Any) -> int:
  """Returns the common value of both directions, or raises ValueError."""
  pair = [values] if isinstance(values, int) else list(values)
  if len(set(pair)) != 1:
    raise ValueError(f'The rules need square {what}, got {pair} in {op}.')
  return int(pair[0])


def _conv_sizes(op: Conv2D | DepthWiseConv2D) -> tuple[int, int]:
  """Returns (kernel size, output positions)."""
  if len(op.kernel_shape) != 4:
    raise ValueError(f'kernel_shape needs four dimensions in {op}.')
  kernel_size = _square(op.kernel_shape[:2], 'kernels', op)
  stride = _square(op.strides, 'strides', op)
  size = conv_output_size(op.input_size, kernel_size, op.padding, stride)
  return kernel_size, size**2


def _dots(
  op: Conv2D | DepthWiseConv2D | FullyConnected,
  vector_length: int,
  n_positions: int,
  n_channels: int,
) -> DotProducts:
  return DotProducts(
    n_weights=math.prod(op.kernel_shape),
    vector_length=vector_length,
    n_positions=n_positions,
    n_channels=n_channels,
    n_biases=op.kernel_shape[-1] if op.use_bias else 0,
    activation=op.activation,
  )


def _conv_as_dots(op: Conv2D) -> DotProducts:
  kernel_size, n_positions = _conv_sizes(op)
  c_in, c_out = op.kernel_shape[2:]
  return _dots(op, kernel_size**2 * c_in, n_positions, c_out)


def _depthwise_as_dots(op: DepthWiseConv2D) -> DotProducts:
  kernel_size, n_positions = _conv_sizes(op)
  channels, multiplier = op.kernel_shape[2:]
  return _dots(op, kernel_size**2, n_positions, channels * multiplier)


def _fully_connected_as_dots(op: FullyConnected) -> DotProducts:
  c_in, c_out = op.kernel_shape
  return _dots(op, c_in, 1, c_out)


def _count_dots(op: DotProducts, sparsity: float, param_bits: int) -> Counts:
  """Applies the rules for kernels, biases and activations."""
  checks.one_of('activation', op.activation, ACTIVATION_FLOPS)
  checks.in_unit_interval('The sparsity', sparsity)
  n_outputs = op.n_positions * op.n_channels
  length = op.vector_length * (1 - sparsity)
  bits = op.n_weights * param_bits * (1 - sparsity)
  if sparsity > 0:
    bits += op.n_weights
  activation_mults, activation_adds = ACTIVATION_FLOPS[op.activation]
  return Counts(
    param_bits=bits + op.n_biases * param_bits,
    n_mults=n_outputs * (length + activation_mults),
    n_adds=(n_outputs * (length - 1 + activation_adds) + op.n_positions * op.n_biases),
  )


# Operations with a kernel, described as dot products.
_AS_DOTS: dict[type, Callable[[Any], DotProducts]] = {
  Conv2D: _conv_as_dots,
  DepthWiseConv2D: _depthwise_as_dots,
  FullyConnected: _fully_connected_as_dots,
  DotProducts: lambda op: op,
}

# Operations without a kernel -> (multiplications, additions).
_WITHOUT_KERNEL: dict[type, Callable[[Any], tuple[int, int]]] = {
  GlobalAvg: lambda op: (op.n_channels, (op.input_size**2 - 1) * op.n_channels),
  Scale: lambda op: (op.input_size**2 * op.n_channels, 0),
  Add: lambda op: (0, op.input_size**2 * op.n_channels),
  Arithmetic: lambda op: (op.n_mults, op.n_adds),
}

_INFO: dict[type, Callable[[Any], Info]] = {
  Conv2D: lambda op: Info(op.input_size, *op.kernel_shape[1:]),
  DepthWiseConv2D: lambda op: Info(
    op.input_size, op.kernel_shape[0], op.kernel_shape[2], op.kernel_shape[2] * op.kernel_shape[3]
  ),
  FullyConnected: lambda op: Info(-1, -1, *op.kernel_shape),
  DotProducts: lambda op: Info(-1, -1, -1, op.n_channels),
  **dict.fromkeys(
    (GlobalAvg, Scale, Add), lambda op: Info(op.input_size, -1, op.n_channels, op.n_channels)
  ),
  Arithmetic: lambda op: Info(-1, -1, -1, -1),
}


def _unknown(op: Any) -> ValueError:
  known = ', '.join(cls.__name__ for cls in _INFO)
  return ValueError(f'No rule for the operation {type(op).__name__} ({op!r}). Known: {known}.')


def has_kernel(op: Any) -> bool:
  """Tells whether sparsity changes the counts of an operation."""
  return type(op) in _AS_DOTS


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
  """Raises ValueError if a sparsity names an operation without a kernel."""
  known = list(known)
  unknown = sorted(set(names).difference(known))
  if unknown:
    raise ValueError(
      f'Sparsities are given for {unknown}, but the layers with a kernel are {known}.'
    )


def count_ops(op: Any, sparsity: float, param_bits: int) -> Counts:
  """Counts the stored bits, multiplications and additions of an operation.

  Args:
    op: an instance of one of the operations of this module.
    sparsity: fraction of zeros in its kernel, in [0, 1].
    param_bits: bits of a stored value.

  Raises:
    ValueError: on an operation, activation or padding without a rule, a shape
      that is not square, a sparsity outside [0, 1], or `param_bits` that are
      not positive.
  """
  checks.positive('param_bits', param_bits)
  if type(op) in _AS_DOTS:
    return _count_dots(_AS_DOTS[type(op)](op), sparsity, param_bits)
  if type(op) in _WITHOUT_KERNEL:
    return Counts(0, *_WITHOUT_KERNEL[type(op)](op))
  raise _unknown(op)


def get_info(op: Any) -> Info:
  """Returns the sizes of an operation of this module.

  Raises:
    ValueError: on an unknown operation.
  """
  if type(op) not in _INFO:
    raise _unknown(op)
  return _INFO[type(op)](op)


class MicroNetCounter:
  """Prints the counts of a list of named operations.

  Example:
      counter = MicroNetCounter([
          ('fc1', FullyConnected((784, 300), True, 'relu')),
          ('fc2', FullyConnected((300, 10), True, None)),
      ])
      counter.print_summary(0.9, param_bits=32, add_bits=32, mul_bits=32)
  """

  def __init__(
    self, all_ops: Sequence[tuple[str, Any]], add_bits_base: int = 32, mul_bits_base: int = 32
  ):
    """Keeps the operations.

    Args:
      all_ops: pairs of a name and an operation; or, if the name starts with
        'block', of a name and a list of such pairs.
      add_bits_base: width of an addition that counts as one.
      mul_bits_base: width of a multiplication that counts as one.

    Raises:
      ValueError: a width is not positive.
    """
    checks.positive('add_bits_base', add_bits_base)
    checks.positive('mul_bits_base', mul_bits_base)
    self.all_ops = all_ops
    self.add_bits_base = add_bits_base
    self.mul_bits_base = mul_bits_base

  def process_counts(
    self, param_bits_total: float, n_mults: float, n_adds: float, mul_bits: int, add_bits: int
  ) -> tuple[float, float, float]:
    """Returns (10^6 bytes, 10^6 multiplications, 10^6 additions).

    An operation on fewer bits than the base, `mul_bits` or `add_bits`, counts as the fraction of
    one.

    Raises:
      ValueError: `mul_bits` or `add_bits` is not positive.
    """
    checks.positive('mul_bits', mul_bits)
    checks.positive('add_bits', add_bits)
    return (
      param_bits_total / 8 / 1e6,
      n_mults * mul_bits / self.mul_bits_base / 1e6,
      n_adds * add_bits / self.add_bits_base / 1e6,
    )

  def print_summary(
    self,
    sparsity: float | Mapping[str, float],
    param_bits: int,
    add_bits: int,
    mul_bits: int,
    summarize_blocks: bool = True,
  ) -> None:
    """Prints a line for each operation and one for the total.

    Args:
      sparsity: sparsity of every operation with a kernel, or name -> sparsity,
        where names left out are dense.
      param_bits: bits of a stored value.
      add_bits: width of the additions.
      mul_bits: width of the multiplications.
      summarize_blocks: prints one line per block rather than per operation.

    Raises:
      ValueError: if a sparsity names no operation with a kernel, or bits are
        not positive.
    """
    groups = [
      (name, ops if name.startswith('block') else [(name, ops)]) for name, ops in self.all_ops
    ]
    kernels = [name for _, ops in groups for name, op in ops if has_kernel(op)]
    if not isinstance(sparsity, Mapping):
      sparsity = dict.fromkeys(kernels, sparsity)
    check_names(sparsity, kernels)
    rows = []
    for name, ops in groups:
      counts = [
        (op_name, op, count_ops(op, sparsity.get(op_name, 0.0), param_bits)) for op_name, op in ops
      ]
      if name.startswith('block') and summarize_blocks:
        rows.append((name, '', add_counts(count for _, _, count in counts)))
      else:
        rows.extend((op_name, _describe(op), count) for op_name, op, count in counts)
    rows.append(('total', '', add_counts(count for _, _, count in rows)))
    cells = [self.process_counts(*count, mul_bits, add_bits) for _, _, count in rows]
    width = max(len('operation'), *(len(name) for name, _, _ in rows))
    print(f'{"operation":<{width}}  {"in  k  channels":<24}{"MB":>10}{"M mults":>12}{"M adds":>12}')
    for (name, description, _), (megabytes, mults, adds) in zip(rows, cells):
      print(f'{name:<{width}}  {description:<24}{megabytes:>10.4f}{mults:>12.3f}{adds:>12.3f}')


def _describe(op: Any) -> str:
  sizes = ['-' if size == -1 else str(size) for size in get_info(op)]
  return '{:<4}{:<3}{} -> {}'.format(*sizes)

"""The counting rules for each Keras layer class, as a table.

Keras classes are recognized by name and package, so this module needs no
TensorFlow. Shapes are those of a call on one example. If the first dimension is
above 1, as for the patches of an image, the call is counted that many times.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from rigl.micronet.counting import ACTIVATION_FLOPS, Arithmetic, DotProducts
from rigl.micronet.network import Layer

Shape = tuple[Any, ...]
# (layer, shape of each input, output shape) -> parts to count. The name of the
# part is '' if there is only one.
Handler = Callable[[Any, Sequence[Shape], Shape], list[Layer]]

# tf_keras is Keras 2 for TensorFlow versions that come with Keras 3.
PACKAGES = ('keras', 'tf_keras')

_FREE_LAYERS = {
  'holds the input': 'InputLayer',
  'folded into a neighbouring layer at inference': 'BatchNormalization',
  'does nothing at inference': """
    Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise
    GaussianDropout AlphaDropout ActivityRegularization
  """,
  'comparisons are no FLOPs': """
    MaxPooling1D MaxPooling2D MaxPooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D Maximum Minimum
  """,
  'only moves data': """
    Flatten Reshape Permute RepeatVector Concatenate ZeroPadding1D ZeroPadding2D
    ZeroPadding3D Cropping1D Cropping2D Cropping3D Masking
  """,
}
# Layer -> why it takes no FLOPs.
FREE = {name: reason for reason, names in _FREE_LAYERS.items() for name in names.split()}

# Their inner layers are counted; their own operations are listed.
COMPOSITE = """
  Functional GroupedQueryAttention Layer Model MultiHeadAttention Sequential Wrapper
""".split()

# Methods for creating and saving a layer, which do not change what it computes.
_HARMLESS = """
  build build_from_config compute_mask compute_output_shape compute_output_spec count_params
  from_config get_build_config get_config
""".split()


class NotCounted(Exception):
  """Raised with the reason when a layer has no rule."""


def _is_of_keras(definition: Any, *more: str) -> bool:
  """Tells whether a class or function comes from Keras, or one of `more`."""
  package = str(getattr(definition, '__module__', None)).partition('.')[0]
  return package in (*PACKAGES, *more)


def keras_classes(layer: Any) -> list[type]:
  """Returns the Keras classes of a layer, most derived first."""
  return [cls for cls in type(layer).__mro__ if _is_of_keras(cls)]


def kind_of(layer: Any) -> tuple[str, bool]:
  """Returns (name of its Keras class, whether it overrides the computation).

  A subclass may have more weights without overriding the computation.
  """
  keras_class = next(iter(keras_classes(layer)), object)
  own = {'call'}.intersection(vars(layer))
  for cls in type(layer).__mro__:
    if cls is keras_class:
      break
    own.update(
      name
      for name in vars(cls)
      if hasattr(keras_class, name)
      and name not in _HARMLESS
      and (name == '__call__' or not name.startswith('__'))
    )
  # Keras 3 also changes what a layer computes in place.
  is_changed = own or any(
    getattr(layer, name, None) for name in ('quantization_mode', 'lora_enabled')
  )
  return keras_class.__name__, bool(is_changed)


def rule_of(layer: Any) -> str | None:
  """Returns the name of a layer in the tables of this module, or None.

  A layer that overrides the computation of its Keras class is a 'Layer': its
  inner layers are counted. A function inside a model has no rule.
  """
  # In Keras 3 functions have classes, some named like layers.
  if not hasattr(layer, 'weights'):
    return None
  kind, is_changed = kind_of(layer)
  if kind in HANDLERS or kind in FREE:
    return 'Layer' if is_changed else kind
  return kind if kind in COMPOSITE else None


def activation_name(layer: Any) -> str | None:
  """Returns the name of a layer's activation function, None for the identity.

  It may be one without a rule, see `split_activation`.
  """
  activation = getattr(layer, 'activation', None)
  name = getattr(activation, '__name__', None)
  if activation is not None and name is None:
    activation = type(activation)
    name = activation.__name__.lower()
  if not (name is None or _is_of_keras(activation, 'tensorflow')):
    return f'{activation.__module__}.{name}'
  if name == 'linear':
    return None
  return 'swish' if name == 'silu' else name


def split_activation(layer: Any) -> tuple[str | None, str | None]:
  """Returns (activation with a rule, reason why another is not counted)."""
  name = activation_name(layer)
  if name in ACTIVATION_FLOPS:
    return name, None
  return None, f'no rule for its activation {name!r}'


def kernel_of(layer: Any, part: str = '') -> Any:
  """Returns the kernel variable, in layers with two kernels that of a part.

  Raises:
    NotCounted: the layer is not built.
  """
  for attribute in (f'{part}_kernel', 'depthwise_kernel', 'kernel', 'embeddings'):
    kernel = getattr(layer, attribute, None)
    if kernel is not None:
      return kernel
  raise NotCounted('not built')


def _shape_of(variable: Any) -> tuple[int, ...]:
  return tuple(int(dimension) for dimension in variable.shape)


def known_size(dimensions: Sequence[Any]) -> int:
  """Returns the product of dimensions.

  Raises:
    NotCounted: one is None, not known.
  """
  if any(dimension is None for dimension in dimensions):
    raise NotCounted('its input size is not known')
  return math.prod(int(dimension) for dimension in dimensions)


def _dots(
  layer: Any, kernel: Any, n_positions: int, length: float, n_channels: int, name: str = ''
) -> Layer:
  shape = _shape_of(kernel)
  return Layer(
    name,
    DotProducts(
      n_weights=math.prod(shape),
      vector_length=length,
      n_positions=n_positions,
      n_channels=n_channels,
      n_biases=n_channels if getattr(layer, 'use_bias', False) else 0,
      activation=split_activation(layer)[0],
    ),
    shape,
  )


def _conv(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  # With groups the kernel holds the input channels of one group only. A dense
  # layer is a convolution of size 1.
  kernel = kernel_of(layer)
  *receptive, c_out = _shape_of(kernel)
  return [_dots(layer, kernel, known_size(output) // c_out, math.prod(receptive), c_out)]


def _depthwise(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  kernel = kernel_of(layer)
  *receptive, channels, multiplier = _shape_of(kernel)
  c_out = channels * multiplier
  return [_dots(layer, kernel, known_size(output) // c_out, math.prod(receptive), c_out)]


def einsum_shape(layer: Any) -> tuple[int, ...]:
  """Returns the shape of an EinsumDense kernel as that of a matrix.

  Summed dimensions are merged into one, and dimensions that are only in the
  output into another. Dimensions shared by input, kernel and output count
  parallel matrices and come first.
  """
  inputs, kernel, output = re.split(',|->', layer.equation.replace(' ', ''))
  n_in = n_out = 1
  side_by_side = []
  for letter, size in zip(kernel, _shape_of(layer.kernel)):
    if letter not in output:
      n_in *= size
    elif letter in inputs:
      side_by_side.append(size)
    else:
      n_out *= size
  return (*side_by_side, n_in, n_out)


def _einsum(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  *side_by_side, n_in, n_out = einsum_shape(layer)
  n_channels = math.prod(side_by_side) * n_out
  left, kernel, right = re.split(',|->', layer.equation.replace(' ', ''))
  if set(left.replace('.', '')) - set(kernel + right):
    raise NotCounted('no rule for an equation that sums the input over more than the kernel')
  bias = getattr(layer, 'bias', None)
  n_biases = 0 if bias is None else math.prod(_shape_of(bias))
  if n_biases not in (0, n_channels):
    raise NotCounted('no rule for a bias of another size than the channels')
  dots = _dots(layer, layer.kernel, known_size(output) // n_channels, n_in, n_channels)
  return [dots._replace(op=dots.op._replace(n_biases=n_biases))]


def _transposed(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  # Every input element is multiplied by every element of its kernel, including
  # those cut off by padding. The length is an average over the output.
  kernel = kernel_of(layer)
  *receptive, c_out, _ = _shape_of(kernel)
  n_outputs = known_size(output)
  n_mults = known_size(inputs[0]) * math.prod(receptive) * c_out
  return [_dots(layer, kernel, n_outputs // c_out, n_mults / n_outputs, c_out)]


def _separable(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  *_, c_in, c_out = _shape_of(layer.pointwise_kernel)
  between = (known_size(output) // c_out, c_in)
  (depthwise,) = _depthwise(layer, inputs, between)
  # The bias and the activation come once, after both.
  return [
    Layer('depthwise', depthwise.op._replace(n_biases=0, activation=None), depthwise.shape),
    _dots(layer, layer.pointwise_kernel, depthwise.op.n_positions, c_in, c_out, 'pointwise'),
  ]


def _embedding(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  # A look-up stores a table and computes nothing.
  shape = _shape_of(kernel_of(layer))
  return [Layer('', DotProducts(math.prod(shape), 0, 0, 0, 0, None), shape)]


def _activation(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  name: str | None = 'relu'
  reason: str | None = None
  if getattr(layer, 'activation', None) is not None:
    name, reason = split_activation(layer)
  if reason:
    raise NotCounted(reason)
  mults, adds = ACTIVATION_FLOPS[name]
  size = known_size(output)
  return [Layer('', Arithmetic(mults * size, adds * size))]


def _global_average(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  n_inputs, n_outputs = known_size(inputs[0]), known_size(output)
  return [Layer('', Arithmetic(n_outputs, n_inputs - n_outputs))]


def _average_pool(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
  # `pool_size` is a number for one-dimensional layers.
  pool = layer.pool_size
  window = pool if isinstance(pool, int) else math.prod(pool)
  n_outputs = known_size(output)
  return [Layer('', Arithmetic(n_outputs, (window - 1) * n_outputs))]


def _merge(mults: bool, adds: bool, averages: bool = False) -> Handler:

  def handler(layer: Any, inputs: Sequence[Shape], output: Shape) -> list[Layer]:
    size = known_size(output)
    steps = (len(inputs) - 1) * size
    return [Layer('', Arithmetic(steps * mults + size * averages, steps * adds))]

  return handler


HANDLERS: dict[str, Handler] = {
  **dict.fromkeys(('Conv1D', 'Conv2D', 'Conv3D', 'Dense'), _conv),
  **dict.fromkeys(('DepthwiseConv1D', 'DepthwiseConv2D'), _depthwise),
  **dict.fromkeys(('Conv1DTranspose', 'Conv2DTranspose', 'Conv3DTranspose'), _transposed),
  **dict.fromkeys(('SeparableConv1D', 'SeparableConv2D'), _separable),
  'EinsumDense': _einsum,
  'Embedding': _embedding,
  **dict.fromkeys(('Activation', 'ReLU'), _activation),
  **dict.fromkeys(
    ('GlobalAveragePooling1D', 'GlobalAveragePooling2D', 'GlobalAveragePooling3D'), _global_average
  ),
  **dict.fromkeys(('AveragePooling1D', 'AveragePooling2D', 'AveragePooling3D'), _average_pool),
  'Add': _merge(mults=False, adds=True),
  'Subtract': _merge(mults=False, adds=True),
  'Multiply': _merge(mults=True, adds=False),
  'Average': _merge(mults=False, adds=True, averages=True),
}

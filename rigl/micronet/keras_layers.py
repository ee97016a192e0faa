"""The counting rules for each Keras layer class, as a table.

Layers are recognised by the names of their classes, so that this module needs
no TensorFlow. Shapes are those Keras reports, with the batch first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from rigl.micronet.counting import ACTIVATION_FLOPS, Arithmetic, DotProducts
from rigl.micronet.network import Layer

Shape = Sequence[Any]
# (layer, input shape or shapes, output shape) -> what to count. The name of a
# part is '' where the layer has only one.
Handler = Callable[[Any, Any, Shape], list[Layer]]

FREE = {
    'InputLayer': 'holds the input',
    'BatchNormalization': 'folded into a neighbouring layer at inference',
    **dict.fromkeys(
        ('Dropout', 'SpatialDropout1D', 'SpatialDropout2D', 'SpatialDropout3D',
         'GaussianNoise', 'GaussianDropout', 'AlphaDropout',
         'ActivityRegularization'), 'does nothing at inference'),
    **dict.fromkeys(
        ('MaxPooling1D', 'MaxPooling2D', 'MaxPooling3D', 'GlobalMaxPooling1D',
         'GlobalMaxPooling2D', 'GlobalMaxPooling3D', 'Maximum', 'Minimum'),
        'comparisons are no FLOPs'),
    **dict.fromkeys(
        ('Flatten', 'Reshape', 'Permute', 'RepeatVector', 'Concatenate',
         'ZeroPadding1D', 'ZeroPadding2D', 'ZeroPadding3D', 'Cropping1D',
         'Cropping2D', 'Cropping3D', 'Masking'), 'only moves data'),
}

# Layers with layers inside whose use cannot be told from outside.
OPAQUE = ('RNN', 'Wrapper', 'MultiHeadAttention')


class NotCounted(Exception):
  """Raised with the reason when a layer has no rule."""


def activation_name(layer: Any) -> str | None:
  """Returns the name of a layer's activation function, None for the identity.

  It may be one without a rule, see `split_activation`.

  Args:
    layer: a Keras layer.
  """
  activation = getattr(layer, 'activation', None)
  name = getattr(activation, '__name__', None)
  if activation is not None and name is None:
    name = type(activation).__name__.lower()
  if name == 'linear':
    return None
  return 'swish' if name == 'silu' else name


def split_activation(layer: Any) -> tuple[str | None, str | None]:
  """Returns (activation with a rule, reason why another is not counted).

  Args:
    layer: a Keras layer.
  """
  name = activation_name(layer)
  if name in ACTIVATION_FLOPS:
    return name, None
  return None, f'no rule for its activation {name!r}'


def kernel_of(layer: Any) -> Any:
  """Returns the kernel variable.

  Args:
    layer: a Keras layer.

  Raises:
    NotCounted: the layer is not built.
  """
  for attribute in ('depthwise_kernel', 'kernel', 'embeddings'):
    kernel = getattr(layer, attribute, None)
    if kernel is not None:
      return kernel
  raise NotCounted('not built')


def _shape_of(variable: Any) -> tuple[int, ...]:
  return tuple(int(dimension) for dimension in variable.shape)


def known_size(dimensions: Sequence[Any]) -> int:
  """Returns the product of dimensions.

  Args:
    dimensions: sizes, None where not known.

  Raises:
    NotCounted: one is not known.
  """
  if any(dimension is None for dimension in dimensions):
    raise NotCounted('its input size is not known')
  return math.prod(int(dimension) for dimension in dimensions)


def spatial(layer: Any, shape: Shape) -> tuple[Any, ...]:
  """Returns the dimensions of a shape that are neither batch nor channels.

  Args:
    layer: a Keras layer, which knows where the channels are.
    shape: with batch and channels.
  """
  if getattr(layer, 'data_format', None) == 'channels_first':
    return tuple(shape[2:])
  return tuple(shape[1:-1])


def _dots(layer: Any, kernel: Any, n_positions: int, length: float,
          n_channels: int, name: str = '') -> Layer:
  shape = _shape_of(kernel)
  return Layer(
      name,
      DotProducts(
          n_weights=math.prod(shape),
          vector_length=length,
          n_positions=n_positions,
          n_channels=n_channels,
          n_biases=n_channels if getattr(layer, 'use_bias', False) else 0,
          activation=split_activation(layer)[0]), shape)


def _conv(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  # With groups the kernel holds the input channels of one group only.
  kernel = kernel_of(layer)
  *receptive, c_out = _shape_of(kernel)
  return [
      _dots(layer, kernel, known_size(spatial(layer, out_shape)),
            math.prod(receptive), c_out)
  ]


def _depthwise(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  kernel = kernel_of(layer)
  *receptive, channels, multiplier = _shape_of(kernel)
  return [
      _dots(layer, kernel, known_size(spatial(layer, out_shape)),
            math.prod(receptive), channels * multiplier)
  ]


def _transposed(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  # Every input element meets every element of its kernel; what padding cuts
  # off is counted too. The length is an average over the output.
  kernel = kernel_of(layer)
  *_, c_out, _ = _shape_of(kernel)
  n_positions = known_size(spatial(layer, out_shape))
  n_mults = known_size(spatial(layer, in_shape)) * math.prod(_shape_of(kernel))
  return [
      _dots(layer, kernel, n_positions, n_mults / (n_positions * c_out), c_out)
  ]


def _separable(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  depthwise, = _depthwise(layer, in_shape, out_shape)
  c_in, c_out = _shape_of(layer.pointwise_kernel)[-2:]
  # The bias and the activation come once, after both.
  return [
      Layer('depthwise', depthwise.op._replace(n_biases=0, activation=None),
            depthwise.shape),
      _dots(layer, layer.pointwise_kernel, depthwise.op.n_positions, c_in,
            c_out, 'pointwise'),
  ]


def _dense(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  kernel = kernel_of(layer)
  c_in, c_out = _shape_of(kernel)
  return [_dots(layer, kernel, known_size(in_shape[1:-1]), c_in, c_out)]


def _embedding(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  # A look-up stores a table and computes nothing.
  shape = _shape_of(kernel_of(layer))
  return [Layer('', DotProducts(math.prod(shape), 0, 0, 0, 0, None), shape)]


def _activation(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  name: str | None = 'relu'
  reason: str | None = None
  if getattr(layer, 'activation', None) is not None:
    name, reason = split_activation(layer)
  if reason:
    raise NotCounted(reason)
  mults, adds = ACTIVATION_FLOPS[name]
  size = known_size(out_shape[1:])
  return [Layer('', Arithmetic(mults * size, adds * size))]


def _global_average(layer: Any, in_shape: Shape,
                    out_shape: Shape) -> list[Layer]:
  window = known_size(spatial(layer, in_shape))
  n_channels = known_size(in_shape[1:]) // window
  return [Layer('', Arithmetic(n_channels, (window - 1) * n_channels))]


def _average_pool(layer: Any, in_shape: Shape, out_shape: Shape) -> list[Layer]:
  # `pool_size` is a number for one-dimensional layers.
  pool = layer.pool_size
  window = pool if isinstance(pool, int) else math.prod(pool)
  n_outputs = known_size(out_shape[1:])
  return [Layer('', Arithmetic(n_outputs, (window - 1) * n_outputs))]


def _merge(mults: bool, adds: bool, averages: bool = False) -> Handler:

  def handler(layer: Any, in_shape: Any, out_shape: Shape) -> list[Layer]:
    size = known_size(out_shape[1:])
    steps = (len(in_shape) - 1) * size
    return [
        Layer('', Arithmetic(steps * mults + size * averages, steps * adds))
    ]

  return handler


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(('Conv1D', 'Conv2D', 'Conv3D'), _conv),
    **dict.fromkeys(('DepthwiseConv1D', 'DepthwiseConv2D'), _depthwise),
    **dict.fromkeys(
        ('Conv1DTranspose', 'Conv2DTranspose', 'Conv3DTranspose'), _transposed),
    **dict.fromkeys(('SeparableConv1D', 'SeparableConv2D'), _separable),
    'Dense': _dense,
    'Embedding': _embedding,
    **dict.fromkeys(('Activation', 'ReLU'), _activation),
    **dict.fromkeys(('GlobalAveragePooling1D', 'GlobalAveragePooling2D',
                     'GlobalAveragePooling3D'), _global_average),
    **dict.fromkeys(
        ('AveragePooling1D', 'AveragePooling2D', 'AveragePooling3D'),
        _average_pool),
    'Add': _merge(mults=False, adds=True),
    'Subtract': _merge(mults=False, adds=True),
    'Multiply': _merge(mults=True, adds=False),
    'Average': _merge(mults=False, adds=True, averages=True),
}


def class_name(layer: Any, known: Any) -> str | None:
  """Returns the most derived class of a layer that is in `known`, or None.

  Args:
    layer: a Keras layer.
    known: names of classes.
  """
  for cls in type(layer).__mro__:
    if cls.__name__ in known:
      return cls.__name__
  return None

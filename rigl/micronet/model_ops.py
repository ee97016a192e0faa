"""The networks of the paper as lists of operations, which `rigl.networks` describes.

Layers have the names of the masks in the training graphs, for example
`resnet_model/initial_conv`. As in the paper, each layer with a kernel is
counted with a bias (batch normalization folded in) and a ReLU; only VGG has
neither normalization nor biases. Residual additions and the global average are
separate operations, which `Network.weighted_layers` leaves out, like the
published figures.

Each function takes the multiplier of the channels, the height and width of an
image and the number of logits. `rigl.micronet.architectures` finds a network by
name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

from rigl import networks
from rigl.core import checks
from rigl.micronet.counting import (
  Add,
  Conv2D,
  DepthWiseConv2D,
  FullyConnected,
  GlobalAvg,
  has_kernel,
)
from rigl.micronet.network import Layer, Network

# (rows, channels) of a square image.
_Image = tuple[int, int]


class _Layers:
  """Lists the operations that a network of `rigl.networks` is made of."""

  def __init__(self, scope: str, use_bias: bool):
    self.layers: list[Layer] = []
    self._scope = scope
    self._use_bias = use_bias

  def _append(self, name: str, op: Any) -> None:
    self.layers.append(Layer(f'{self._scope}{name}', op))

  def conv(self, x: _Image, filters: int, size: int, strides: int, name: str, **_: Any) -> _Image:
    n_rows, channels = x
    shape = (size, size, channels, filters)
    op = Conv2D(n_rows, shape, (strides, strides), 'same', self._use_bias, 'relu')
    self._append(name, op)
    return -(-n_rows // strides), filters

  def depthwise(self, x: _Image, size: int, strides: int, name: str) -> _Image:
    n_rows, channels = x
    shape = (size, size, channels, 1)
    self._append(name, DepthWiseConv2D(n_rows, shape, (strides, strides), 'same', True, 'relu'))
    return -(-n_rows // strides), channels

  def norm(self, x: _Image, **_: Any) -> _Image:
    return x

  def relu(self, x: _Image) -> _Image:
    return x

  def dropout(self, x: _Image, name: str) -> _Image:
    return x

  def max_pool(self, x: _Image, size: int, strides: int, padding: str) -> _Image:
    n_rows, channels = x
    if padding == 'VALID':
      n_rows -= size - 1
    return -(-n_rows // strides), channels

  def add(self, x: _Image, shortcut: _Image, name: str) -> _Image:
    self._append(name, Add(*x))
    return x

  def _global_average(self, x: _Image) -> _Image:
    self._append('global_average', GlobalAvg(*x))
    return 1, x[1]

  def classifier(self, x: _Image, num_classes: int, name: str, **_: Any) -> _Image:
    return self.dense(self._global_average(x), num_classes, name)

  def conv_classifier(self, x: _Image, num_classes: int, name: str, **_: Any) -> _Image:
    return self.conv(self._global_average(x), num_classes, 1, 1, name)

  def dense(self, x: _Image, units: int, name: str, **_: Any) -> _Image:
    self._append(name, FullyConnected((x[1], units), True, 'relu'))
    return 1, units

  @contextlib.contextmanager
  def scope(self, name: str) -> Iterator[None]:
    outer, self._scope = self._scope, f'{self._scope}{name}/'
    yield
    self._scope = outer

  def name_scope(self, name: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def make_network(
  network: Callable[..., Any],
  width: float = 1.0,
  input_size: int = 224,
  num_classes: int = 1000,
  channels: int = 3,
  scope: str = 'resnet_model/',
  use_bias: bool = True,
) -> Network:
  """Lists the operations of a network of `rigl.networks` on images of these channels.

  By default its first layer and its depthwise layers have no mask.
  """
  net = _Layers(scope, use_bias)
  network(net, (input_size, channels), width=width, num_classes=num_classes)
  first, *others = (layer for layer in net.layers if has_kernel(layer.op))
  unmasked = [first, *(layer for layer in others if isinstance(layer.op, DepthWiseConv2D))]
  factors = {layer.name: 0.0 for layer in unmasked}
  return Network(tuple(net.layers), first.name, others[-1].name, factors)


def resnet(
  depth: int, width: float = 1.0, input_size: int = 224, num_classes: int = 1000
) -> Network:
  """ResNet for ImageNet, with the stride in the 3x3 convolution of a block.

  Raises:
    ValueError: there is no ResNet of this depth; names the options.
  """
  checks.one_of('The depth of a ResNet', depth, networks.RESNETS)
  network = functools.partial(networks.resnet, depth=depth)
  return make_network(network, width, input_size, num_classes)


def mobilenet_v1(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Network:
  """MobileNet-v1 (https://arxiv.org/abs/1704.04861)."""
  return make_network(networks.mobilenet_v1, width, input_size, num_classes)


def mobilenet_v2(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Network:
  """MobileNet-v2 (https://arxiv.org/abs/1801.04381)."""
  return make_network(networks.mobilenet_v2, width, input_size, num_classes)


def vgg(
  vgg_type: str, width: float = 1.0, input_size: int = 224, num_classes: int = 1000
) -> Network:
  """VGG with a global average instead of the large dense layers.

  Raises:
    ValueError: the type is unknown, or the image too small for the poolings.
  """
  checks.one_of('vgg_type', vgg_type, networks.VGGS)
  # Each of the poolings between the groups takes one binary digit off the size.
  if input_size.bit_length() < len(networks.VGG_FILTERS):
    raise ValueError(
      f'input_size {input_size} is too small for {vgg_type}: '
      f'pooling {input_size.bit_length()} leaves nothing of the image.'
    )
  network = functools.partial(networks.vgg, vgg_type=vgg_type)
  description = make_network(
    network, width, input_size, num_classes, scope=f'{vgg_type}/', use_bias=False
  )
  return dataclasses.replace(description, sparsity_factors={})


def wide_resnet(depth: int, width: float, input_size: int = 32, num_classes: int = 10) -> Network:
  """WideResNet-depth-width for CIFAR (https://arxiv.org/abs/1605.07146).

  Raises:
    ValueError: the depth is not 6n + 4.
  """
  if depth < 10 or (depth - 4) % 6:
    raise ValueError(f'The depth of a WideResNet is 6n + 4, got {depth}.')
  network = functools.partial(networks.wide_resnet, depth=depth)
  return make_network(network, width, input_size, num_classes)


def lenet_300_100(width: float = 1.0, input_size: int = 28, num_classes: int = 10) -> Network:
  """Two hidden layers on MNIST; layer2 is less sparse and layer3 is dense."""
  description = make_network(
    networks.lenet_300_100, width, 1, num_classes, channels=input_size**2, scope=''
  )
  return dataclasses.replace(description, sparsity_factors={'layer2': 0.9, 'layer3': 0.0})

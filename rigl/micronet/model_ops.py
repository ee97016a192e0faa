"""The networks of the paper as lists of layers, without building a graph.

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

import dataclasses
from typing import Any

from rigl import network_tables
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


class _Builder:
  """Appends layers and tracks the size of the image."""

  def __init__(self, prefix: str, input_size: int, use_bias: bool = True):
    self.layers: list[Layer] = []
    self.size = input_size
    self.channels = 3
    self._prefix = prefix
    self._use_bias = use_bias

  def _append(self, name: str, op: Any) -> None:
    self.layers.append(Layer(self._prefix + name, op))

  def conv(self, name: str, kernel: int, filters: int, stride: int = 1) -> None:
    shape = (kernel, kernel, self.channels, filters)
    self._append(name, Conv2D(self.size, shape, (stride, stride), 'same', self._use_bias, 'relu'))
    self.shrink(stride)
    self.channels = filters

  def projection(self, name: str, filters: int, stride: int) -> None:
    """Appends a 1x1 convolution parallel to the layers that follow."""
    size, channels = self.size, self.channels
    self.conv(name, 1, filters, stride)
    self.size, self.channels = size, channels

  def depthwise(self, name: str, stride: int) -> None:
    self._append(
      name,
      DepthWiseConv2D(self.size, (3, 3, self.channels, 1), (stride, stride), 'same', True, 'relu'),
    )
    self.shrink(stride)

  def shrink(self, stride: int) -> None:
    self.size = -(-self.size // stride)

  def add(self, name: str) -> None:
    self._append(name, Add(self.size, self.channels))

  def global_average(self) -> None:
    self._append('global_average', GlobalAvg(self.size, self.channels))
    self.size = 1

  def dense(self, name: str, units: int) -> None:
    self._append(name, FullyConnected((self.channels, units), True, 'relu'))
    self.channels = units


def resnet(
  depth: int, width: float = 1.0, input_size: int = 224, num_classes: int = 1000
) -> Network:
  """ResNet for ImageNet, with the stride in the 3x3 convolution of a block.

  Raises:
    ValueError: there is no ResNet of this depth; names the options.
  """
  checks.one_of('The depth of a ResNet', depth, network_tables.RESNETS)
  kind, group_sizes = network_tables.RESNETS[depth]
  is_bottleneck = kind == 'bottleneck'
  net = _Builder('resnet_model/', input_size)
  net.conv('initial_conv', 7, int(64 * width), 2)
  net.shrink(2)
  for group, n_blocks in enumerate(group_sizes, start=1):
    filters = int(64 * 2 ** (group - 1) * width)
    for block in range(n_blocks):
      stride = 2 if group > 1 and block == 0 else 1
      suffix = f'block_group{group}_{block}_1'
      if block == 0:
        suffix = f'block_group_projection_block_group{group}'
        net.projection(
          f'{kind}_projection_{suffix}', 4 * filters if is_bottleneck else filters, stride
        )
      if is_bottleneck:
        net.conv(f'{kind}_1_{suffix}', 1, filters)
        net.conv(f'{kind}_2_{suffix}', 3, filters, stride)
        net.conv(f'{kind}_3_{suffix}', 1, 4 * filters)
      else:
        net.conv(f'{kind}_1_{suffix}', 3, filters, stride)
        net.conv(f'{kind}_2_{suffix}', 3, filters)
      net.add(f'{kind}_add_{suffix}')
  net.global_average()
  net.dense('final_dense', num_classes)
  return _network(net, unmasked=('initial_conv',))


def mobilenet_v1(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Network:
  """MobileNet-v1 (https://arxiv.org/abs/1704.04861)."""
  net = _Builder('resnet_model/', input_size)
  initial_filters, blocks = network_tables.mobilenet_filters(network_tables.MOBILENET_V1, width)
  net.conv('initial_conv', 3, initial_filters, 2)
  for i, (filters, stride) in enumerate(blocks):
    net.depthwise(f'depthwise_nxn_{i}', stride)
    net.conv(f'contraction_1x1_{i}', 1, filters)
  net.global_average()
  net.dense('final_dense', num_classes)
  return _network(net, unmasked=('initial_conv', 'depthwise'))


def mobilenet_v2(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Network:
  """MobileNet-v2 (https://arxiv.org/abs/1801.04381)."""
  net = _Builder('resnet_model/', input_size)
  initial_filters, blocks = network_tables.mobilenet_filters(network_tables.MOBILENET_V2, width)
  net.conv('initial_conv', 3, initial_filters, 2)
  for i, (filters, stride) in enumerate(blocks):
    in_channels = net.channels
    if i > 0:
      net.conv(f'expand_1x1_{i}', 1, 6 * in_channels)
    net.depthwise(f'depthwise_nxn_{i}', stride)
    net.conv(f'contraction_1x1_{i}', 1, filters)
    if stride == 1 and in_channels == filters:
      net.add(f'add_{i}')
  net.conv('final_1x1_conv', 1, network_tables.mobilenet_v2_features(width))
  net.global_average()
  net.dense('final_dense', num_classes)
  return _network(net, unmasked=('initial_conv', 'depthwise'))


def vgg(
  vgg_type: str, width: float = 1.0, input_size: int = 224, num_classes: int = 1000
) -> Network:
  """VGG with a global average instead of the large dense layers.

  Raises:
    ValueError: the type is unknown, or the image too small for the poolings.
  """
  checks.one_of('vgg_type', vgg_type, network_tables.VGGS)
  net = _Builder(f'{vgg_type}/', input_size, use_bias=False)
  groups = zip(network_tables.VGG_FILTERS, network_tables.VGGS[vgg_type])
  for group, (filters, n_convs) in enumerate(groups, start=1):
    if group > 1:
      net.size //= 2
    if not net.size:
      raise ValueError(
        f'input_size {input_size} is too small for {vgg_type}: '
        f'pooling {group - 1} leaves nothing of the image.'
      )
    for i in range(1, n_convs + 1):
      net.conv(f'conv{group}/conv{group}_{i}', 3, int(filters * width))
  net.global_average()
  net.conv('fc8', 1, num_classes)
  return _network(net)


def wide_resnet(depth: int, width: float, input_size: int = 32, num_classes: int = 10) -> Network:
  """WideResNet-depth-width for CIFAR (https://arxiv.org/abs/1605.07146).

  Raises:
    ValueError: the depth is not 6n + 4.
  """
  if depth < 10 or (depth - 4) % 6:
    raise ValueError(f'The depth of a WideResNet is 6n + 4, got {depth}.')
  net = _Builder('resnet_model/', input_size)
  net.conv('conv_1', 3, 16)
  for group in (2, 3, 4):
    filters = int(16 * 2 ** (group - 2) * width)
    for block in range((depth - 4) // 6):
      stride = 2 if group > 2 and block == 0 else 1
      if block == 0 and net.channels != filters:
        net.projection(f'skip_conv_{group}', filters, stride)
      net.conv(f'conv_{group}_{block}_1', 3, filters, stride)
      net.conv(f'conv_{group}_{block}_2', 3, filters)
      net.add(f'add_{group}_{block}')
  net.global_average()
  net.dense('logits', num_classes)
  return _network(net, unmasked=('conv_1',))


def lenet_300_100(width: float = 1.0, input_size: int = 28, num_classes: int = 10) -> Network:
  """Two hidden layers on MNIST; layer2 is less sparse and layer3 is dense."""
  net = _Builder('', input_size)
  net.channels = input_size**2
  net.dense('layer1', int(300 * width))
  net.dense('layer2', int(100 * width))
  net.dense('layer3', num_classes)
  return dataclasses.replace(_network(net), sparsity_factors={'layer2': 0.9, 'layer3': 0.0})


def _network(net: _Builder, unmasked: tuple[str, ...] = ()) -> Network:
  """The network of a builder; `unmasked` are prefixes of layer names."""
  layers = tuple(net.layers)
  weighted = [layer.name for layer in layers if has_kernel(layer.op)]
  factors = {
    name: 0.0 for name in weighted if unmasked and name.rpartition('/')[2].startswith(unmasked)
  }
  return Network(layers, weighted[0], weighted[-1], factors)

"""The networks, layer by layer, from which the scripts build and `rigl.micronet` counts them.

A network is a function of `net`, which makes the layers, of images `x`, of the factor `width` of
its channels, and of `num_classes`; it returns the logits. In the scripts `x` is a tensor. In the
counter it is (rows, channels), and `net` lists operations. A `net` has what its networks ask for:

    conv(x, filters, size, strides, name)    convolution
    depthwise(x, size, strides, name)        depthwise convolution: one filter for each channel
    norm(x), relu(x), dropout(x, name)
    max_pool(x, size, strides, padding)
    add(x, shortcut, name)                   residual connection
    classifier(x, num_classes, name)         the last layer, fully connected, on images averaged
    conv_classifier(x, num_classes, name)    the same as a 1x1 convolution
    dense(x, units, name)                    fully connected, with a ReLU if not the last
    scope(name), name_scope(name)            of variables and operations, of operations alone

Keywords say what only training needs:

    is_first, is_last    the first layer, which may have no mask, and the last `dense`
    init_scale           the initial weights have variance init_scale / fan_in, 1 by default
    stddev               the initial weights have this standard deviation
    init_zero            a normalization starts at gamma = 0 instead of 1
    keras_names          without a mask, the variables have the names of Keras
"""

from __future__ import annotations

from typing import Any, Sequence

# Depth -> (kind of block, number of blocks in each group).
RESNETS = {
  18: ('residual', (2, 2, 2, 2)),
  34: ('residual', (3, 4, 6, 3)),
  50: ('bottleneck', (3, 4, 6, 3)),
  101: ('bottleneck', (3, 4, 23, 3)),
  152: ('bottleneck', (3, 8, 36, 3)),
  200: ('bottleneck', (3, 24, 36, 3)),
}

# Number of convolutions and filters of each group.
VGGS = {'vgg_a': (1, 1, 2, 2, 2), 'vgg_16': (2, 2, 3, 3, 3), 'vgg_19': (2, 2, 4, 4, 4)}
VGG_FILTERS = (64, 128, 256, 512, 512)


def _blocks(*groups: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
  """(filters, stride) of each block; groups are (filters, first stride, number of blocks)."""
  return tuple((filters, 1 if i else stride) for filters, stride, n in groups for i in range(n))


# The separable convolutions.
MOBILENET_V1 = _blocks((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))
# The inverted residuals.
MOBILENET_V2 = _blocks(
  (16, 1, 1), (24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3), (160, 2, 3), (320, 1, 1)
)


def resnet(net: Any, x: Any, depth: int, width: float, num_classes: int) -> Any:
  """ResNet (https://arxiv.org/abs/1512.03385) of a depth in RESNETS, for ImageNet.

  Every group starts with a projection shortcut, even the first of ResNet-18 and ResNet-34, where
  the number of channels does not change.
  """
  kind, group_sizes = RESNETS[depth]
  x = net.relu(net.norm(net.conv(x, int(64 * width), 7, 2, 'initial_conv', is_first=True)))
  x = net.max_pool(x, 3, 2, 'SAME')
  for group, n_blocks in enumerate(group_sizes, start=1):
    filters = int(64 * 2 ** (group - 1) * width)
    with net.name_scope(f'block_group{group}'):
      x = _resnet_block(net, x, kind, filters, group, 0)
      for i in range(1, n_blocks):
        with net.name_scope(f'block_group_{i}'):
          x = _resnet_block(net, x, kind, filters, group, i)
  return net.classifier(x, num_classes, 'final_dense', stddev=0.01)


def _resnet_block(net: Any, x: Any, kind: str, filters: int, group: int, index: int) -> Any:
  """relu(convolutions(x) + shortcut(x)) of a block; groups count from 1, their blocks from 0.

  A 'residual' block has `filters` channels, a 'bottleneck' block four times as many, and its stride
  in the 3x3 convolution. The first block of a group has a convolution as its shortcut, and a
  stride, except in the first group.
  """
  strides = 2 if group > 1 and index == 0 else 1
  suffix = f'block_group{group}'
  suffix = f'{suffix}_{index}_1' if index else f'block_group_projection_{suffix}'
  # (kernel size, filters, strides)
  convolutions = [(1, filters, 1), (3, filters, strides), (1, 4 * filters, 1)]
  if kind == 'residual':
    convolutions = [(3, filters, strides), (3, filters, 1)]
  shortcut = x
  if index == 0:
    n_out = convolutions[-1][1]
    shortcut = net.norm(net.conv(x, n_out, 1, strides, f'{kind}_projection_{suffix}'))
  for i, (kernel_size, n_out, stride) in enumerate(convolutions, start=1):
    x = net.conv(x, n_out, kernel_size, stride, f'{kind}_{i}_{suffix}')
    if i < len(convolutions):
      x = net.relu(net.norm(x))
  # At gamma = 0 the block starts as its shortcut (arXiv 1706.02677).
  x = net.norm(x, init_zero=True)
  return net.relu(net.add(x, shortcut, f'{kind}_add_{suffix}'))


def make_divisible(channels: float, divisor: int = 8) -> int:
  """The multiple of `divisor` nearest to `channels`, not over 10 % below it."""
  rounded = max(divisor, int(channels + divisor // 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * channels else rounded


def _mobilenet_filters(
  blocks: Sequence[tuple[int, int]], width: float
) -> tuple[int, list[tuple[int, int]]]:
  """(filters of the initial convolution, [(filters, stride) of each block]) of a MobileNet.

  The width multiplies filters, to multiples of 8 except for block 0. Blocks round
  int(filters * width), the initial convolution filters * width itself: at width 0.28 it has 16
  filters, as 8 would be more than 10 % below 8.96.
  """
  return make_divisible(width * 32), [
    (make_divisible(int(width * filters), 8 if i else 1), stride)
    for i, (filters, stride) in enumerate(blocks)
  ]


def _mobilenet_start(net: Any, x: Any, filters: int) -> Any:
  x = net.conv(x, filters, 3, 2, 'initial_conv', is_first=True, keras_names=True)
  return net.relu(net.norm(x))


def mobilenet_v1(net: Any, x: Any, width: float, num_classes: int) -> Any:
  """MobileNet-v1 (https://arxiv.org/abs/1704.04861)."""
  initial_filters, blocks = _mobilenet_filters(MOBILENET_V1, width)
  x = _mobilenet_start(net, x, initial_filters)
  for i, (filters, strides) in enumerate(blocks):
    x = net.relu(net.norm(net.depthwise(x, 3, strides, f'depthwise_nxn_{i}')))
    x = net.relu(net.norm(net.conv(x, filters, 1, 1, f'contraction_1x1_{i}')))
  return net.classifier(x, num_classes, 'final_dense', keras_names=True)


def mobilenet_v2(
  net: Any, x: Any, width: float, num_classes: int, expansion_factor: float = 6.0
) -> Any:
  """MobileNet-v2 (https://arxiv.org/abs/1801.04381), with ReLU instead of the paper's ReLU6.

  A block has int(expansion_factor * n_in) channels inside, the first block n_in. The classifier
  sees at least 1280 features at any width.
  """
  n_in, blocks = _mobilenet_filters(MOBILENET_V2, width)
  x = _mobilenet_start(net, x, n_in)
  for i, (filters, strides) in enumerate(blocks):
    shortcut = x
    if i > 0:
      x = net.conv(x, int(expansion_factor * n_in), 1, 1, f'expand_1x1_{i}')
      x = net.relu(net.norm(x))
    x = net.relu(net.norm(net.depthwise(x, 3, strides, f'depthwise_nxn_{i}')))
    x = net.norm(net.conv(x, filters, 1, 1, f'contraction_1x1_{i}'))
    if strides == 1 and n_in == filters:
      x = net.add(x, shortcut, f'add_{i}')
    n_in = filters
  n_features = make_divisible(int(max(width, 1.0) * 1280))
  x = net.relu(net.norm(net.conv(x, n_features, 1, 1, 'final_1x1_conv')))
  return net.classifier(x, num_classes, 'final_dense', keras_names=True)


def vgg(net: Any, x: Any, vgg_type: str, width: float, num_classes: int) -> Any:
  """A VGG (https://arxiv.org/abs/1409.1556) of VGGS, without normalization and biases.

  Max pooling halves the image between groups. An average replaces the fifth pooling and the two
  large fully connected layers.
  """
  # A scale of 2 keeps the variance through ReLUs (arXiv 1502.01852); no normalization does.
  for group, n_convs in enumerate(VGGS[vgg_type], start=1):
    filters = int(VGG_FILTERS[group - 1] * width)
    if group > 1:
      x = net.max_pool(x, 2, 2, 'VALID')
    with net.scope(f'conv{group}'):
      for i in range(1, n_convs + 1):
        first = group == i == 1
        x = net.conv(x, filters, 3, 1, f'conv{group}_{i}', is_first=first, init_scale=2.0)
        x = net.relu(x)
  return net.conv_classifier(x, num_classes, 'fc8', init_scale=2.0)


def wide_resnet(net: Any, x: Any, depth: int, width: float, num_classes: int) -> Any:
  """WideResNet-depth-width for CIFAR (https://arxiv.org/abs/1605.07146), depth being 6n + 4.

  A block is shortcut(x) + convolutions(relu(norm(x))). The shortcut is the identity of x or, where
  the number of channels changes, a 1x1 convolution of the normalized x.
  """
  n_in = 16
  x = net.conv(x, n_in, 3, 1, 'conv_1', is_first=True)
  for group in (2, 3, 4):
    filters = int(16 * 2 ** (group - 2) * width)
    with net.name_scope(f'conv_{group}'):
      for i in range((depth - 4) // 6):
        strides = 2 if group > 2 and i == 0 else 1
        name = f'conv_{group}_{i}'
        with net.name_scope(f'res_{i}'):
          shortcut = x
          x = net.relu(net.norm(x))
          if n_in != filters:
            shortcut = net.conv(x, filters, 1, strides, f'skip_conv_{group}')
          x = net.conv(x, filters, 3, strides, f'{name}_1')
          x = net.dropout(net.relu(net.norm(x)), name)
          x = net.conv(x, filters, 3, 1, f'{name}_2')
          x = net.add(x, shortcut, f'add_{group}_{i}')
          n_in = filters
  return net.classifier(net.relu(net.norm(x)), num_classes, 'logits')


def lenet_300_100(net: Any, x: Any, num_classes: int, width: float = 1.0) -> Any:
  """LeNet-300-100 for MNIST: two hidden layers, on images as vectors."""
  x = net.dense(x, int(300 * width), 'layer1')
  x = net.dense(x, int(100 * width), 'layer2')
  return net.dense(x, num_classes, 'layer3', is_last=True)

"""Finds the description of a network by name.

Besides the training graphs of `rigl.micronet.model_ops` there are
`resnet50_keras` and `mobilenet_v1_keras`: the same networks with the layer
names and the input sizes of the Keras models that the published figures were
counted on. Keras pads the image in a layer of its own before some strided
convolutions, and the rules pad the padded image once more. So 115 instead of
112 rows leave the first convolution of ResNet-50, which adds 0.16 % to its
FLOPs.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping

from rigl.micronet import model_ops
from rigl.micronet.counting import Conv2D, DepthWiseConv2D, FullyConnected
from rigl.micronet.model_ops import Network
from rigl.micronet.network import Layer, scale_width


def _conv(size: int, kernel: int, c_in: int, c_out: int, stride: int) -> Conv2D:
  return Conv2D(size, (kernel, kernel, c_in, c_out), (stride, stride), 'same',
                True, 'relu')


def _keras_network(
    layers: list[Layer],
    width: float,
    sparsity_factors: Mapping[str, float],
) -> Network:
  """Scales the layers; a distribution keeps looking at those of width 1."""
  first, last = layers[0].name, layers[-1].name
  return Network(
      tuple(scale_width(layers, width, first, last)),
      first,
      last,
      sparsity_factors,
      distribution_layers=tuple(layers))


def resnet50_keras(
    width: float = 1.,
    input_size: int = 224,
    num_classes: int = 1000,
) -> Network:
  """ResNet-50 with the layer names conv1, res2a_branch2a, ..., fc1000.

  Args:
    width: multiplier of the channels.
    input_size: height and width of an image.
    num_classes: number of logits.
  """
  # The image reaches conv1 with three pixels of zeros around it.
  layers = [Layer('conv1', _conv(input_size + 6, 7, 3, 64, 2))]
  size, c_in = -(-input_size // 4), 64
  for group, n_blocks in enumerate(model_ops.RESNET_BLOCKS[50], start=2):
    filters = 64 * 2**(group - 2)
    for block in range(n_blocks):
      name = f'res{group}{"abcdef"[block]}_branch'
      stride = 2 if group > 2 and block == 0 else 1
      out_size = -(-size // stride)
      layers += [
          Layer(f'{name}2a', _conv(size, 1, c_in, filters, 1)),
          Layer(f'{name}2b', _conv(size, 3, filters, filters, stride)),
          Layer(f'{name}2c', _conv(out_size, 1, filters, 4 * filters, 1)),
      ]
      if block == 0:
        layers.append(
            Layer(f'{name}1', _conv(size, 1, c_in, 4 * filters, stride)))
      size, c_in = out_size, 4 * filters
  layers.append(Layer('fc1000', FullyConnected((c_in, num_classes), True,
                                               'relu')))
  return _keras_network(layers, width, {})


def mobilenet_v1_keras(
    width: float = 1.,
    input_size: int = 224,
    num_classes: int = 1000,
) -> Network:
  """MobileNet-v1 with the names conv1, conv_dw_1, conv_pw_1, ..., conv_preds.

  The depthwise layers are dense unless a custom sparsity says otherwise.

  Args:
    width: multiplier of the channels.
    input_size: height and width of an image.
    num_classes: number of logits.
  """
  # Strided layers see an image with one more row and column of zeros.
  layers = [Layer('conv1', _conv(input_size + 1, 3, 3, 32, 2))]
  size, c_in = -(-input_size // 2), 32
  for i, (c_out, stride) in enumerate(model_ops.MOBILENET_V1_BLOCKS, start=1):
    depthwise = DepthWiseConv2D(size + stride - 1, (3, 3, c_in, 1),
                                (stride, stride), 'same', True, 'relu')
    size = -(-size // stride)
    layers += [
        Layer(f'conv_dw_{i}', depthwise),
        Layer(f'conv_pw_{i}', _conv(size, 1, c_in, c_out, 1)),
    ]
    c_in = c_out
  layers.append(Layer('conv_preds', _conv(1, 1, c_in, num_classes, 1)))
  factors = {
      layer.name: 0. for layer in layers if layer.name.startswith('conv_dw')
  }
  return _keras_network(layers, width, factors)


_BUILDERS: dict[str, Callable[..., Network]] = {
    **{
        f'resnet{depth}': functools.partial(model_ops.resnet, depth)
        for depth in model_ops.RESNET_BLOCKS
    },
    'mobilenet_v1': model_ops.mobilenet_v1,
    'mobilenet_v2': model_ops.mobilenet_v2,
    **{
        name: functools.partial(model_ops.vgg, name)
        for name in model_ops.VGG_CONVS
    },
    'lenet_300_100': model_ops.lenet_300_100,
    'resnet50_keras': resnet50_keras,
    'mobilenet_v1_keras': mobilenet_v1_keras,
}

# As accepted by `get_network`; 'wrn_D_K' stands for any depth and width.
ARCHITECTURES = (*_BUILDERS, 'wrn_D_K')


def get_network(
    name: str,
    width: float | None = None,
    input_size: int | None = None,
    num_classes: int | None = None,
) -> Network:
  """Builds the description of a network.

  Args:
    name: one of `ARCHITECTURES`, with numbers for D and K, as in 'wrn_22_2'.
    width: factor for the number of channels. It multiplies K of a WideResNet.
    input_size: rows of the square input image.
    num_classes: units of the last layer. None in these three takes the value of
      the data set that the network is trained on.

  Returns:
    The network.

  Raises:
    ValueError: on an unknown name or an impossible size.
  """
  given = {
      'width': width,
      'input_size': input_size,
      'num_classes': num_classes
  }
  given = {key: value for key, value in given.items() if value is not None}
  for key, value in given.items():
    if not 0 < value < math.inf:
      raise ValueError(f'{key} must be positive, got {value}.')
  wide_resnet = re.fullmatch(r'wrn_(\d+)_(\d+)', name)
  if wide_resnet:
    depth, factor = map(int, wide_resnet.groups())
    factor *= given.pop('width', 1)
    return model_ops.wide_resnet(depth, factor, **given)
  if name not in _BUILDERS:
    raise ValueError(f'Unknown architecture {name!r}. '
                     f'Choose one of: {", ".join(ARCHITECTURES)}.')
  return _BUILDERS[name](**given)

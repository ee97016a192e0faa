"""The networks behind the published figures, as lists of Keras layers.

ResNet-50 and MobileNet-v1 as in `rigl.micronet.model_ops`, but with the names
and input sizes of the Keras models from which the published figures were
counted. Keras pads the image in a separate layer before some strided
convolutions, and the rules pad the padded image again. So the first convolution
of ResNet-50 has 115 instead of 112 output rows, which adds 0.16 % to its FLOPs.
"""

from __future__ import annotations

from collections.abc import Mapping

from rigl import networks
from rigl.micronet.counting import Conv2D, DepthWiseConv2D, FullyConnected
from rigl.micronet.network import Layer, Network, scale_width


def _conv(size: int, kernel: int, c_in: int, c_out: int, stride: int) -> Conv2D:
  return Conv2D(size, (kernel, kernel, c_in, c_out), (stride, stride), 'same', True, 'relu')


def _keras_network(
  layers: list[Layer], width: float, sparsity_factors: Mapping[str, float]
) -> Network:
  """Scales the layers; distributions still use the shapes of width 1."""
  first, last = layers[0].name, layers[-1].name
  return Network(
    tuple(scale_width(layers, width, first, last)),
    first,
    last,
    sparsity_factors,
    distribution_layers=tuple(layers),
  )


def resnet50_keras(width: float = 1.0, input_size: int = 224, num_classes: int = 1000) -> Network:
  """ResNet-50 with the layer names conv1, res2a_branch2a, ..., fc1000."""
  # The input of conv1 has three pixels of zero padding.
  layers = [Layer('conv1', _conv(input_size + 6, 7, 3, 64, 2))]
  size, c_in = -(-input_size // 4), 64
  _, group_sizes = networks.RESNETS[50]
  for group, n_blocks in enumerate(group_sizes, start=2):
    filters = 64 * 2 ** (group - 2)
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
        layers.append(Layer(f'{name}1', _conv(size, 1, c_in, 4 * filters, stride)))
      size, c_in = out_size, 4 * filters
  layers.append(Layer('fc1000', FullyConnected((c_in, num_classes), True, 'relu')))
  return _keras_network(layers, width, {})


def mobilenet_v1_keras(
  width: float = 1.0, input_size: int = 224, num_classes: int = 1000
) -> Network:
  """MobileNet-v1 with the names conv1, conv_dw_1, conv_pw_1, ..., conv_preds.

  The depthwise layers are dense unless a custom sparsity says otherwise.
  """
  # The inputs of strided layers have one more row and column of zeros.
  layers = [Layer('conv1', _conv(input_size + 1, 3, 3, 32, 2))]
  size, c_in = -(-input_size // 2), 32
  for i, (c_out, stride) in enumerate(networks.MOBILENET_V1, start=1):
    depthwise = DepthWiseConv2D(
      size + stride - 1, (3, 3, c_in, 1), (stride, stride), 'same', True, 'relu'
    )
    size = -(-size // stride)
    layers += [
      Layer(f'conv_dw_{i}', depthwise),
      Layer(f'conv_pw_{i}', _conv(size, 1, c_in, c_out, 1)),
    ]
    c_in = c_out
  layers.append(Layer('conv_preds', _conv(1, 1, c_in, num_classes, 1)))
  factors = {layer.name: 0.0 for layer in layers if layer.name.startswith('conv_dw')}
  return _keras_network(layers, width, factors)

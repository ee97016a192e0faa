"""Channels at other widths, derived here: of the graphs and of the counter."""

from __future__ import annotations

import fractions
import math

import pytest

from rigl.compat import tf
from rigl.micronet import architectures
from tests import combinations, networks

WIDTHS = [0.28, 0.35, 0.56, 0.75, 0.84, 1.4, 1.98]


def exact(width):
  """The decimal number, of which a float is the nearest."""
  return fractions.Fraction(str(width))


def multiple_of_8(asked):
  """The nearest, or the next one above if it is more than a tenth below."""
  nearest = 8 * max(1, math.floor(asked / 8 + fractions.Fraction(1, 2)))
  return nearest if nearest >= asked * 9 / 10 else nearest + 8


def mobilenet(width, first_block, others):
  """Channels of the initial convolution and of all blocks."""
  return [
    multiple_of_8(32 * exact(width)),
    math.floor(first_block * exact(width)),
    *(multiple_of_8(math.floor(n * exact(width))) for n in others),
  ]


def mobilenet_v1(width):
  channels = mobilenet(width, 64, [128, 128, 256, 256, *6 * [512], 1024, 1024])
  return {
    layer: n
    for layer, n in zip(['initial_conv', *(f'contraction_1x1_{i}' for i in range(13))], channels)
  }


def mobilenet_v2(width):
  channels = mobilenet(width, 16, [*2 * [24], *3 * [32], *4 * [64], *3 * [96], *3 * [160], 320])
  layers = {
    layer: n
    for layer, n in zip(['initial_conv', *(f'contraction_1x1_{i}' for i in range(17))], channels)
  }
  # Each block but the first works on six times its inputs.
  layers.update({f'expand_1x1_{i}': 6 * layers[f'contraction_1x1_{i - 1}'] for i in range(1, 17)})
  layers['final_1x1_conv'] = max(1280, multiple_of_8(1280 * exact(width)))
  return layers


def resnet18(width):
  layers = {'initial_conv': math.floor(64 * exact(width))}
  for group in (1, 2, 3, 4):
    filters = math.floor(32 * 2**group * exact(width))
    first = f'block_group_projection_block_group{group}'
    layers[f'residual_projection_{first}'] = filters
    for block in (first, f'block_group{group}_1_1'):
      layers[f'residual_1_{block}'] = layers[f'residual_2_{block}'] = filters
  return layers


def vgg_a(width):
  filters = {
    'conv1_1': 64,
    'conv2_1': 128,
    'conv3_1': 256,
    'conv3_2': 256,
    'conv4_1': 512,
    'conv4_2': 512,
    'conv5_1': 512,
    'conv5_2': 512,
  }
  return {f'{layer[:5]}/{layer}': math.floor(n * exact(width)) for layer, n in filters.items()}


EXPECTED = {
  'mobilenet_v1': mobilenet_v1,
  'mobilenet_v2': mobilenet_v2,
  'resnet18': resnet18,
  'vgg_a': vgg_a,
}


@pytest.mark.parametrize(
  'width, initial, block_of_v1, block_of_v2',
  [
    # 8 is more than a tenth below 8.96 and 11.2, as is 16 below 17.92 and 24
    # below 26.88.
    (0.28, 16, 17, 4),
    (0.35, 16, 22, 5),
    (0.56, 24, 35, 8),
    (0.75, 24, 48, 12),
    (0.84, 32, 53, 13),
    (1.4, 48, 89, 22),
    (1.98, 64, 126, 31),
  ],
)
def test_first_layers_by_hand(width, initial, block_of_v1, block_of_v2):
  for layers, block in ((mobilenet_v1(width), block_of_v1), (mobilenet_v2(width), block_of_v2)):
    assert layers['initial_conv'] == initial
    assert layers['contraction_1x1_0'] == block


@pytest.mark.parametrize('network, width', combinations.thinned(EXPECTED, WIDTHS))
def test_channels(network, width):
  """A convolution has its channels, and the next one these as its inputs."""
  expected = EXPECTED[network](width)
  scope = 'vgg_a' if network == 'vgg_a' else 'resnet_model'
  counted = architectures.get_network(network, width).shapes
  last = list(counted)[-1]
  assert {
    layer: shape[-1]
    for layer, shape in counted.items()
    if layer != last and 'depthwise' not in layer
  } == {f'{scope}/{layer}': n for layer, n in expected.items()}
  with tf.Graph().as_default():
    networks.build(
      network,
      32,
      is_training=False,
      width=width,
      pruning_method='threshold',
      prune_first_layer=True,
    )
    built = {
      name.rpartition('/')[0]: tuple(shape)
      for name, shape in networks.variable_shapes().items()
      if name.endswith(('/mask', '/depthwise_weights'))
    }
  assert built == counted

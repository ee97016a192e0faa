"""Tests of the network descriptions."""

import json
import math

import pytest

from rigl import str_sparsities
from rigl.core import distributions
from rigl.micronet import architectures, model_ops, network
from rigl.micronet.counting import Add, Conv2D, GlobalAvg
from tests.conftest import GOLDENS

KERNELS = json.loads((GOLDENS / 'kernel_variables.json').read_text())
NAMES = [
  *(name for name in architectures.ARCHITECTURES if name != 'wrn_D_K'),
  'wrn_16_4',
  'wrn_22_2',
  'wrn_10_1',
]


def _layer_name(variable):
  """Drops the variable's own name and the repeated scope of unmasked layers."""
  *scopes, _ = variable.split('/')
  if scopes[-1:] == scopes[-2:-1]:
    scopes.pop()
  return '/'.join(scopes)


@pytest.mark.parametrize('name', [key for key in KERNELS if key != 'note'])
class TestAgainstTrainingGraphs:
  def test_names_and_shapes_in_order(self, name):
    expected = [
      (_layer_name(variable), tuple(shape)) for variable, shape in KERNELS[name]['kernels']
    ]
    assert list(architectures.get_network(name).shapes.items()) == expected

  def test_layers_without_a_mask_are_dense_by_default(self, name):
    net = architectures.get_network(name)
    masked = {mask.rpartition('/')[0] for mask in KERNELS[name]['masks']}
    dense = {layer for layer, factor in net.sparsity_factors.items() if factor == 0.0}
    if name == 'lenet_300_100':
      # Masked, but with a sparsity of zero.
      masked -= {'layer3'}
    assert set(net.shapes) - dense == masked


def test_all_reference_networks_are_tested():
  assert len(KERNELS) == 13


class TestResNet50:
  def test_published_numbers(self):
    for name in ('resnet50', 'resnet50_keras'):
      net = architectures.get_network(name)
      count = network.count_network(net.weighted_layers)
      assert count.n_weights == 25_502_912
      assert len(count.layers) == 54
      assert f'{count.flops:.1e}' == '8.2e+09'
      assert f'{count.megabytes:.3f}' == '102.122'

  def test_both_naming_schemes_have_the_same_layers(self):
    graph = architectures.get_network('resnet50')
    keras = architectures.get_network('resnet50_keras')
    assert sorted(graph.shapes.values()) == sorted(keras.shapes.values())
    assert list(keras.shapes)[:5] == [
      'conv1',
      'res2a_branch2a',
      'res2a_branch2b',
      'res2a_branch2c',
      'res2a_branch1',
    ]
    assert list(keras.shapes)[-1] == 'fc1000'

  def test_image_sizes_differ_only_in_the_first_layer(self):
    # Keras pads the image before the first convolution.
    graph = architectures.get_network('resnet50').weighted_layers
    keras = architectures.get_network('resnet50_keras').weighted_layers
    graph_ops = sorted(map(repr, (layer.op for layer in graph[1:])))
    keras_ops = sorted(map(repr, (layer.op for layer in keras[1:])))
    assert graph_ops == keras_ops
    assert (graph[0].op.input_size, keras[0].op.input_size) == (224, 230)

  def test_names_fit_the_str_table(self):
    net = architectures.get_network('resnet50')
    assert tuple(net.shapes) == str_sparsities.LAYER_NAMES
    sparsities = distributions.get_sparsities(net.shapes, 'str', 0.9805)
    count = network.count_network(net.weighted_layers, sparsities)
    assert count.real_sparsity == pytest.approx(0.9805, abs=1e-4)


class TestSizes:
  @pytest.mark.parametrize(
    'name, last_size, channels',
    [
      ('resnet18', 7, 512),
      ('resnet152', 7, 2048),
      ('mobilenet_v1', 7, 1024),
      ('mobilenet_v2', 7, 1280),
      ('vgg_16', 14, 512),
      ('wrn_22_2', 8, 128),
    ],
  )
  def test_global_average(self, name, last_size, channels):
    layers = architectures.get_network(name).layers
    ops = [layer.op for layer in layers if isinstance(layer.op, GlobalAvg)]
    assert ops == [GlobalAvg(last_size, channels)]

  @pytest.mark.parametrize(
    'name, n_adds',
    [
      ('resnet18', 8),
      ('resnet50', 16),
      ('resnet200', 66),
      ('mobilenet_v2', 10),
      ('wrn_16_4', 6),
      ('vgg_19', 0),
    ],
  )
  def test_residual_additions(self, name, n_adds):
    layers = architectures.get_network(name).layers
    assert sum(isinstance(layer.op, Add) for layer in layers) == n_adds

  def test_input_size(self):
    small = network.count_network(architectures.get_network('resnet50', input_size=112).layers)
    large = network.count_network(architectures.get_network('resnet50').layers)
    assert small.n_weights == large.n_weights
    # A quarter, but for the last image of 4x4 instead of 3.5x3.5.
    assert 0.25 < small.flops / large.flops < 0.27

  @pytest.mark.parametrize('name', ['resnet50', 'vgg_16', 'wrn_16_4'])
  def test_width_scales_the_flops_quadratically(self, name):
    flops = [
      network.count_network(architectures.get_network(name, width=width).layers).flops
      for width in (1.0, 2.0)
    ]
    assert 3.5 < flops[1] / flops[0] < 4

  def test_width_of_mobilenet_is_divisible_by_eight(self):
    net = architectures.get_network('mobilenet_v1', width=0.3)
    widths = [
      layer.op.kernel_shape[3] for layer in net.weighted_layers if isinstance(layer.op, Conv2D)
    ]
    # The first block is not rounded: int(0.3 * 64) = 19.
    assert widths[:5] == [16, 19, 40, 40, 80]

  def test_mobilenet_v2_never_narrows_its_last_convolution(self):
    shapes = architectures.get_network('mobilenet_v2', width=0.5).shapes
    assert shapes['resnet_model/final_1x1_conv'] == (1, 1, 160, 1280)

  def test_narrow_wide_resnet_needs_no_skip_convolution(self):
    shapes = architectures.get_network('wrn_10_1').shapes
    skips = [name for name in shapes if 'skip' in name]
    assert skips == ['resnet_model/skip_conv_3', 'resnet_model/skip_conv_4']

  def test_lenet_at_another_input_size(self):
    net = architectures.get_network('lenet_300_100', width=0.5, input_size=14)
    assert list(net.shapes.values()) == [(196, 150), (150, 50), (50, 10)]


@pytest.mark.parametrize('name', NAMES)
class TestEveryNetwork:
  def test_count_is_additive_over_layers(self, name):
    layers = architectures.get_network(name).layers
    whole = network.count_network(layers)
    parts = [network.count_network([layer]) for layer in layers]
    assert whole.flops == pytest.approx(sum(part.flops for part in parts))
    assert whole.megabytes == pytest.approx(sum(part.megabytes for part in parts))
    assert whole.n_weights == sum(part.n_weights for part in parts)

  def test_uniform_flops_are_linear_in_the_density(self, name):
    net = architectures.get_network(name)

    def flops(sparsity):
      sparsities = dict.fromkeys(net.shapes, sparsity)
      return network.count_network(net.layers, sparsities).flops

    assert flops(0.7) == pytest.approx(0.3 * flops(0.0) + 0.7 * flops(1.0))

  def test_channels_fit_together(self, name):
    net = architectures.get_network(name)
    assert net.first_layer == next(iter(net.shapes))
    assert net.last_layer == list(net.shapes)[-1]
    assert set(net.sparsity_factors) <= set(net.shapes)
    assert all(min(shape) > 0 for shape in net.shapes.values())

  def test_other_number_of_classes(self, name):
    net = architectures.get_network(name, num_classes=17)
    assert net.shapes[net.last_layer][-1] == 17


class TestErrors:
  @pytest.mark.parametrize('name', ['resnet51', 'wrn_16', 'wrn_D_K', ''])
  def test_unknown_architecture_lists_the_options(self, name):
    with pytest.raises(ValueError, match='Unknown architecture.*resnet50, '):
      architectures.get_network(name)

  @pytest.mark.parametrize('key', ['width', 'input_size', 'num_classes'])
  def test_sizes_must_be_positive(self, key):
    with pytest.raises(ValueError, match=f'{key} must be > 0, got 0'):
      architectures.get_network('resnet50', **{key: 0})

  @pytest.mark.parametrize(
    'name, width, message',
    [
      ('resnet50', 0.001, r"resnet50 at width 0.001 .*'resnet_model/initial_conv'.*3, 0\)"),
      ('wrn_16_0', None, "wrn_16_0 has .*'resnet_model/skip_conv_2'"),
      ('lenet_300_100', 0.004, "'layer2' of shape"),
      ('resnet50_keras', 0.01, "'conv1' of shape"),
    ],
  )
  def test_layer_without_channels(self, name, width, message):
    with pytest.raises(ValueError, match=message):
      architectures.get_network(name, width=width)

  def test_image_that_vanishes(self):
    with pytest.raises(ValueError, match='input_size 15 .* vgg_16: pooling 4'):
      architectures.get_network('vgg_16', input_size=15)
    layers = architectures.get_network('vgg_16', input_size=16).layers
    (average,) = [layer.op for layer in layers if isinstance(layer.op, GlobalAvg)]
    assert average.input_size == 1

  def test_depths(self):
    with pytest.raises(ValueError, match=r'6n \+ 4, got 17'):
      architectures.get_network('wrn_17_2')
    with pytest.raises(ValueError, match='depth .* 51 is not one of 18, 34, '):
      model_ops.resnet(51)
    with pytest.raises(ValueError, match="'vgg_b'.*vgg_a"):
      model_ops.vgg('vgg_b')

  def test_sparsity_of_an_unknown_layer(self):
    layers = architectures.get_network('lenet_300_100').layers
    with pytest.raises(ValueError, match=r"\['layer9'\].*'layer1'"):
      network.count_network(layers, {'layer9': 0.5})

  def test_two_layers_of_one_name(self):
    layers = architectures.get_network('lenet_300_100').layers
    with pytest.raises(ValueError, match="Two layers are named 'layer1'"):
      network.count_network([*layers, layers[0]])


class TestCountNetwork:
  layers = architectures.get_network('lenet_300_100').layers

  def test_sparsities_by_hand(self):
    count = network.count_network(self.layers, {'layer1': 0.98})
    layer1, layer2, _ = count.layers
    assert (layer1.n_weights, layer1.n_kept) == (235_200, 4_704)
    assert layer2.n_kept == 30_000
    # 300 neurons with 0.02 * 784 inputs: L mults, L - 1 adds, bias, ReLU.
    assert layer1.flops == pytest.approx(300 * (2 * 0.02 * 784 + 1))
    assert count.real_sparsity == pytest.approx(230_496 / 266_200)

  def test_zeros_of_real_masks_are_exact(self):
    # From the sparsity alone, floor would make one zero less.
    assert math.floor(31 / 235_200 * 235_200) == 30
    count = network.count_network(self.layers, n_zeros={'layer1': 31})
    assert count.layers[0].n_kept == 235_200 - 31
    assert count.layers[0].sparsity == 31 / 235_200

  def test_param_bits(self):
    half = network.count_network(self.layers, param_bits=16)
    assert half.megabytes == network.count_network(self.layers).megabytes / 2

  @pytest.mark.parametrize('bits', [0, -1])
  def test_impossible_param_bits(self, bits):
    message = f'^param_bits must be > 0, got {bits}'
    for layers in (self.layers, []):
      with pytest.raises(ValueError, match=message):
        network.count_network(layers, param_bits=bits)

  def test_no_layers(self):
    count = network.count_network([])
    assert (count.flops, count.megabytes, count.real_sparsity) == (0, 0, 0)

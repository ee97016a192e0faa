"""MobileNet v1 and v2: reference graphs, inference in numpy, and options."""

from __future__ import annotations

import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import mobilenetv1_model, mobilenetv2_model
from rigl.model_pruning import pruning
from tests import networks
from tests.reference import networks as reference_networks

NETWORKS = ['mobilenet_v1', 'mobilenet_v2']
BUILDERS = [mobilenetv1_model.mobilenet_v1, mobilenetv2_model.mobilenet_v2]


@pytest.mark.parametrize('network', NETWORKS)
def test_graph_is_that_of_the_published_checkpoints(network):
  golden = networks.load_golden(network)
  with tf.Graph().as_default():
    networks.build(network, pruning_method='threshold')
    networks.assert_graph_is(golden)
    networks.assert_initial_values(golden)


@pytest.mark.parametrize('network', NETWORKS)
def test_unmasked_last_layer(network):
  with tf.Graph().as_default():
    networks.build(network, pruning_method='threshold', prune_last_layer=False)
    networks.assert_variant(networks.load_golden(network), 'prune_last_layer=False')


@pytest.mark.parametrize(
  'network, size, prune_last_layer', [('mobilenet_v1', 33, False), ('mobilenet_v2', 48, True)]
)
def test_inference_is_that_of_numpy(network, size, prune_last_layer):
  networks.assert_inference_is(
    network,
    getattr(reference_networks, network),
    size,
    width=0.25,
    prune_last_layer=prune_last_layer,
  )


@pytest.mark.parametrize('network', NETWORKS)
def test_ones_masks_change_nothing(network):
  networks.assert_ones_masks_change_nothing(network, width=0.25)


@pytest.mark.parametrize('network', NETWORKS)
def test_channels_first_builds(network):
  networks.assert_channels_first_builds(network, width=0.25)


@pytest.mark.parametrize('network', NETWORKS)
def test_first_layer_can_have_a_mask(network):
  with tf.Graph().as_default():
    networks.build(network, pruning_method='threshold', width=0.25, prune_first_layer=True)
    assert pruning.get_masks()[0].op.name == 'resnet_model/initial_conv/mask'
    assert 'resnet_model/initial_conv/weights' in networks.variable_shapes()


def test_baseline_names():
  with tf.Graph().as_default():
    networks.build('mobilenet_v1', width=0.25, pruning_method='baseline')
    names = networks.variable_shapes()
    assert not pruning.get_masks()
  assert 'resnet_model/initial_conv/kernel' in names
  assert 'resnet_model/contraction_1x1_3/contraction_1x1_3/weights' in names
  assert 'resnet_model/depthwise_nxn_3/depthwise_weights' in names
  assert 'resnet_model/final_dense/bias' in names


def _n_channels(network, layers, **arguments):
  with tf.Graph().as_default():
    networks.build(network, pruning_method='threshold', **arguments)
    shapes = networks.variable_shapes()
  return [
    shapes.get(f'resnet_model/{layer}/weights', shapes.get(f'resnet_model/{layer}/kernel'))[-1]
    for layer in layers
  ]


def test_width_of_v1():
  layers = [
    'initial_conv',
    'contraction_1x1_0',
    'contraction_1x1_1',
    'contraction_1x1_3',
    'contraction_1x1_12',
  ]
  # 9.6, 19.2, 38.4, 76.8 and 307.2, made multiples of 8; the first block's is
  # only truncated.
  assert _n_channels('mobilenet_v1', layers, width=0.3) == [16, 19, 40, 80, 304]


def test_width_and_expansion_of_v2():
  layers = [
    'initial_conv',
    'contraction_1x1_0',
    'expand_1x1_1',
    'contraction_1x1_16',
    'final_1x1_conv',
  ]
  # 24, 12, 4.5 * 12, 240 and 960 channels, but never fewer than 1280 features.
  # 12 is no multiple of 8: the first block is only truncated.
  assert _n_channels('mobilenet_v2', layers, width=0.75, expansion_factor=4.5) == [
    24,
    12,
    54,
    240,
    1280,
  ]
  assert _n_channels('mobilenet_v2', ['final_1x1_conv'], width=1.4) == [1792]


@pytest.mark.parametrize('network', NETWORKS)
def test_narrowest_width(network):
  """Channels are at least 8, in the first block 1, so that none is without."""
  layers = ['initial_conv', 'contraction_1x1_0', 'contraction_1x1_1']
  assert _n_channels(network, layers, width=0.001) == [8, 1, 8]


@pytest.mark.parametrize('builder', BUILDERS)
@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'pruning_method': 'rigl'}, "pruning_method 'rigl'"),
    ({'init_method': 'he'}, "init_method 'he'"),
    ({'data_format': 'NHWC'}, "data_format 'NHWC'"),
    ({'width': -1.0}, 'width must be > 0, got -1.0'),
    ({'width': float('nan')}, 'width must be > 0, got nan'),
  ],
)
def test_wrong_arguments(builder, arguments, message):
  with pytest.raises(ValueError, match=message):
    builder(num_classes=7, **arguments)


@pytest.mark.parametrize(
  'value, message',
  [
    (0.5, 'must be >= 1, got 0.5'),
    (float('nan'), 'must be >= 1, got nan'),
    (float('inf'), 'must be finite, got inf'),
  ],
)
def test_wrong_expansion_factor(value, message):
  with pytest.raises(ValueError, match=f'expansion_factor {message}'):
    mobilenetv2_model.mobilenet_v2(7, expansion_factor=value)

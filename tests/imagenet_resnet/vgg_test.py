"""VGG: reference graphs, inference in numpy, and options."""

from __future__ import annotations

import math

import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import vgg
from rigl.model_pruning import pruning
from tests import networks
from tests.reference import networks as reference_networks


@pytest.mark.parametrize('network', ['vgg_a', 'vgg_16', 'vgg_19'])
def test_graph_is_that_of_the_published_checkpoints(network):
  with tf.Graph().as_default():
    networks.build(network, pruning_method='threshold')
    networks.assert_graph_is(networks.load_golden(network))


def test_initial_values():
  with tf.Graph().as_default():
    networks.build('vgg_16', pruning_method='threshold')
    networks.assert_initial_values(networks.load_golden('vgg_16'))


def test_unmasked_last_layer():
  """It has biases, Glorot-uniform weights and no weight decay."""
  with tf.Graph().as_default():
    networks.build('vgg_16', pruning_method='threshold', prune_last_layer=False)
    networks.assert_variant(
      networks.load_golden('vgg_16'),
      'prune_last_layer=False',
      not_regularized=['vgg_16/fc8/weights'],
    )
    weights, biases = tf.trainable_variables('vgg_16/fc8')
    with networks.initialized_session() as session:
      weights, biases = session.run([weights, biases])
  n_in, n_out = weights.shape[2:]
  limit = math.sqrt(6 / (n_in + n_out))
  networks.assert_distribution(weights, 'uniform', -limit, limit)
  assert not biases.any()


def test_baseline_has_no_masks_and_all_scopes_doubled():
  with tf.Graph().as_default():
    networks.build('vgg_a', pruning_method='baseline', width=0.125)
    names = list(networks.variable_shapes())
    assert not pruning.get_masks()
    assert networks.n_regularizers() == len(names) == 9
  for name in names:
    *_, outer, inner, leaf = name.split('/')
    assert (outer, leaf) == (inner, 'weights')


def test_unmasked_first_layer():
  with tf.Graph().as_default():
    networks.build('vgg_a', pruning_method='threshold', width=0.125, prune_first_layer=False)
    assert 'vgg_a/conv1/conv1_1/conv1_1/weights' in networks.variable_shapes()
    assert pruning.get_masks()[0].op.name == 'vgg_a/conv2/conv2_1/mask'


@pytest.mark.parametrize(
  'network, size, prune_last_layer', [('vgg_a', 16, True), ('vgg_16', 70, False)]
)
def test_inference_is_that_of_numpy(network, size, prune_last_layer):
  group_sizes = {'vgg_a': (1, 1, 2, 2, 2), 'vgg_16': (2, 2, 3, 3, 3)}[network]

  def reference(values, x):
    return reference_networks.vgg(values, x, group_sizes)

  networks.assert_inference_is(
    network, reference, size, width=0.125, prune_last_layer=prune_last_layer
  )


def test_ones_masks_change_nothing():
  networks.assert_ones_masks_change_nothing('vgg_a', width=0.125)


def test_channels_first_builds():
  networks.assert_channels_first_builds('vgg_a', width=0.125)


@pytest.mark.parametrize(
  'size, expected',
  [
    # 224 -> 112 -> 56 -> 28 -> 14, and 16 -> 8 -> 4 -> 2 -> 1.
    (224, 14),
    (16, 1),
    # An odd row is left over: 70 -> 35 -> 17 -> 8 -> 4.
    (70, 4),
  ],
)
@pytest.mark.parametrize('network', ['vgg_a', 'vgg_16', 'vgg_19'])
def test_average_after_four_poolings(network, size, expected):
  with tf.Graph().as_default() as graph:
    networks.build(network, size, width=0.125)
    by_type = {}
    for op in graph.get_operations():
      by_type.setdefault(op.type, []).append(op)
    assert len(by_type['MaxPool']) == 4
    (average,) = by_type['Mean']
    assert average.inputs[0].shape.as_list() == [2, expected, expected, 64]
    # With nothing between it and the last convolution but the ReLU.
    assert average.inputs[0].op.inputs[0].op is by_type['Conv2D'][-2]


def test_image_that_is_too_small():
  """15 -> 7 -> 3 -> 1 -> nothing."""
  assert vgg.MIN_SIZE == 16
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match='16x16 pixels, not 15x64'):
      networks.make_model('vgg_a')(tf.zeros([2, 15, 64, 3]), True)
    with pytest.raises(ValueError, match='16x16 pixels, not 64x15'):
      networks.make_model('vgg_a', data_format='channels_first')(tf.zeros([2, 3, 64, 15]), True)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'vgg_type': 'vgg_13'}, "vgg_type 'vgg_13' .* vgg_a, vgg_16, vgg_19"),
    ({'pruning_method': 'rigl'}, "pruning_method 'rigl'"),
    ({'init_method': 'he'}, "init_method 'he'"),
    ({'data_format': 'NHWC'}, "data_format 'NHWC'"),
    ({'width': 0}, 'width must be > 0, got 0'),
    ({'width': 0.01}, 'width 0.01 leaves none of 64 channels'),
  ],
)
def test_wrong_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    vgg.vgg(7, **{'vgg_type': 'vgg_a', **arguments})

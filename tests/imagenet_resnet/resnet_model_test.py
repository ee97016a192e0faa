"""ResNet: the reference graphs, inference in numpy, and options."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import resnet_model
from rigl.model_pruning import pruning
from rigl.networks import RESNETS
from tests import networks
from tests.reference import networks as reference_networks


@pytest.mark.parametrize(
  'network, prune_first_layer',
  [
    ('resnet18', False),
    ('resnet34', False),
    ('resnet50', False),
    ('resnet101', False),
    ('resnet50_prune_first_layer', True),
  ],
)
def test_graph_is_that_of_the_published_checkpoints(network, prune_first_layer):
  golden = networks.load_golden(network)
  depth = network.partition('_')[0]
  with tf.Graph().as_default():
    networks.build(depth, pruning_method='threshold', prune_first_layer=prune_first_layer)
    networks.assert_graph_is(golden)
    if network in ('resnet18', 'resnet50'):
      networks.assert_initial_values(golden)


def test_unmasked_last_layer():
  with tf.Graph().as_default():
    networks.build(
      'resnet50', pruning_method='threshold', prune_first_layer=False, prune_last_layer=False
    )
    networks.assert_variant(networks.load_golden('resnet50'), 'prune_last_layer=False')


def test_baseline_has_no_masks_and_all_scopes_doubled():
  with tf.Graph().as_default():
    networks.build('resnet18', pruning_method='baseline', width=0.125)
    assert not pruning.get_masks()
    kernels = [name for name in networks.variable_shapes() if name.endswith('/weights')]
    assert len(kernels) == 22
    for name in kernels:
      _, outer, inner, _ = name.split('/')
      assert outer == inner


@pytest.mark.parametrize(
  'network, group_sizes, is_bottleneck, size',
  [
    ('resnet18', (2, 2, 2, 2), False, 33),
    ('resnet18', (2, 2, 2, 2), False, 64),
    ('resnet50', (3, 4, 6, 3), True, 40),
  ],
)
def test_inference_is_that_of_numpy(network, group_sizes, is_bottleneck, size):

  def reference(values, x):
    return reference_networks.resnet(values, x, group_sizes, is_bottleneck)

  networks.assert_inference_is(network, reference, size, width=0.125)


def test_first_and_last_layer_without_mask_in_numpy():

  def reference(values, x):
    assert 'initial_conv/mask' not in values
    assert 'final_dense/mask' not in values
    return reference_networks.resnet(values, x, (2, 2, 2, 2), False)

  networks.assert_inference_is(
    'resnet18', reference, 32, width=0.125, prune_first_layer=False, prune_last_layer=False
  )


@pytest.mark.parametrize('is_training', [False, True])
def test_ones_masks_change_nothing(is_training):
  networks.assert_ones_masks_change_nothing('resnet18', width=0.125, is_training=is_training)


def test_channels_first_builds():
  networks.assert_channels_first_builds('resnet18', width=0.125)


def test_channels_first_is_the_default():
  with tf.Graph().as_default():
    model = resnet_model.resnet_v1_(18, 7, width=0.125)
    assert model(tf.zeros([2, 3, 32, 64]), True).shape.as_list() == [2, 7]


def test_width_scales_the_channels():
  with tf.Graph().as_default():
    networks.build('resnet18', width=0.3)
    widths = [
      shape[-1]
      for name, shape in networks.variable_shapes().items()
      if 'residual_2' in name and name.endswith('/weights')
    ]
  # int(64 * 2**i * 0.3)
  assert widths == [19, 19, 38, 38, 76, 76, 153, 153]


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152, 200])
def test_depth_counts_the_layers_with_weights(depth):
  kind, group_sizes = RESNETS[depth]
  n_per_block = {'residual': 2, 'bottleneck': 3}[kind]
  assert 2 + n_per_block * sum(group_sizes) == depth


def test_name_and_reuse():
  with tf.Graph().as_default():
    model = networks.make_model(
      'resnet18', num_classes=7, width=0.125, pruning_method='threshold', name='net'
    )
    images = tf.constant(networks.images([2, 32, 32, 3]))
    model(images, True)
    names = list(networks.variable_shapes())
    n_updates = len(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
    n_regularizers = networks.n_regularizers()
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      model(images, False)
    assert list(networks.variable_shapes()) == names
    assert all(name.startswith('net/') for name in names)
    assert len(pruning.get_masks()) == 22
    assert networks.n_regularizers() == n_regularizers == 22
    # Two for each normalization, and only of the training graph.
    assert n_updates == 2 * 21
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == n_updates


def test_inference_treats_images_apart_and_training_does_not():
  with tf.Graph().as_default():
    model = networks.make_model('resnet18', num_classes=7, width=0.125)
    images = tf.placeholder(tf.float32, [None, 64, 64, 3])
    training = model(images, True)
    with tf.variable_scope(tf.get_variable_scope(), reuse=True):
      inference = model(images, False)
    x = networks.images([4, 64, 64, 3])
    with networks.initialized_session() as session:

      def run(logits, batch):
        return session.run(logits, {images: batch})

      np.testing.assert_allclose(run(inference, x)[:1], run(inference, x[:1]), atol=1e-5)
      assert np.abs(run(training, x)[:1] - run(training, x[:1])).max() > 1e-3
      # The moving averages reach inference through UPDATE_OPS alone.
      before = run(inference, x)
      run(training, x)
      np.testing.assert_array_equal(run(inference, x), before)
      run(tf.get_collection(tf.GraphKeys.UPDATE_OPS), x)
      assert np.abs(run(inference, x) - before).max() > 1e-3


def test_bfloat16_keeps_float32_variables():
  with tf.Graph().as_default():
    images, logits = networks.build(
      'resnet18', 32, dtype=tf.bfloat16, width=0.125, is_training=True
    )
    assert logits.dtype == tf.bfloat16
    assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
    with networks.initialized_session() as session:
      x = networks.images([2, 32, 32, 3])
      assert np.isfinite(session.run(logits, {images: x}).astype(np.float32)).all()


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'resnet_depth': 20}, 'resnet_depth 20 .*18, 34, 50, 101, 152, 200'),
    ({'pruning_method': 'rigl'}, "pruning_method 'rigl' .* threshold"),
    ({'init_method': 'he'}, "init_method 'he' .* random_zeros"),
    ({'data_format': 'NHWC'}, "data_format 'NHWC' .* channels_first"),
    ({'width': 0.0}, 'width must be > 0, got 0.0'),
    ({'width': 0.01}, 'width 0.01 leaves none of 64 channels'),
    ({'end_sparsity': 1.0}, 'end_sparsity of every layer must be .* got 1.0'),
    ({'weight_decay': -1.0}, 'weight_decay must be >= 0, got -1.0'),
  ],
)
def test_wrong_arguments(arguments, message):
  arguments = {'resnet_depth': 18, **arguments}
  with pytest.raises(ValueError, match=message):
    resnet_model.resnet_v1_(num_classes=7, **arguments)

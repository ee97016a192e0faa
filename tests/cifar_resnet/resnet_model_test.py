"""WideResNet: reference graphs, inference in numpy, dropout, and options."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.cifar_resnet import resnet_model
from rigl.compat import tf, tf2
from rigl.model_pruning import pruning
from tests import networks
from tests.reference import networks as reference_networks

VARIANTS = {
  'prune_first_layer=True': {'prune_first_layer': True},
  'prune_last_layer=False': {'prune_last_layer': False},
  'pruning_method=baseline': {'pruning_method': 'baseline'},
}


def _build(network, **arguments):
  networks.build(
    network, size=32, **{'pruning_method': 'threshold', 'prune_first_layer': False, **arguments}
  )


@pytest.mark.parametrize('network', ['wrn_16_4', 'wrn_22_2'])
def test_graph_is_that_of_the_reference(network):
  golden = networks.load_golden(network)
  with tf.Graph().as_default():
    _build(network)
    networks.assert_graph_is(golden)
    if 'initial' in golden:
      networks.assert_initial_values(golden)


@pytest.mark.parametrize('network', ['wrn_16_4', 'wrn_22_2'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_variants(network, variant):
  with tf.Graph().as_default():
    _build(network, **VARIANTS[variant])
    networks.assert_variant(networks.load_golden(network), variant)
    assert bool(pruning.get_masks()) == ('baseline' not in variant)


def test_no_regularizer():
  with tf.Graph().as_default():
    _build('wrn_10_1', regularizer=None)
    assert networks.n_regularizers() == 0


def test_width_1_has_no_shortcut_convolution_in_the_first_group():
  with tf.Graph().as_default():
    _build('wrn_10_1')
    shortcuts = [
      name
      for name in networks.variable_shapes()
      if 'skip_conv' in name and name.endswith('weights')
    ]
  assert shortcuts == ['resnet_model/skip_conv_3/weights', 'resnet_model/skip_conv_4/weights']


@pytest.mark.parametrize('network, size', [('wrn_10_1', 32), ('wrn_16_2', 21)])
@pytest.mark.parametrize('pruned', [True, False])
def test_inference_is_that_of_numpy(network, size, pruned):
  depth = int(network.split('_')[1])

  def reference(values, x):
    return reference_networks.wide_resnet(values, x, depth)

  networks.assert_inference_is(
    network, reference, size, prune_first_layer=pruned, prune_last_layer=pruned
  )


def test_convolutions_pad_as_same_and_batch_norm_is_not_fused():
  with tf.Graph().as_default() as graph:
    _build('wrn_10_2')
    operations = graph.get_operations()
  assert {op.get_attr('padding') for op in operations if op.type == 'Conv2D'} == {b'SAME'}
  assert not {'Pad', 'FusedBatchNormV3'} & {op.type for op in operations}


@pytest.mark.parametrize('is_training', [True, False])
def test_ones_masks_change_nothing(is_training):
  networks.assert_ones_masks_change_nothing('wrn_10_2', is_training=is_training, droprate=0.0)


def test_channels_first_builds():
  networks.assert_channels_first_builds('wrn_10_2')


def test_name():
  with tf.Graph().as_default():
    resnet_model.WideResNetModel(True).build(tf.zeros([1, 32, 32, 3]), 10, 1, 10, name='net')
    assert all(v.op.name.startswith('net/') for v in tf.global_variables())


@pytest.mark.parametrize('depth', [4, 9, 11, 15, 18])
def test_wrong_depth(depth):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=f'6n . 4 .*got {depth}'):
      resnet_model.WideResNetModel(True).build(tf.zeros([1, 32, 32, 3]), depth, 1, 10)
    assert not tf.global_variables()


@pytest.mark.parametrize('width', [0, float('nan')])
def test_wrong_width(width):
  with tf.Graph().as_default(), pytest.raises(ValueError, match=f'width must be > 0, got {width}'):
    resnet_model.WideResNetModel(True).build(tf.zeros([1, 32, 32, 3]), 10, width, 10)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'pruning_method': 'rigl'}, "pruning_method 'rigl' .* threshold"),
    ({'data_format': 'NHWC'}, "data_format 'NHWC' .* channels_first"),
    ({'droprate': 1.0}, r'droprate must be in \[0, 1\), got 1.0'),
    ({'droprate': -0.1}, 'droprate must be .*, got -0.1'),
  ],
)
def test_wrong_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    resnet_model.WideResNetModel(True, **arguments)


def _dropouts(
  is_training=True, droprate=0.3, seed=0, steps=(0,), names=('a',), has_step=True, jit_compile=None
):
  """Dropout of ones, as an array [step, name, 100, 100]."""
  with tf.Graph().as_default():
    tf.set_random_seed(seed)
    step = tf.train.get_or_create_global_step() if has_step else None
    model = resnet_model.WideResNetModel(is_training, droprate=droprate)

    def drop():
      return tf.stack([model.dropout(tf.ones([100, 100]), name) for name in names])

    outputs = drop() if jit_compile is None else tf2.function(drop, jit_compile=jit_compile)()
    results = []
    with networks.initialized_session() as session:
      for value in steps:
        if has_step:
          step.load(value, session)
        results.append(session.run(outputs))
  return np.stack(results)


def test_dropout_keeps_the_expectation():
  values = _dropouts(droprate=0.3)
  np.testing.assert_allclose(np.unique(values), [0.0, 1 / 0.7], rtol=1e-6)
  # Five standard errors of a mean over 10,000 draws.
  assert abs((values == 0).mean() - 0.3) < 5 * (0.3 * 0.7 / 1e4) ** 0.5


@pytest.mark.parametrize('arguments', [{'is_training': False}, {'droprate': 0.0}])
def test_no_dropout(arguments):
  np.testing.assert_array_equal(_dropouts(**arguments), 1.0)


def test_dropout_is_a_function_of_layer_seed_and_step():
  values = _dropouts(steps=(0, 1, 0), names=('a', 'b'))
  np.testing.assert_array_equal(values[0], values[2])
  # A new graph, as after a restart.
  np.testing.assert_array_equal(_dropouts(steps=(1,)), values[1:2, :1])
  for other in (values[1, 0], values[0, 1], _dropouts(seed=1)[0, 0]):
    agreement = (values[0, 0] == other).mean()
    assert abs(agreement - (0.3**2 + 0.7**2)) < 0.03


def test_dropout_is_the_same_under_xla():
  np.testing.assert_array_equal(_dropouts(jit_compile=True, steps=(3,)), _dropouts(steps=(3,)))


def test_dropout_without_a_global_step_differs_between_runs():
  values = _dropouts(steps=(0, 1), has_step=False)
  assert abs((values == 0).mean() - 0.3) < 0.03
  assert (values[0] != values[1]).mean() > 0.3


def test_dropout_in_each_block():
  """Every block draws its own pattern, and only while training."""
  for is_training, n_expected in ((True, 6), (False, 0)):
    with tf.Graph().as_default() as graph:
      tf.train.get_or_create_global_step()
      networks.build('wrn_16_1', 32, is_training)
      draws = [
        op.outputs[0]
        for op in graph.get_operations()
        if op.type == 'StatelessRandomUniformFullIntV2' and op.outputs[0].shape.ndims == 4
      ]
      assert len(draws) == n_expected
      with networks.initialized_session() as session:
        first_bits = {bits.flat[0] for bits in session.run(draws)}
      assert len(first_bits) == n_expected

"""Builds the networks and compares their graphs with reference data."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from rigl.cifar_resnet import resnet_model as cifar_resnet_model
from rigl.compat import tf
from rigl.imagenet_resnet import mobilenetv1_model, mobilenetv2_model, resnet_model, vgg
from rigl.model_pruning import pruning
from rigl.training import checkpoints
from tests import quick_sessions

GOLDENS = pathlib.Path(__file__).parent / 'goldens'
NOT_TRAINED = {'mask', 'threshold', 'moving_mean', 'moving_variance'}
L2 = 1e-4


def load_golden(network):
  return json.loads((GOLDENS / f'variables_{network}.json').read_text())


def _l2(weights):
  return L2 * tf.nn.l2_loss(weights)


def _wide_resnet(depth, width, num_classes=10, regularizer=_l2, **arguments):
  def model(inputs, is_training):
    return cifar_resnet_model.WideResNetModel(is_training, regularizer, **arguments).build(
      inputs, depth, width, num_classes
    )

  return model


def make_model(network, **arguments):
  """fn(inputs, is_training) -> logits of a network named as the data are."""
  kind, _, rest = network.partition('_')
  arguments.setdefault('data_format', 'channels_last')
  if kind == 'wrn':
    return _wide_resnet(*map(int, rest.split('_')), **arguments)
  arguments.setdefault('weight_decay', L2)
  arguments.setdefault('num_classes', 1000)
  if kind == 'vgg':
    return vgg.vgg(vgg_type=network, **arguments)
  if network == 'mobilenet_v1':
    return mobilenetv1_model.mobilenet_v1(**arguments)
  if network == 'mobilenet_v2':
    return mobilenetv2_model.mobilenet_v2(**arguments)
  return resnet_model.resnet_v1_(int(kind[len('resnet') :]), **arguments)


def build(network, size=64, is_training=True, batch_size=2, dtype=tf.float32, **arguments):
  """Builds into the default graph; returns (inputs, logits)."""
  shape = [batch_size, size, size, 3]
  if arguments.get('data_format') == 'channels_first':
    shape = [batch_size, 3, size, size]
  inputs = tf.placeholder(dtype, shape)
  return inputs, make_model(network, **arguments)(inputs, is_training)


def variable_shapes():
  return {v.op.name: v.shape.as_list() for v in tf.global_variables()}


def assert_graph_is(golden):
  """Names, shapes, order, flags and collections of the default graph."""
  variables = tf.global_variables()
  assert [(v.op.name, v.shape.as_list()) for v in variables] == list(golden['variables'].items())
  assert {v.dtype.base_dtype for v in variables} == {tf.float32}

  def names(leaves, inside=True):
    return [n for n in golden['variables'] if (n.rsplit('/', 1)[1] in leaves) == inside]

  trained = tf.trainable_variables()
  assert [v.op.name for v in trained] == names(NOT_TRAINED, inside=False)
  assert sum(v.shape.num_elements() for v in trained) == (golden['n_trainable_parameters'])
  scopes = [n[: -len('/mask')] for n in names({'mask'})]
  masks = pruning.get_masks()
  assert [v.op.name for v in masks] == names({'mask'})
  assert sum(v.shape.num_elements() for v in masks) == golden['n_mask_entries']
  assert [v.op.name for v in pruning.get_weights()] == [f'{scope}/weights' for scope in scopes]
  assert [v.op.name for v in pruning.get_thresholds()] == [f'{scope}/threshold' for scope in scopes]
  assert [t.op.name for t in pruning.get_masked_weights()] == [
    f'{scope}/weights/masked_weight' for scope in scopes
  ]
  assert regularized_variables() == golden['regularized']


def assert_variant(golden, variant, not_regularized=()):
  """The default graph has the variables of a variant of `golden`.

  All its kernels are regularized, but for those of these names.
  """
  change = golden['variants'][variant]
  expected = {
    name: shape for name, shape in golden['variables'].items() if name not in change['missing']
  }
  expected.update(change['added'])
  assert variable_shapes() == expected
  kernels = {n for n in expected if n.endswith(('/weights', '/kernel'))}
  assert set(regularized_variables()) == kernels - set(not_regularized)


def regularized_variables():
  """The variables of the regularization losses, in their order."""
  names = []
  for loss in tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES):
    name, _, rest = loss.op.name.partition('/Regularizer')
    assert rest
    names.append(name)
  return names


def n_regularizers():
  return len(tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES))


def initialized_session(graph=None):
  session = tf.Session(graph=graph, config=quick_sessions.unoptimized())
  with session.graph.as_default():
    session.run(tf.global_variables_initializer())
  return session


def images(shape, seed=0):
  return np.random.RandomState(seed).uniform(-1.0, 1.0, shape).astype(np.float32)


def assert_distribution(values, kind, *parameters):
  """A sample has the family and the parameters of the reference data.

  Args:
    values: array.
    kind: 'constant', 'uniform', 'normal' or 'truncated_normal'.
    *parameters: value | low, high | mean, stddev.
  """
  values = np.asarray(values, np.float64).ravel()
  if kind == 'constant':
    np.testing.assert_array_equal(values, parameters[0])
    return
  if kind == 'uniform':
    low, high = parameters
    mean, stddev, reach = (low + high) / 2, (high - low) / 12**0.5, high
    assert values.min() >= low * (1 + 1e-6)
  else:
    mean, stddev = parameters
    reach = np.inf
    if kind == 'truncated_normal':
      reach = 2 * stddev
      stddev *= 0.87962566
  largest = np.abs(values - mean).max()
  assert largest <= reach * (1 + 1e-6)
  n = values.size
  # Five standard errors; 4th moments are below those of the normal.
  assert abs(values.mean() - mean) < 5 * stddev / n**0.5
  assert abs(values.std() / stddev - 1) < 5 / (2 * n) ** 0.5
  if n > 5000:
    # The moments that distinguish the families.
    assert largest > (3.3 * stddev if kind == 'normal' else 0.97 * reach)


def randomize(session, seed=0):
  """Sets every variable to values that show a wrong wiring.

  Statistics, gammas and biases get values away from 0 and 1, and each mask
  loses about a third of its entries.

  Returns:
    {variable name without the network's scope: array}.
  """
  rng = np.random.RandomState(seed)
  values = {}
  with session.graph.as_default():
    for variable in tf.global_variables():
      leaf = variable.op.name.rsplit('/', 1)[-1]
      shape = variable.shape.as_list()
      if leaf == 'mask':
        value = (rng.uniform(size=shape) < 2 / 3).astype(np.float32)
      elif leaf in ('gamma', 'moving_variance'):
        value = rng.uniform(0.5, 1.5, shape)
      elif leaf in ('beta', 'moving_mean', 'biases', 'bias'):
        value = rng.uniform(-0.5, 0.5, shape)
      elif leaf == 'threshold':
        value = np.zeros(shape)
      else:
        fan_in = np.prod(shape[:-1])
        if leaf == 'depthwise_weights':
          fan_in = shape[0] * shape[1]
        value = rng.normal(0.0, (2 / fan_in) ** 0.5, shape)
      values[variable] = np.asarray(value, np.float32)
    checkpoints.assign(session, values.items())
  return {v.op.name.partition('/')[2]: values[v] for v in values}


def assert_inference_is(network, reference, size, **arguments):
  """Logits of images equal those of `reference(values, images)`."""
  arguments.setdefault('pruning_method', 'threshold')
  with tf.Graph().as_default():
    inputs, logits = build(network, size, is_training=False, num_classes=7, **arguments)
    assert logits.shape.as_list() == [2, 7]
    x = images(inputs.shape)
    with initialized_session() as session:
      values = randomize(session)
      actual = session.run(logits, {inputs: x})
  np.testing.assert_allclose(actual, reference(values, x.astype(np.float64)), rtol=2e-4, atol=2e-4)


def logits_of(network, pruning_method, size=64, seed=3, is_training=True, **arguments):
  """Logits right after initialization."""
  with tf.Graph().as_default():
    tf.set_random_seed(seed)
    inputs, logits = build(
      network, size, is_training, pruning_method=pruning_method, num_classes=7, **arguments
    )
    with initialized_session() as session:
      return session.run(logits, {inputs: images(inputs.shape)})


def assert_ones_masks_change_nothing(network, **arguments):
  """With all-ones masks, a masked network predicts as a dense one.

  Both start from the same weights, as these are seeded by layer.
  """
  dense = logits_of(network, 'baseline', **arguments)
  masked = logits_of(network, 'threshold', **arguments)
  assert np.abs(dense).max() > 1e-3
  np.testing.assert_allclose(masked, dense, rtol=1e-5, atol=1e-6)


def assert_channels_first_builds(network, **arguments):
  """The graph has the shapes of channels_last, which TensorFlow can run."""
  outputs = []
  for data_format in ('channels_last', 'channels_first'):
    with tf.Graph().as_default() as graph:
      _, logits = build(
        network, 64, data_format=data_format, num_classes=7, pruning_method='threshold', **arguments
      )
      convs = [op for op in graph.get_operations() if op.type == 'Conv2D']
      shapes = []
      for op in convs:
        shape = op.outputs[0].shape.as_list()
        if data_format == 'channels_first':
          assert op.get_attr('data_format') == b'NCHW'
          shape = [shape[0], *shape[2:], shape[1]]
        shapes.append(shape)
      outputs.append((variable_shapes(), shapes, logits.shape.as_list()))
  assert outputs[0] == outputs[1]
  assert outputs[0][2] == [2, 7]


def assert_initial_values(golden):
  """Fresh values have the families and parameters of the reference data.

  All variables that the data do not list start at 1 (masks, gammas, moving
  variances) or 0.
  """
  ones = {'mask', 'gamma', 'moving_variance'}
  expected = {name: rest for name, *rest in golden['initial']}
  with initialized_session() as session:
    values = session.run({v.op.name: v for v in tf.global_variables()})
  for name, value in values.items():
    trivial = ('constant', float(name.rsplit('/', 1)[1] in ones))
    assert_distribution(value, *expected.pop(name, trivial))
  assert not expected

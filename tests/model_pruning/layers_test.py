"""Tests of rigl.model_pruning.layers."""

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import layers, pruning

pytestmark = pytest.mark.usefixtures('graph')


@pytest.fixture(name='session')
def _session():
  with tf.Session() as session:
    yield session


def _names():
  return [v.op.name for v in tf.global_variables()]


def _initialize_with_random_masks(session, seed=0):
  """Returns {variable name: value}, masks random and biases not zero."""
  rng = np.random.RandomState(seed)
  session.run(tf.global_variables_initializer())
  for variable in tf.global_variables():
    if variable.op.name.endswith('/mask'):
      variable.load((rng.rand(*variable.shape.as_list()) < 0.5).astype('f'), session)
    elif variable.op.name.endswith('/biases'):
      variable.load(rng.randn(*variable.shape.as_list()), session)
  return session.run({v.op.name: v for v in tf.global_variables()})


def _convolve(images, kernel, stride=1):
  """VALID convolution of NHWC images by plain loops."""
  k_h, k_w, _, n_out = kernel.shape
  height = (images.shape[1] - k_h) // stride + 1
  width = (images.shape[2] - k_w) // stride + 1
  outputs = np.zeros([len(images), height, width, n_out])
  for y in range(height):
    for x in range(width):
      patch = images[:, y * stride : y * stride + k_h, x * stride : x * stride + k_w]
      outputs[:, y, x] = np.tensordot(patch, kernel, 3)
  return outputs


def test_order_of_creation():
  """Convolutions make the mask first, as in the published checkpoints."""
  layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc')
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv')
  assert _names() == [
    'fc/weights',
    'fc/mask',
    'fc/threshold',
    'fc/biases',
    'conv/mask',
    'conv/weights',
    'conv/threshold',
    'conv/biases',
  ]


def test_default_scopes_are_made_unique():
  for _ in range(2):
    layers.masked_fully_connected(tf.zeros([1, 3]), 2)
    layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3)
  scopes = [m.op.name.rsplit('/', 1)[0] for m in pruning.get_masks()]
  assert scopes == ['fully_connected', 'Conv', 'fully_connected_1', 'Conv_1']


def test_masks_start_at_one_and_thresholds_and_biases_at_zero(session):
  layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc')
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, (3, 2), scope='conv')
  session.run(tf.global_variables_initializer())
  values = session.run({v.op.name: v for v in tf.global_variables()})
  for scope, shape in (('fc', (3, 2)), ('conv', (3, 2, 3, 4))):
    np.testing.assert_array_equal(values[f'{scope}/mask'], np.ones(shape))
    assert values[f'{scope}/weights'].shape == shape
    assert values[f'{scope}/weights'].all()
    assert values[f'{scope}/threshold'] == 0.0
    np.testing.assert_array_equal(values[f'{scope}/biases'], [0.0] * shape[-1])


def test_fully_connected_equals_numpy(session):
  inputs = np.random.RandomState(1).randn(4, 6).astype('f')
  linear = layers.masked_fully_connected(tf.constant(inputs), 5, activation_fn=None, scope='linear')
  relu = layers.masked_fully_connected(tf.constant(inputs), 5, scope='relu')
  values = _initialize_with_random_masks(session)

  def expected(scope):
    return (
      inputs @ (values[f'{scope}/weights'] * values[f'{scope}/mask']) + values[f'{scope}/biases']
    )

  np.testing.assert_allclose(session.run(linear), expected('linear'), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
    session.run(relu), np.maximum(expected('relu'), 0.0), rtol=1e-5, atol=1e-6
  )


def test_fully_connected_flattens(session):
  inputs = np.random.RandomState(1).randn(3, 2, 2, 5).astype('f')
  placeholder = tf.placeholder(tf.float32, [None, 2, 2, 5])
  outputs = layers.masked_fully_connected(placeholder, 4, activation_fn=None, scope='fc')
  assert outputs.shape.as_list() == [None, 4]
  values = _initialize_with_random_masks(session)
  np.testing.assert_allclose(
    session.run(outputs, {placeholder: inputs}),
    inputs.reshape(3, 20) @ (values['fc/weights'] * values['fc/mask']) + values['fc/biases'],
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('stride', [1, 2])
def test_convolution_equals_numpy(session, stride):
  inputs = np.random.RandomState(1).randn(2, 7, 6, 3).astype('f')
  outputs = layers.masked_conv2d(tf.constant(inputs), 4, (3, 2), stride, 'VALID', scope='conv')
  values = _initialize_with_random_masks(session)
  expected = _convolve(inputs, values['conv/weights'] * values['conv/mask'], stride)
  np.testing.assert_allclose(
    session.run(outputs), np.maximum(expected + values['conv/biases'], 0.0), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize(
  'arguments',
  [
    {'padding': 'SAME'},
    {'padding': 'same', 'stride': 2},
    {'padding': 'VALID', 'stride': (2, 1)},
    {'rate': 2},
    {'rate': (1, 3)},
    {'data_format': 'NHWC'},
    {'data_format': 'channels_last', 'stride': 3},
  ],
)
def test_convolution_passes_its_geometry_on(session, arguments):
  inputs = np.random.RandomState(1).randn(2, 9, 8, 3).astype('f')
  outputs = layers.masked_conv2d(
    tf.constant(inputs), 4, 3, activation_fn=None, scope='conv', **arguments
  )
  values = _initialize_with_random_masks(session)
  expected = (
    tf.nn.conv2d(
      inputs,
      values['conv/weights'] * values['conv/mask'],
      strides=arguments.get('stride', 1),
      padding=arguments.get('padding', 'SAME').upper(),
      dilations=arguments.get('rate', 1),
    )
    + values['conv/biases']
  )
  assert outputs.shape == expected.shape
  got, want = session.run([outputs, expected])
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('data_format', ['NCHW', 'channels_first'])
def test_channels_first(data_format):
  """Only the graph: TensorFlow has no such convolution on every CPU."""
  outputs = layers.masked_conv2d(
    tf.zeros([2, 3, 8, 6]), 5, 3, 2, data_format=data_format, scope='conv'
  )
  assert outputs.shape.as_list() == [2, 5, 4, 3]
  assert pruning.get_weights()[0].shape.as_list() == [3, 3, 3, 5]
  formats = {
    op.type: op.get_attr('data_format')
    for op in tf.get_default_graph().get_operations()
    if op.type in ('Conv2D', 'BiasAdd')
  }
  assert formats == {'Conv2D': b'NCHW', 'BiasAdd': b'NCHW'}


def test_gradients_vanish_where_the_mask_is_zero(session):
  """The dense gradient, with respect to the masked weights, does not."""
  inputs = tf.constant(np.random.RandomState(1).rand(4, 6, 6, 3), tf.float32)
  hidden = layers.masked_conv2d(inputs, 4, 3, activation_fn=None, scope='conv')
  outputs = layers.masked_fully_connected(hidden, 5, activation_fn=None, scope='fc')
  loss = tf.reduce_sum(tf.square(outputs - 1.0))
  sparse = tf.gradients(loss, pruning.get_weights())
  dense = tf.gradients(loss, pruning.get_masked_weights())
  _initialize_with_random_masks(session)
  masks, sparse, dense = session.run([pruning.get_masks(), sparse, dense])
  for mask, s, d in zip(masks, sparse, dense):
    assert not s[mask == 0].any()
    np.testing.assert_array_equal(s, d * mask)
    assert (d[mask == 0] != 0).any()


def test_reuse_shares_variables_and_registers_nothing_twice(session):
  inputs = np.random.RandomState(1).randn(2, 5, 5, 3).astype('f')
  placeholder = tf.placeholder(tf.float32, [None, 5, 5, 3])

  def network(x, reuse):
    with tf.variable_scope('net', reuse=reuse):
      return layers.masked_fully_connected(
        layers.masked_conv2d(x, 4, 3, scope='conv'), 2, scope='fc'
      )

  train = network(tf.constant(inputs), False)
  variables = _names()
  test = network(placeholder, True)
  assert _names() == variables
  for getter in (
    pruning.get_masks,
    pruning.get_masked_weights,
    pruning.get_thresholds,
    pruning.get_weights,
  ):
    assert len(getter()) == 2
  masked = pruning.get_masked_weights()[1]
  assert tf.gradients(train, masked)[0] is not None
  _initialize_with_random_masks(session)
  np.testing.assert_array_equal(*session.run([train, test], {placeholder: inputs}))


def test_the_reuse_argument(session):
  del session
  layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc')
  layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc', reuse=True)
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv')
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv', reuse=True)
  assert len(_names()) == 8
  with pytest.raises(ValueError, match='fc/weights already exists'):
    layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc')


def test_regularization_is_of_raw_weights_and_not_doubled_on_reuse(session):
  """The penalty of 0.5 * sum(w ** 2) also counts inactive weights."""
  arguments = {
    'weights_regularizer': tf.nn.l2_loss,
    'biases_regularizer': lambda b: 3.0 * tf.nn.l2_loss(b),
  }
  for reuse in (False, True):
    layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc', reuse=reuse, **arguments)
    layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv', reuse=reuse, **arguments)
  losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  assert len(losses) == 4
  values = _initialize_with_random_masks(session)
  expected = [
    factor * 0.5 * np.sum(np.square(values[name]))
    for name, factor in [
      ('fc/weights', 1.0),
      ('fc/biases', 3.0),
      ('conv/weights', 1.0),
      ('conv/biases', 3.0),
    ]
  ]
  np.testing.assert_allclose(session.run(losses), expected, rtol=1e-5)


def test_no_biases():
  layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc', biases_initializer=None)
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv', biases_initializer=None)
  assert not [name for name in _names() if 'biases' in name]


def test_a_normalizer_takes_the_place_of_biases(session):
  inputs = np.random.RandomState(1).randn(4, 3).astype('f')

  def shifted(x, shift):
    return x + shift

  outputs = layers.masked_fully_connected(
    tf.constant(inputs), 2, scope='fc', normalizer_fn=shifted, normalizer_params={'shift': -0.5}
  )
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv', normalizer_fn=tf.identity)
  assert not [name for name in _names() if 'biases' in name]
  values = _initialize_with_random_masks(session)
  expected = inputs @ (values['fc/weights'] * values['fc/mask']) - 0.5
  np.testing.assert_allclose(session.run(outputs), np.maximum(expected, 0.0), rtol=1e-5, atol=1e-6)


def test_layers_that_are_not_trained():
  layers.masked_fully_connected(tf.zeros([1, 3]), 2, scope='fc', trainable=False)
  layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, scope='conv', trainable=False)
  assert tf.trainable_variables() == []
  assert len(pruning.get_masks()) == 2


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16, tf.float64])
def test_variables_have_the_type_of_the_inputs(session, dtype):
  fc = layers.masked_fully_connected(tf.ones([2, 3], dtype), 2, scope='fc')
  conv = layers.masked_conv2d(tf.ones([1, 5, 5, 3], dtype), 4, 3, scope='conv')
  assert {v.dtype.base_dtype for v in tf.global_variables()} == {dtype}
  session.run(tf.global_variables_initializer())
  for output in session.run([fc, conv]):
    assert output.dtype == dtype.as_numpy_dtype
    assert np.isfinite(output.astype('f')).all()


def test_variables_can_have_a_wider_type(session):
  kwargs = {'variables_dtype': tf.float32, 'activation_fn': None}
  fc = layers.masked_fully_connected(tf.ones([2, 3], tf.bfloat16), 2, scope='fc', **kwargs)
  conv = layers.masked_conv2d(tf.ones([1, 5, 5, 3], tf.bfloat16), 4, 3, scope='conv', **kwargs)
  assert {v.dtype.base_dtype for v in tf.global_variables()} == {tf.float32}
  assert {m.dtype for m in pruning.get_masked_weights()} == {tf.float32}
  assert {fc.dtype, conv.dtype} == {tf.bfloat16}
  # So gradients of masked weights are as exact as the variables.
  dense = tf.gradients(tf.reduce_sum(tf.cast(fc, tf.float32)), pruning.get_masked_weights()[:1])
  assert dense[0].dtype == tf.float32


def test_own_initializers(session):
  layers.masked_fully_connected(
    tf.zeros([1, 3]),
    2,
    scope='fc',
    weights_initializer=tf.constant_initializer(3.0),
    biases_initializer=tf.constant_initializer(-1.0),
  )
  session.run(tf.global_variables_initializer())
  weights, _, _, biases = session.run(tf.global_variables())
  assert (weights == 3.0).all() and (biases == -1.0).all()


def test_masked_convolution_is_another_name():
  assert layers.masked_convolution is layers.masked_conv2d


@pytest.mark.parametrize('data_format', ['NHCW', 'nhwc', '', 'channels', 3])
def test_unknown_data_formats_are_rejected(data_format):
  with pytest.raises(ValueError) as error:
    layers.masked_conv2d(tf.zeros([1, 5, 5, 3]), 4, 3, data_format=data_format)
  assert repr(data_format) in str(error.value)
  for option in ('NHWC', 'NCHW', 'channels_last', 'channels_first'):
    assert f' {option}' in str(error.value)
  assert _names() == []


@pytest.mark.parametrize(
  'data_format, shape', [('NHWC', [1, 5, 5, None]), ('NCHW', [1, None, 5, 5])]
)
def test_channels_must_be_known(data_format, shape):
  with pytest.raises(ValueError, match='images.*must be known'):
    layers.masked_conv2d(tf.placeholder(tf.float32, shape, 'images'), 4, 3, data_format=data_format)


@pytest.mark.parametrize('shape', [[1, None], [1, 3, None], None])
def test_inputs_of_a_fully_connected_layer_must_be_known(shape):
  with pytest.raises(ValueError, match='features.*must be known'):
    layers.masked_fully_connected(tf.placeholder(tf.float32, shape, 'features'), 4)

"""Tests of counting Keras layers and models."""

import subprocess
import sys

import pytest

from rigl.compat import tf
from rigl.micronet import architectures, counting, network
from rigl.micronet.keras_counting import count_model, get_stats
from tests.micronet import published_rows
from tests.micronet.published_rows import ROWS

METHODS = {'ERK': 'erdos_renyi_kernel', 'Uniform': 'random', 'dense': 'random'}
K = tf.keras.layers

pytestmark = pytest.mark.usefixtures('graph')


@pytest.fixture(scope='module', name='published_layers')
def _published_layers():
  """Real Keras layers, called on the images of the published networks."""
  result = {}
  for name in ('resnet50', 'mobilenet_v1'):
    with tf.Graph().as_default():
      result[name] = [
        _keras_layer(layer) for layer in architectures.get_network(f'{name}_keras').layers
      ]
  return result


def _keras_layer(layer):
  op = layer.op
  if isinstance(op, counting.FullyConnected):
    keras_layer = K.Dense(op.kernel_shape[1], name=layer.name)
    shape = (op.kernel_shape[0],)
  else:
    kernel, _, c_in, c_out = op.kernel_shape
    kwargs = {'strides': op.strides, 'use_bias': False, 'name': layer.name}
    if isinstance(op, counting.DepthWiseConv2D):
      keras_layer = K.DepthwiseConv2D(kernel, padding='same', **kwargs)
    else:
      # What get_stats takes is 'same', whatever the layer says.
      keras_layer = K.Conv2D(c_out, kernel, padding='valid', **kwargs)
    shape = (op.input_size, op.input_size, c_in)
  keras_layer(tf.keras.Input(shape))
  return keras_layer


def _by_kernel(custom_sparsities, layers):
  kernels = {
    layer.name: 'depthwise_kernel' if isinstance(layer, K.DepthwiseConv2D) else 'kernel'
    for layer in layers
  }
  return {f'{name}/{kernels[name]}:0': value for name, value in custom_sparsities.items()}


class TestGetStats:
  @pytest.mark.parametrize('row', ROWS, ids=published_rows.row_id)
  def test_published_values(self, row, published_layers):
    layers = published_layers[row['net']]
    flops, bits, real_sparsity = get_stats(
      layers,
      default_sparsity=row['sparsity'],
      method=METHODS.get(row['distribution'], row['distribution']),
      custom_sparsities=_by_kernel(published_rows.custom_sparsities(row), layers),
      width=row.get('width', 1.0),
    )
    published_rows.assert_counted(row, flops, bits / 8e6, real_sparsity)

  def test_all_rows_are_there(self):
    assert len(ROWS) == 39

  def test_dense_resnet50(self, published_layers):
    flops, bits, real_sparsity = get_stats(published_layers['resnet50'], default_sparsity=0.0)
    assert (flops, bits / 8) == (8_202_340_776, 102_121_888)
    assert real_sparsity == 0

  def test_debug_prints_every_layer(self, published_layers, capsys):
    get_stats(published_layers['mobilenet_v1'], is_debug=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 28
    assert lines[0].startswith('conv1/kernel:0: shape (3, 3, 3, 32), sparsity ')

  def test_param_size(self, published_layers):
    layers = published_layers['mobilenet_v1']
    bits = [get_stats(layers, 0.0, param_size=size)[1] for size in (16, 32)]
    assert bits[1] == 2 * bits[0]

  @pytest.mark.parametrize('size', [0, -1])
  def test_impossible_param_size(self, published_layers, size):
    for count in (get_stats, count_model):
      with pytest.raises(ValueError, match=f'^param_size must be > 0, got {size}'):
        count(published_layers['mobilenet_v1'], param_size=size)

  def test_power_scale(self, published_layers):
    layers = published_layers['mobilenet_v1']
    stats = [
      get_stats(layers, 0.9, 'erdos_renyi_kernel', erk_power_scale=power) for power in (0.0, 1.0)
    ]
    assert stats[0][0] < stats[1][0]

  def test_width_by_hand(self):
    layers = [
      _keras_layer(_layer('conv1', (3, 3, 3, 4))),
      _keras_layer(_layer('mid', (1, 1, 4, 5))),
      _keras_layer(_layer('conv_preds', (1, 1, 5, 6))),
    ]
    _, bits, _ = get_stats(layers, 0.0, width=1.5)
    # int(4 * 1.5) = 6 and int(5 * 1.5) = 7 channels inside.
    n_values = (9 * 3 * 6 + 6) + (6 * 7 + 7) + (7 * 6 + 6)
    assert bits == 32 * n_values

  def test_first_layer_is_found_by_its_whole_name(self):
    # conv10 begins with conv1 too.
    layers = [
      _keras_layer(_layer('conv10', (1, 1, 4, 5))),
      _keras_layer(_layer('conv1', (3, 3, 3, 4))),
      _keras_layer(_layer('preds_conv', (1, 1, 5, 6))),
    ]
    _, bits, _ = get_stats(layers, 0.0, width=2.0, last_layer_name='preds')
    n_values = (8 * 10 + 10) + (9 * 3 * 8 + 8) + (10 * 6 + 6)
    assert bits == 32 * n_values

  def test_another_width_needs_the_first_and_the_last_layer(self):
    layers = [
      _keras_layer(_layer('stem', (3, 3, 3, 4))),
      _keras_layer(_layer('preds', (1, 1, 4, 6))),
    ]
    names = {'first_layer_name': 'stem', 'last_layer_name': 'preds'}
    _, bits, _ = get_stats(layers, 0.0, width=2.0, **names)
    assert bits == 32 * ((9 * 3 * 8 + 8) + (8 * 6 + 6))
    for argument in names:
      with pytest.raises(
        ValueError, match=(argument + r".* 'conv.*'stem/kernel:0', 'preds/kernel:0'\]")
      ):
        get_stats(layers, 0.0, width=2.0, **{**names, argument: 'conv'})
    # Not at the width of the layers, which need no names for that.
    get_stats(layers, 0.0)

  @pytest.mark.parametrize(
    'width, message',
    [
      (0.0, 'width must be > 0, got 0.0'),
      (-1.0, 'width must be > 0, got -1.0'),
      (float('inf'), 'width must be finite, got inf'),
      (float('nan'), 'width must be > 0, got nan'),
      (0.01, r"width 0.01 .* without channels: 'conv1/kernel:0' .*3, 0\)"),
    ],
  )
  def test_impossible_width(self, published_layers, width, message):
    with pytest.raises(ValueError, match=message):
      get_stats(published_layers['mobilenet_v1'], 0.0, width=width)

  def test_unknown_custom_kernel(self, published_layers):
    with pytest.raises(ValueError, match=r"\['conv1'\].*'conv1/kernel:0'"):
      get_stats(published_layers['mobilenet_v1'], custom_sparsities={'conv1': 0.0})

  def test_other_layers_are_refused(self):

    class Doubled(K.Dense):
      def call(self, inputs):
        return 2 * super().call(inputs)

    class Conv2D(K.Layer):
      pass

    for layer in (
      K.Conv1D(3, 3, name='odd'),
      K.LSTM(3, name='odd'),
      K.Conv2DTranspose(3, 3, name='odd'),
      Doubled(3, name='odd'),
      Conv2D(name='odd'),
    ):
      with pytest.raises(ValueError, match="not 'odd'"):
        get_stats([layer])

  def test_images_of_several_sizes(self):
    layer = K.Conv2D(3, 3, name='shared')
    for size in (8, 16):
      layer(tf.keras.Input((size, size, 3)))
    with pytest.raises(ValueError, match="'shared' .* inputs of 2 sizes"):
      get_stats([layer])

  def test_layer_without_kernel(self):
    with pytest.raises(ValueError, match="'raw' cannot be counted: not built"):
      get_stats([K.Conv2D(3, 3, name='raw')])

  def test_layer_without_image(self):
    layer = K.Conv2D(3, 3, name='raw')
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match="'raw' cannot.*input size is not"):
      get_stats([layer])

  def test_oblong_image(self):
    layer = K.Conv2D(3, 3, name='oblong')
    layer(tf.keras.Input((8, 10, 3)))
    with pytest.raises(ValueError, match=r"square images.*'oblong'.*\(8, 10\)"):
      get_stats([layer])

  def test_grouped_convolution(self):
    layer = K.Conv2D(4, 3, groups=2, name='grouped')
    layer(tf.keras.Input((8, 8, 4)))
    with pytest.raises(ValueError, match="'grouped' is a grouped"):
      get_stats([layer])


def _layer(name, shape):
  op = counting.Conv2D(8, shape, (1, 1), 'same', True, 'relu')
  return network.Layer(name, op)


def _rows(result):
  return {row.name: row for row in result.count.layers}


class TestLayerKinds:
  """Each kind of layer against its formula: 2 * L - 1 for each output."""

  def _flops(self, layer, input_shape):
    layer(tf.keras.Input(input_shape))
    result = count_model([layer])
    assert not result.not_counted
    assert result.count.n_weights == sum(
      weight.shape.num_elements() for weight in layer.weights if 'bias' not in weight.name
    )
    assert result.count.megabytes == layer.count_params() * 4 / 1e6
    return result.count.flops

  def test_one_dimensional_convolution(self):
    layer = K.Conv1D(8, 3, padding='same', strides=2, use_bias=False)
    assert self._flops(layer, (21, 4)) == 11 * 8 * (2 * 3 * 4 - 1)

  def test_three_dimensional_convolution(self):
    layer = K.Conv3D(8, 3, use_bias=True)
    assert self._flops(layer, (5, 6, 7, 4)) == 3 * 4 * 5 * 8 * 2 * 27 * 4

  def test_grouped_convolution(self):
    layer = K.Conv2D(8, 3, groups=4, padding='same', use_bias=False)
    assert self._flops(layer, (6, 7, 12)) == 6 * 7 * 8 * (2 * 9 * 3 - 1)

  def test_dilated_convolution(self):
    layer = K.Conv2D(8, 3, dilation_rate=2, use_bias=False)
    # The kernel spans 5 x 5 but has 9 elements.
    assert self._flops(layer, (9, 9, 4)) == 5 * 5 * 8 * (2 * 9 * 4 - 1)

  def test_transposed_convolution(self):
    layer = K.Conv2DTranspose(8, 3, strides=2, padding='same', use_bias=False)
    n_mults = 5 * 5 * 9 * 4 * 8
    assert self._flops(layer, (5, 5, 4)) == pytest.approx(n_mults + (n_mults - 10 * 10 * 8))

  def test_depthwise_convolution_with_multiplier(self):
    layer = K.DepthwiseConv2D(3, depth_multiplier=2, padding='same')
    # Every output channel has its bias, as stored.
    assert self._flops(layer, (6, 6, 4)) == 6 * 6 * 8 * 2 * 9

  def test_separable_convolution(self):
    layer = K.SeparableConv2D(8, 3, padding='same', activation='relu')
    depthwise, pointwise = 36 * 4 * (2 * 9 - 1), 36 * 8 * (2 * 4 + 1)
    assert self._flops(layer, (6, 6, 4)) == depthwise + pointwise

  def test_activation_that_is_a_layer(self):
    layer = K.Dense(8, activation=K.ReLU(), use_bias=False)
    assert self._flops(layer, (5,)) == 8 * (2 * 5 - 1) + 8

  def test_dense_on_a_sequence(self):
    layer = K.Dense(8, activation='swish')
    assert self._flops(layer, (10, 5)) == 10 * 8 * (2 * 5 + 4)

  @pytest.mark.parametrize(
    'equation, bias, n_weights, flops',
    [
      # A dense layer at each of 6 positions.
      ('abc,cd->abd', 'd', 8 * 5 + 5, 6 * 5 * 2 * 8),
      # A matrix of its own at each position.
      ('abc,bcd->abd', 'bd', 6 * 8 * 5 + 6 * 5, 6 * 5 * 2 * 8),
    ],
  )
  def test_einsum(self, equation, bias, n_weights, flops):
    layer = K.EinsumDense(equation, (6, 5), bias_axes=bias)
    assert self._flops(layer, (6, 8)) == flops
    assert layer.count_params() == n_weights

  @pytest.mark.parametrize(
    'equation, output, bias, reason',
    [
      ('abc,cd->ad', 5, 'd', 'sums the input over more than the kernel'),
      ('abc,cd->abd', (6, 5), 'b', 'a bias of another size than the channels'),
    ],
  )
  def test_einsum_without_rule(self, equation, output, bias, reason):
    inputs = tf.keras.Input((6, 8))
    layer = K.EinsumDense(equation, output, bias_axes=bias)
    result = count_model(tf.keras.Model(inputs, layer(inputs)))
    (note,) = result.not_counted
    assert reason in note.reason

  def test_embedding_is_stored_but_computes_nothing(self):
    layer = K.Embedding(100, 8)
    assert self._flops(layer, (20,)) == 0

  def test_channels_first(self):
    layer = K.Conv2D(8, 3, padding='same', use_bias=False, data_format='channels_first')
    assert self._flops(layer, (4, 6, 7)) == 6 * 7 * 8 * (2 * 9 * 4 - 1)

  def test_subclass_of_a_known_layer(self):

    class MyDense(K.Dense):
      pass

    assert self._flops(MyDense(3), (5,)) == 3 * 2 * 5

  @pytest.mark.parametrize(
    'layer, flops',
    [
      (K.ReLU(), 6 * 6 * 4),
      (K.Activation('sigmoid'), 3 * 6 * 6 * 4),
      (K.GlobalAveragePooling2D(), 6 * 6 * 4),
      (K.AveragePooling2D(3), 2 * 2 * 4 * 9),
      (K.MaxPooling2D(), 0),
      (K.Flatten(), 0),
      (K.BatchNormalization(), 0),
    ],
    ids=lambda value: getattr(value, 'name', None),
  )
  def test_layers_without_kernel(self, layer, flops):
    layer = type(layer).from_config(layer.get_config())
    layer(tf.keras.Input((6, 6, 4)))
    result = count_model([layer])
    assert result.count.flops == flops
    assert not result.not_counted
    assert len(result.free) == (flops == 0)

  @pytest.mark.parametrize(
    'kind, flops', [('Add', 2 * 40), ('Multiply', 2 * 40), ('Average', 3 * 40), ('Concatenate', 0)]
  )
  def test_merging_three_inputs(self, kind, flops):
    layer = getattr(K, kind)()
    layer([tf.keras.Input((10, 4)) for _ in range(3)])
    assert count_model([layer]).count.flops == flops


class TestModels:
  def test_sequential(self):
    model = tf.keras.Sequential(
      [
        tf.keras.Input((8, 8, 3)),
        K.Conv2D(8, 3, activation='relu', name='conv'),
        K.Flatten(),
        K.Dense(10, name='fc'),
      ]
    )
    result = count_model(model)
    assert result.count.flops == 36 * 8 * (2 * 27 + 1) + 10 * 2 * 288
    assert [note.kind for note in result.free] == ['Flatten']
    assert result.count.megabytes == model.count_params() * 4 / 1e6

  def test_names_of_kernels(self):
    model = tf.keras.Sequential(
      [
        tf.keras.Input((8, 8, 3)),
        K.Conv2D(4, 3, name='conv'),
        K.DepthwiseConv2D(3, name='depthwise'),
        K.Dense(2, name='fc'),
      ],
      name='model',
    )
    sparsities = {'conv/kernel:0': 0.1, 'depthwise/depthwise_kernel:0': 0.2, 'fc/kernel:0': 0.3}
    rows = _rows(count_model(model, 0.5, 'random', sparsities))
    assert [row.sparsity for row in rows.values()] == [0.1, 0.2, 0.3]
    layers = [model.get_layer(name) for name in rows]
    dense, sparse = (get_stats(layers, 0.0, 'random', custom)[0] for custom in ({}, sparsities))
    assert sparse < dense

  def test_names_of_kernels_in_a_subclassed_model(self):
    model = _Subclassed(name='model')
    model(tf.zeros((1, 8, 8, 3)))
    layers = [model.conv, model.block.conv, model.block.fc]
    with pytest.raises(
      ValueError,
      match=(
        r"\['model/conv/kernel:0', 'model/block/conv/kernel:0', "
        r"'model/block/fc/kernel:0'\]"
      ),
    ):
      get_stats(layers, custom_sparsities={'none': 0.0})

  def test_functions_are_reported_by_name(self):
    inputs = tf.keras.Input((8, 8, 3))
    conv = K.Conv2D(3, 3, padding='same', name='conv')
    for outputs in (conv(inputs) + inputs, conv(2.0 * inputs)):
      result = count_model(tf.keras.Model(inputs, outputs))
      assert list(_rows(result)) == ['conv']
      (note,) = result.not_counted
      assert note.reason == 'no rule for this kind of layer'

  def test_layer_without_weights_in_a_subclassed_model(self):
    model = _Pooled(name='model')
    model(tf.zeros((1, 8, 8, 3)))
    result = count_model(model)
    assert not result.not_counted
    assert _rows(result)['pool'].flops == 64 * 3

  def test_sparse_sequential(self):
    model = tf.keras.Sequential(
      [
        tf.keras.Input((20,)),
        K.Dense(10, name='a', use_bias=False),
        K.Dense(10, name='b', use_bias=False),
      ]
    )
    result = count_model(model, 0.5, 'random', {'b/kernel:0': 0.9})
    rows = _rows(result)
    assert (rows['a'].sparsity, rows['b'].sparsity) == (0.5, 0.9)
    assert rows['a'].flops == pytest.approx(10 * (2 * 10 - 1))
    assert result.count.n_kept == 100 + 10

  def test_shared_layer_counts_every_call_but_is_stored_once(self):
    inputs = tf.keras.Input((8, 8, 3))
    conv = K.Conv2D(3, 3, padding='same', name='conv')
    model = tf.keras.Model(inputs, conv(conv(inputs)))
    result = count_model(model)
    assert result.count.flops == 2 * 64 * 3 * 2 * 27
    assert result.count.megabytes == conv.count_params() * 4 / 1e6

  def test_shared_layer_without_kernel_counts_every_call(self):
    inputs = tf.keras.Input((8, 3))
    relu, add = K.ReLU(), K.Add()
    model = tf.keras.Model(inputs, add([add([relu(inputs), inputs]), relu(relu(inputs))]))
    assert count_model(model).count.flops == (3 + 2) * 8 * 3

  def test_a_layer_alone_is_a_model(self):
    layer = K.Dense(5)
    layer(tf.keras.Input((4,)))
    assert count_model(layer).count.flops == 5 * 2 * 4

  def test_calls_outside_the_model_do_not_count(self):
    inputs = tf.keras.Input((4,))
    dense = K.Dense(4, name='fc')
    model = tf.keras.Model(inputs, dense(inputs))
    before = count_model(model).count.flops
    dense(dense(inputs))
    assert count_model(model).count.flops == before

  def test_nested_model_called_twice(self):
    inner = tf.keras.Sequential([tf.keras.Input((4,)), K.Dense(5, name='fc')], name='inner')
    left, right = tf.keras.Input((4,)), tf.keras.Input((4,))
    outputs = K.Add(name='sum')([inner(left), inner(right)])
    result = count_model(tf.keras.Model([left, right], outputs))
    rows = _rows(result)
    assert list(rows) == ['inner/fc', 'sum']
    assert rows['inner/fc'].flops == 2 * 5 * 2 * 4
    assert rows['sum'].flops == 5
    assert result.count.n_weights == 20

  def test_nested_model_called_on_several_sizes(self):
    inner = tf.keras.Sequential([tf.keras.Input((None, 4)), K.Dense(5, name='fc')], name='inner')
    inputs = [tf.keras.Input((size, 4)) for size in (3, 7)]
    result = count_model(tf.keras.Model(inputs, [inner(x) for x in inputs]))
    assert result.count.flops == (3 + 7) * 5 * 2 * 4
    assert not result.not_counted

  def test_subclassed_model_with_own_layers(self):
    model = _Subclassed(name='model')
    model(tf.zeros((1, 8, 8, 3)))
    result = count_model(model)
    rows = _rows(result)
    assert list(rows) == ['conv', 'block/conv', 'block/fc', 'head']
    assert rows['block/conv'].flops == 64 * 4 * (2 * 9 * 8 + 1)
    # What the block itself has and does has no rule, and is named.
    assert [(note.name, note.kind, note.reason, note.n_weights) for note in result.not_counted] == [
      ('block', '_Block', 'no rule for its own operations (Mul)', 0),
      ('block', '_Block', 'no rule for its own weights', 4),
    ]

  def test_model_that_was_not_called(self):
    result = count_model(_Subclassed(name='model'))
    assert not result.count.layers
    assert {'conv', 'head'} <= {note.name for note in result.not_counted}
    assert 'call the model once' in result.not_counted[0].reason

  def test_layers_without_rule_are_reported_by_name(self):
    model = tf.keras.Sequential(
      [
        tf.keras.Input((12,)),
        K.Embedding(50, 8, name='words'),
        K.LSTM(4, return_sequences=True, name='lstm'),
        K.TimeDistributed(K.Dense(3), name='each'),
        K.Lambda(lambda x: x, name='anything'),
        K.LayerNormalization(name='norm'),
        K.Dense(2, activation='softmax', name='head'),
      ]
    )
    result = count_model(model)
    assert list(_rows(result)) == ['words', 'head']
    assert {note.name: note.kind for note in result.not_counted} == {
      'lstm': 'LSTM',
      'each': 'TimeDistributed',
      'anything': 'Lambda',
      'norm': 'LayerNormalization',
      'head': 'Dense',
    }
    assert "activation 'softmax'" in result.not_counted[-1].reason

  # Keras 2 does not keep the input of a layer that is called on values.
  @pytest.mark.parametrize('is_symbolic,as_list', [(False, False), (True, False), (True, True)])
  def test_attention_by_hand(self, is_symbolic, as_list):
    model = _Attentive(name='model')
    model(tf.keras.Input((5, 6)) if is_symbolic else tf.zeros((1, 5, 6)))
    result = count_model([model.attention, model.head] if as_list else model)
    # 2 heads of 4 are 8 dot products over 6, each with a bias.
    rows = _rows(result)
    assert list(rows) == [
      *(f'attention/{name}' for name in ('query', 'key', 'value', 'attention_output')),
      'head',
    ]
    assert rows['attention/query'].flops == 5 * 8 * (6 + 5 + 1)
    assert rows['attention/attention_output'].flops == 5 * 6 * (8 + 7 + 1)
    # The products of queries, keys and values. The layer for softmax is used
    # by some versions of Keras only.
    assert (
      'attention'
      in {note.name for note in result.not_counted}
      <= {'attention', 'attention/softmax'}
    )
    assert not any(note.n_weights for note in result.not_counted)

  def test_what_keras_raises_is_a_reason(self):

    class Odd(K.Dense):
      def call(self, inputs):
        if inputs.shape[0] == 1:
          raise TypeError('Of an odd\n  shape.')
        return inputs

    layer = Odd(3, name='odd')
    layer(tf.zeros((2, 4)))
    (note,) = count_model([layer]).not_counted
    assert (note.name, note.n_weights) == ('odd', 4 * 3 + 3)
    assert note.reason.startswith('TensorFlow cannot trace it: ')
    assert 'Of an odd shape.' in note.reason

  def test_embeddings_stay_dense_unless_named(self):
    model = tf.keras.Sequential(
      [tf.keras.Input((12,)), K.Embedding(50, 8, name='words'), K.Dense(2, name='head')]
    )
    rows = _rows(count_model(model, 0.5, 'random'))
    assert (rows['words'].sparsity, rows['head'].sparsity) == (0.0, 0.5)
    rows = _rows(count_model(model, 0.5, 'random', {'words': 0.75}))
    assert rows['words'].sparsity == 0.75

  def test_unknown_image_size_is_reported(self):
    inputs = tf.keras.Input((None, None, 3))
    model = tf.keras.Model(inputs, K.Conv2D(4, 3, name='conv')(inputs))
    result = count_model(model)
    assert [note.name for note in result.not_counted] == ['conv']
    assert 'not known' in result.not_counted[0].reason

  def test_same_name_twice(self):
    layers = [K.Dense(2, name='fc'), K.Dense(3, name='fc')]
    for layer in layers:
      layer(tf.keras.Input((4,)))
    with pytest.raises(ValueError, match="Two layers are named 'fc'"):
      count_model(layers)

  def test_large_models_have_nothing_uncounted_but_softmax(self):
    model = tf.keras.applications.MobileNet(weights=None, input_shape=(64, 64, 3), alpha=0.25)
    result = count_model(model)
    assert [note.reason for note in result.not_counted] == ["no rule for its activation 'softmax'"]
    n_normalized = sum(
      layer.count_params() for layer in model.layers if type(layer).__name__.startswith('BatchNorm')
    )
    assert result.count.megabytes * 1e6 / 4 == pytest.approx(model.count_params() - n_normalized)


class _Block(K.Layer):
  def __init__(self, name):
    super().__init__(name=name)
    self.conv = K.Conv2D(4, 3, padding='same', activation='relu', name='conv')
    self.fc = K.Dense(4, name='fc')

  def build(self, input_shape):
    self.gain = self.add_weight(name='gain', shape=(4,))
    super().build(input_shape)

  def call(self, inputs):
    return self.fc(self.conv(inputs)) * self.gain


class _Subclassed(tf.keras.Model):
  def __init__(self, name):
    super().__init__(name=name)
    self.conv = K.Conv2D(8, 3, padding='same', name='conv')
    self.block = _Block(name='block')
    self.head = K.Dense(2, name='head')

  def call(self, inputs):
    return self.head(self.block(self.conv(inputs)))


class _Pooled(tf.keras.Model):
  def __init__(self, name):
    super().__init__(name=name)
    self.pool = K.GlobalAveragePooling2D(name='pool')
    self.head = K.Dense(2, name='head')

  def call(self, inputs):
    return self.head(self.pool(inputs))


class _Attentive(tf.keras.Model):
  def __init__(self, name):
    super().__init__(name=name)
    self.attention = K.MultiHeadAttention(2, 4, name='attention')
    self.head = K.Dense(3, name='head')

  def call(self, inputs):
    return self.head(self.attention(inputs, inputs))


def test_importing_does_not_load_tensorflow():
  code = (
    'import sys, rigl.micronet.keras_counting, rigl.micronet.cli; '
    'sys.exit("tensorflow" in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)

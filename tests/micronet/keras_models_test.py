"""Tests of count_model: counts of each call, and uncounted layers."""

import re

import numpy as np
import pytest

from rigl.compat import tf2
from rigl.micronet.keras_counting import count_model

K = tf2.keras.layers
Input, Model = tf2.keras.Input, tf2.keras.Model
Sequential = tf2.keras.Sequential


def _assert_complete(model):
  """Each weight is counted or listed, once."""
  result = count_model(model)
  listed = sum(note.n_weights for note in (*result.not_counted, *result.free))
  n_counted = result.count.counts.param_bits / 32
  assert n_counted + listed == model.count_params()
  return result


def _backbone(size=None):
  inputs = Input((size, size, 3))
  outputs = K.Conv2D(4, 3, padding='same', name='conv')(inputs)
  return Model(inputs, K.ReLU(name='relu')(outputs), name='backbone')


def _backbone_flops(size):
  return size**2 * 4 * (2 * 27 + 1)


class _Own(Model):
  """A custom model around others."""

  def __init__(self, *inner):
    super().__init__(name='own')
    self.inner = list(inner)

  def call(self, inputs):
    for inner in self.inner:
      inputs = inner(inputs)
    return inputs


class _OwnLayer(K.Layer):
  def __init__(self, inner):
    super().__init__(name='own_layer')
    self.inner = inner

  def call(self, inputs):
    return self.inner(inputs)


def _functional(inner):
  inputs = Input((None, None, 3))
  return Model(inputs, inner(inputs), name='outer')


# A backbone -> what has it inside.
NESTED = {
  'functional': _functional,
  'sequential': lambda inner: Sequential([Input((None, None, 3)), inner], name='outer'),
  'model_of_ones_own': _Own,
  'layer_of_ones_own': _OwnLayer,
  'functional_in_sequential': lambda inner: Sequential(
    [Input((None, None, 3)), _functional(inner)]
  ),
  'three_deep': lambda inner: _Own(_functional(_OwnLayer(inner))),
}


class TestCalls:
  @pytest.mark.parametrize('kind', NESTED)
  def test_the_size_of_the_call_counts(self, kind):
    nested = NESTED[kind](_backbone())
    small, large = Input((6, 6, 3)), Input((10, 10, 3))
    model = Model([small, large], [nested(small), nested(large)])
    result = _assert_complete(model)
    assert result.count.flops == _backbone_flops(6) + _backbone_flops(10)
    assert result.not_counted == ()
    assert result.count.megabytes == (27 * 4 + 4) * 4 / 1e6

  @pytest.mark.parametrize('kind', NESTED)
  def test_the_size_of_a_call_on_values(self, kind):
    model = _Own(NESTED[kind](_backbone()))
    model(tf2.zeros((2, 6, 6, 3)))
    result = _assert_complete(model)
    assert result.count.flops == _backbone_flops(6)
    assert result.not_counted == ()

  def test_a_model_that_was_built_for_another_size(self):
    inputs = Input((10, 10, 3))
    try:
      model = Model(inputs, _backbone(6)(inputs))
    except ValueError:
      pytest.skip('Keras 3 does not call it on another size.')
    assert count_model(model).count.flops == _backbone_flops(10)

  def test_a_model_counts_on_its_own_inputs_whoever_calls_it(self):
    for make in (
      _backbone,
      lambda size: Sequential([Input((size, size, 3)), *_backbone(None).layers[1:]]),
    ):
      model = make(6)
      model(Input((6, 6, 3)))
      assert count_model(model).count.flops == _backbone_flops(6)

  def test_an_application_without_a_size(self):

    def application(size):
      return tf2.keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(size, size, 3)
      )

    inputs = Input((64, 64, 3))
    nested = _assert_complete(Model(inputs, application(None)(inputs)))
    alone = _assert_complete(application(64))
    assert nested.count.flops == alone.count.flops
    assert nested.not_counted == alone.not_counted == ()

  @pytest.mark.parametrize('n_times', [1, 2, 3])
  def test_a_layer_of_a_model_of_ones_own_counts_at_every_call(self, n_times):
    dense = K.Dense(4, use_bias=False, name='fc')
    model = _Own(*[dense] * n_times)
    model(tf2.zeros((1, 4)))
    result = _assert_complete(model)
    assert result.count.flops == n_times * 4 * (2 * 4 - 1)

  def test_patches_folded_into_the_batch(self):

    class Patches(K.Layer):
      def __init__(self):
        super().__init__()
        self.fc = K.Dense(2, use_bias=False)

      def call(self, inputs):
        return tf2.reshape(self.fc(tf2.reshape(inputs, (-1, 4))), (-1, 5, 2))

    inputs = Input((5, 4))
    model = Model(inputs, Patches()(inputs))
    assert _assert_complete(model).count.flops == 5 * 2 * (2 * 4 - 1)

  def test_a_batch_of_a_fixed_size_counts_as_one_example(self):
    inputs = Input(batch_shape=(4, 5))
    model = Model(inputs, K.Dense(2, use_bias=False)(inputs))
    assert count_model(model).count.flops == 2 * (2 * 5 - 1)

  def test_inputs_in_a_dictionary(self):
    inputs = {'a': Input((4,), name='a'), 'b': Input((5,), name='b')}
    model = Model(inputs, K.Add()([K.Dense(3)(one) for one in inputs.values()]))
    assert count_model(model).count.flops == 3 * 2 * 4 + 3 * 2 * 5 + 3

  def test_a_list_of_layers_that_are_called_on_several_sizes(self):
    conv = K.Conv2D(4, 3, name='conv')
    inputs = [Input((size, size, 3)) for size in (6, 10)]
    model = Model(inputs, [conv(one) for one in inputs])
    (note,) = count_model(model.layers).not_counted
    assert (note.name, note.n_weights) == ('conv', 27 * 4 + 4)
    assert '2 sizes; count a model that calls it' in note.reason


class _Scaled(K.Dense):
  def call(self, inputs):
    return 2.0 * super().call(inputs)


class _MixIn:
  def call(self, inputs):
    return 2.0 * super().call(inputs)


class _Mixed(_MixIn, K.Dense):
  pass


class _Renamed(K.Dense):
  def __init__(self, units, color='red', **kwargs):
    super().__init__(units, **kwargs)
    self.color = color

  def get_config(self):
    return {**super().get_config(), 'color': self.color}


class _Counting(K.Dense):
  """Has a weight more, and computes the same."""

  def build(self, shape):
    super().build(shape)
    self.steps = self.add_weight(name='steps', shape=(7,), trainable=False)


class _Standardized(K.Conv2D):
  def convolution_op(self, inputs, kernel):
    return super().convolution_op(inputs, kernel / tf2.reduce_sum(kernel))


class _Factor(K.Layer):
  def build(self, shape):
    self.factor = self.add_weight(name='factor', shape=(shape[-1],))

  def call(self, inputs):
    return inputs * self.factor


class _Residual(K.Layer):
  def __init__(self):
    super().__init__()
    self.fc = K.Dense(3)

  def call(self, inputs):
    return self.fc(inputs) + inputs


class _OwnLSTM(K.LSTM):
  def call(self, sequences, initial_state=None, mask=None, training=False):
    return 2.0 * super().call(sequences)


class _OwnWrapper(K.Wrapper):
  def call(self, inputs):
    return self.layer(inputs) + inputs


class _Unused(K.Layer):
  def __init__(self):
    super().__init__()
    self.unused = K.Dense(3, name='unused')

  def build(self, shape):
    self.unused.build(shape)
    self.built = True

  def call(self, inputs):
    return inputs


def _replaced_call():
  layer = K.Dense(3)
  layer.call = lambda inputs: tf2.matmul(inputs, 2.0 * layer.kernel)
  return layer


def _own_activation():

  def relu(inputs):
    return tf2.nn.relu(inputs) * tf2.exp(inputs)

  return K.Dense(3, activation=relu)


KIND = '^no rule for this kind of layer$'

# name -> (layer, shape of its input, weights that count, what is listed).
OWN = {
  'unchanged': (lambda: _Renamed(3), (3,), 12, ''),
  'overrides_call': (lambda: _Scaled(3), (3,), 0, 'own operations .*MatMul.*own weights'),
  'mixed_in': (lambda: _Mixed(3), (3,), 0, 'own operations .*MatMul.*own weights'),
  'replaces_call': (_replaced_call, (3,), 0, 'own operations .*MatMul.*own weights'),
  'overrides_what_call_uses': (
    lambda: _Standardized(4, 3),
    (8, 8, 3),
    0,
    'own operations .*Conv2D.*own weights',
  ),
  'more_weights': (lambda: _Counting(3), (3,), 12, 'its other weights'),
  'own_activation': (_own_activation, (3,), 12, r'activation .*test\.relu'),
  'activation_with_weights': (
    lambda: K.Dense(3, activation=K.PReLU()),
    (3,),
    12,
    "other weights.* activation 'prelu'",
  ),
  **{
    f'named_{name}': (
      lambda name=name: type(name, (_Factor,), {})(),
      (3,),
      0,
      r'own operations \(Mul\).*own weights',
    )
    for name in ('Dense', 'Conv2D', 'Add', 'Dropout', 'Functional')
  },
  'inner_layer': (lambda: _Residual(), (3,), 12, 'own operations .AddV2.'),
  'own_wrapper': (lambda: _OwnWrapper(K.Dense(3)), (3,), 12, r'own operations \(AddV2\)'),
  'never_called': (_Unused, (3,), 0, 'it is never called'),
  'wrapper': (lambda: K.TimeDistributed(K.Dense(3)), (5, 3), 0, KIND),
  'both_directions': (lambda: K.Bidirectional(K.LSTM(3)), (5, 3), 0, KIND),
  'own_recurrent': (lambda: _OwnLSTM(3), (5, 3), 0, KIND),
  'regularized_wrapper': (lambda: K.SpectralNormalization(K.Dense(3)), (3,), 0, KIND),
  'regularized': (
    lambda: K.Dense(3, kernel_regularizer='l2', activity_regularizer='l2'),
    (3,),
    12,
    '',
  ),
  'normalization': (K.LayerNormalization, (3,), 0, KIND),
  'folded': (K.BatchNormalization, (3,), 0, ''),
}


class TestOwnLayers:
  @pytest.mark.parametrize('name', OWN)
  def test_what_no_rule_explains_is_listed(self, name):
    make, shape, n_counted, reason = OWN[name]
    inputs = Input(shape)
    result = _assert_complete(Model(inputs, make()(inputs)))
    assert result.count.counts.param_bits == 32 * n_counted
    reasons = ', '.join(note.reason for note in result.not_counted)
    assert re.search(f'^{reason}$' if not reason else reason, reasons), reasons

  def test_an_unchanged_subclass_counts_as_its_parent(self):
    inputs = Input((3,))
    for cls in (K.Dense, _Renamed):
      assert count_model(Model(inputs, cls(4)(inputs))).count.flops == 4 * 2 * 3

  def test_weights_of_the_model_itself(self):

    class Shifted(Model):
      def __init__(self):
        inputs = Input((3,))
        super().__init__(inputs, K.Dense(4)(inputs), name='shifted')
        self.shift = self.add_weight(name='shift', shape=(5,))

    result = _assert_complete(Shifted())
    assert result.count.counts.param_bits == 32 * 16
    assert [(note.name, note.n_weights) for note in result.not_counted] == [('shifted', 5)]

  def test_a_kernel_that_two_layers_share(self):
    inputs = Input((3,))
    first = K.Dense(3, name='first')
    # A property in Keras 3.
    attribute = '_kernel' if hasattr(K.Dense, 'kernel') else 'kernel'

    class Tied(K.Dense):
      def build(self, shape):
        setattr(self, attribute, first.kernel)
        self.bias = self.add_weight(name='bias', shape=(3,))
        self.built = True

    model = Model(inputs, Tied(3, name='second')(first(inputs)))
    result = _assert_complete(model)
    (note,) = result.not_counted
    assert (note.name, note.n_weights) == ('second', 3)
    assert "counted or listed with 'first'" in note.reason

  @pytest.mark.filterwarnings('ignore:__array__:DeprecationWarning')
  @pytest.mark.parametrize(
    'change',
    [lambda layer: layer.quantize('int8'), lambda layer: layer.enable_lora(2)],
    ids=['int8', 'lora'],
  )
  def test_a_layer_that_was_changed_in_place(self, change):
    layer = K.Dense(4)
    if not hasattr(layer, 'quantize'):
      pytest.skip('Only Keras 3 changes layers in place.')
    inputs = Input((8,))
    model = Model(inputs, layer(inputs))
    change(layer)
    result = _assert_complete(model)
    assert not result.count.layers
    assert ['own operations' in note.reason for note in result.not_counted] == [True, False]

  def test_a_model_that_cannot_be_traced_is_listed_whole(self):

    class Pairs(K.Layer):
      def call(self, inputs):
        if inputs.shape[0] == 1:
          raise TypeError('only pairs')
        return inputs

    model = _Own(K.Dense(4, name='fc'), Pairs(name='pairs'))
    model(tf2.ones((2, 3)))
    result = _assert_complete(model)
    assert not result.count.layers
    assert {note.name for note in result.not_counted} == {'fc', 'pairs'}
    assert all(
      note.reason.startswith('TensorFlow cannot trace it: ') for note in result.not_counted
    )

  @pytest.mark.parametrize(
    'model', [object(), [object()], tf2.Module()], ids=['object', 'list', 'module']
  )
  def test_what_is_not_of_keras(self, model):
    with pytest.raises(ValueError, match='models and layers of Keras, got <'):
      count_model(model)


@pytest.mark.parametrize(
  'name, kwargs',
  [
    ('MobileNetV3Small', {}),
    ('EfficientNetB0', {}),
    ('ResNet50V2', {}),
    ('ConvNeXtTiny', {}),
    ('VGG16', {'include_top': False}),
  ],
)
def test_each_weight_of_an_application_is_counted_or_listed(name, kwargs):
  model = getattr(tf2.keras.applications, name)(weights=None, input_shape=(64, 64, 3), **kwargs)
  result = _assert_complete(model)
  kernels = [weight for weight in model.weights if 'kernel' in weight.name]
  assert result.count.n_weights == sum(np.prod(weight.shape) for weight in kernels)

"""LeNet-300-100: its variables, its registry, its loss."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.mnist import mnist_data, mnist_model, mnist_train_eval
from rigl.model_pruning import pruning

LAYERS = ['layer1', 'layer2', 'layer3']
# Reference data measured on the 2020 implementation: U(-bound, bound).
INITIAL_BOUNDS = {'layer1': 0.07439795, 'layer2': 0.122474484, 'layer3': 0.23354968}


@pytest.fixture(autouse=True)
def fresh_graph(graph):
  return graph


def inputs(n=4, n_pixels=784, seed=0):
  random_state = np.random.RandomState(seed)
  return (
    tf.constant(random_state.rand(n, n_pixels).astype(np.float32)),
    tf.constant(random_state.randint(0, 10, n)),
  )


def rows(variables):
  return [
    {
      'name': v.op.name,
      'shape': v.shape.as_list(),
      'dtype': v.dtype.base_dtype.name,
      'trainable': v in tf.trainable_variables(),
    }
    for v in variables
  ]


def golden_rows(variables):
  keys = ('name', 'shape', 'dtype', 'trainable')
  return [
    {key: row[key] for key in keys}
    for row in variables
    if row['name'].startswith('layer') and not row['name'].endswith('/Momentum')
  ]


def test_masked_network_has_the_variables_of_the_reference_data(goldens):
  golden = goldens('variables_mnist_fc')
  mnist_model.mnist_network_fc(inputs(), model_pruning=True)
  # Names, shapes, types and the order of creation.
  assert rows(tf.global_variables()) == golden_rows(golden['variables'])
  assert [v.op.name for v in tf.trainable_variables()] == (golden['all_trainable_in_order'])


def test_dense_network_has_the_variables_of_the_reference_data(goldens):
  golden = goldens('variables_mnist_fc')
  mnist_model.mnist_network_fc(inputs())
  assert rows(tf.global_variables()) == golden_rows(golden['baseline_variables'])
  assert not pruning.get_masks()


@pytest.mark.parametrize('model_pruning', [False, True])
def test_as_many_outputs_as_the_data_have_classes(monkeypatch, model_pruning):
  monkeypatch.setattr(mnist_data, 'N_CLASSES', 26)
  mnist_model.mnist_network_fc(inputs(n_pixels=9), model_pruning=model_pruning)
  shapes = [v.shape.as_list() for v in tf.trainable_variables() if v.shape.ndims == 2]
  assert shapes == [[9, 300], [300, 100], [100, 26]]


def registry():
  return {
    'masks': [v.name for v in pruning.get_masks()],
    'masked_weights': [t.name for t in pruning.get_masked_weights()],
    'thresholds': [v.name for v in pruning.get_thresholds()],
    'kernel': [v.name for v in pruning.get_weights()],
  }


def regularized_scopes():
  return [
    loss.op.name.split('/')[0] for loss in tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
  ]


def test_registry_is_that_of_the_reference_data(goldens):
  golden = goldens('variables_mnist_fc')
  mnist_model.mnist_network_fc(inputs(), model_pruning=True)
  assert registry() == (golden['collections_in_order_after_main_halves_them'])
  assert regularized_scopes() == (golden['regularization_loss_op_scopes_in_order'])


@pytest.mark.parametrize('model_pruning', [False, True])
@pytest.mark.parametrize('l2_scale', [0.0, 1e-4])
def test_second_network_shares_all_and_registers_nothing(model_pruning, l2_scale):
  first = mnist_model.mnist_network_fc(inputs(), model_pruning=model_pruning)
  variables, registered = rows(tf.global_variables()), registry()
  second = mnist_model.mnist_network_fc(
    inputs(), reuse=True, model_pruning=model_pruning, l2_scale=l2_scale
  )
  assert rows(tf.global_variables()) == variables
  assert registry() == registered
  assert regularized_scopes() == LAYERS
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert session.run(first) == session.run(second)


@pytest.mark.parametrize('model_pruning', [False, True])
def test_weights_start_uniform_within_the_bounds_of_the_reference_data(model_pruning):
  mnist_model.mnist_network_fc(inputs(), model_pruning=model_pruning)
  names = ('weights', 'biases') if model_pruning else ('kernel', 'bias')
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    values = session.run({v.op.name: v for v in tf.global_variables()})
  for layer, bound in INITIAL_BOUNDS.items():
    weights = values[f'{layer}/{names[0]}']
    assert np.abs(weights).max() <= bound * (1 + 1e-6)
    assert np.abs(weights).max() > 0.99 * bound
    assert weights.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not values[f'{layer}/{names[1]}'].any()
    if model_pruning:
      assert values[f'{layer}/mask'].all()
      assert values[f'{layer}/threshold'] == 0.0


def initial_values(seed, model_pruning=True):
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    mnist_model.mnist_network_fc(inputs(), model_pruning=model_pruning)
    session.run(tf.global_variables_initializer())
    return session.run({v.op.name: v for v in tf.global_variables()})


def test_seed_decides_the_weights():
  first, again, other = initial_values(1), initial_values(1), initial_values(2)
  dense = initial_values(1, model_pruning=False)
  for layer in LAYERS:
    name = f'{layer}/weights'
    np.testing.assert_array_equal(first[name], again[name])
    assert (first[name] != other[name]).mean() > 0.99
    # A sparse network is a masked one of the same weights.
    np.testing.assert_array_equal(first[name], dense[f'{layer}/kernel'])
  assert not np.array_equal(
    first['layer1/weights'].ravel()[:1000], first['layer2/weights'].ravel()[:1000]
  )


@pytest.mark.parametrize('model_pruning', [False, True])
def test_loss_and_accuracy_against_numpy(model_pruning):
  images, labels = inputs(n=16, seed=3)
  outputs = mnist_model.mnist_network_fc((images, labels), model_pruning=model_pruning)
  penalty = tf.losses.get_regularization_loss()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    random_state = np.random.RandomState(1)
    for variable in tf.trainable_variables():
      if variable.shape.ndims == 1:
        variable.load(random_state.normal(size=variable.shape), session)
    for mask in pruning.get_masks():
      mask.load(random_state.rand(*mask.shape.as_list()) < 0.3, session)
    values = session.run({v.op.name: v for v in tf.global_variables()})
    (loss, accuracy), l2, x, y = session.run([outputs, penalty, images, labels])
  weights, biases = ('weights', 'biases') if model_pruning else ('kernel', 'bias')
  expected_l2 = 0.0
  for layer in LAYERS:
    w = values[f'{layer}/{weights}'].astype(np.float64)
    # The penalty is on all weights, inactive ones included.
    expected_l2 += 1e-4 * np.sum(w**2) / 2
    x = x @ (w * values.get(f'{layer}/mask', 1.0)) + values[f'{layer}/{biases}']
    if layer != LAYERS[-1]:
      x = np.maximum(x, 0.0)
  log_p = x - x.max(1, keepdims=True)
  log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
  assert loss == pytest.approx(-log_p[np.arange(16), y].mean(), rel=1e-5)
  assert accuracy == pytest.approx((log_p.argmax(1) == y).mean())
  assert l2 == pytest.approx(expected_l2, rel=1e-5)


@pytest.mark.parametrize('model_pruning', [False, True])
def test_no_penalty_when_its_scale_is_zero(model_pruning):
  mnist_model.mnist_network_fc(inputs(), model_pruning=model_pruning, l2_scale=0.0)
  assert not tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)


def test_fewer_pixels_make_a_smaller_first_layer():
  mnist_model.mnist_network_fc(inputs(n_pixels=69), model_pruning=True)
  shapes = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
  assert shapes['layer1/weights'] == shapes['layer1/mask'] == [69, 300]
  assert shapes['layer2/weights'] == [300, 100]


@pytest.mark.parametrize('dtype', [tf.uint8, tf.int32, tf.int64])
def test_labels_of_any_integer_type(dtype):
  images, labels = inputs()
  loss, _ = mnist_model.mnist_network_fc((images, tf.cast(labels, dtype)))
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    assert np.isfinite(session.run(loss))


def test_the_script_still_has_the_network():
  assert mnist_train_eval.mnist_network_fc is mnist_model.mnist_network_fc

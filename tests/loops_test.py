"""Masked weights inside loops and branches, with each method."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.model_pruning import pruning
from tests import combinations, sparse_net

SCHEDULE = {'begin_step': 0, 'end_step': -1, 'frequency': 2, 'drop_fraction': 0.5}
INPUTS = np.random.RandomState(0).randn(4, 5, 3).astype(np.float32)
LABELS = np.random.RandomState(1).randn(5, 6).astype(np.float32)


CONTROL_FLOWS = ['control flow of TensorFlow 1', 'of TensorFlow 2']


@pytest.fixture(params=CONTROL_FLOWS)
def control_flow(request):
  """TensorFlow 1 builds loops into the graph, TensorFlow 2 into functions."""
  is_v2 = tf.control_flow_v2_enabled()
  (tf.disable_control_flow_v2 if request.param.endswith('1') else tf.enable_control_flow_v2)()
  yield
  (tf.enable_control_flow_v2 if is_v2 else tf.disable_control_flow_v2)()


class _Cell:
  """An Elman cell with one masked kernel, made inside of the loop."""

  state_size = output_size = 6

  def zero_state(self, batch_size, dtype):
    return tf.zeros([batch_size, 6], dtype)

  def __call__(self, inputs, state, scope=None):
    del scope
    with tf.variable_scope('cell', reuse=tf.AUTO_REUSE):
      kernel = _kernel(int(inputs.shape[-1]) + 6)
    state = tf.tanh(tf.matmul(tf.concat([inputs, state], 1), pruning.apply_mask(kernel)))
    return state, state


def _kernel(n_in):
  return tf.get_variable(
    'kernel',
    [n_in, 6],
    initializer=tf.constant_initializer(np.random.RandomState(2).randn(n_in, 6)),
  )


def _product(inputs):
  with tf.variable_scope('layer', reuse=tf.AUTO_REUSE):
    return tf.matmul(inputs, pruning.apply_mask(_kernel(3)))


def _elman():
  cell, state = _Cell(), tf.zeros([5, 6])
  with tf.variable_scope('rnn'):  # As dynamic_rnn names it.
    for inputs in INPUTS:
      _, state = cell(tf.constant(inputs), state)
  return state


def _one_product():
  return _product(INPUTS[0])


def _sum_of_products():
  return tf.add_n([_product(x) for x in INPUTS])


# How a loop is written, and what it comes to without one: [5, 6] both.
LOOPS = {
  'dynamic_rnn': (
    lambda: tf.nn.dynamic_rnn(_Cell(), tf.constant(INPUTS), dtype=tf.float32, time_major=True)[1],
    _elman,
  ),
  'while_loop': (
    lambda: tf.while_loop(
      lambda t, _: t < 4,
      lambda t, y: (t + 1, y + _product(tf.constant(INPUTS)[t])),
      (0, tf.zeros([5, 6])),
    )[1],
    _sum_of_products,
  ),
  'map_fn': (
    lambda: tf.reduce_sum(tf.map_fn(_product, INPUTS, fn_output_signature=tf.float32), 0),
    _sum_of_products,
  ),
  'cond': (
    lambda: tf.cond(
      tf.reduce_sum(tf.constant(INPUTS)) > -1e9, _one_product, lambda: tf.zeros([5, 6])
    ),
    _one_product,
  ),
}


def _trained(method, build):
  """{variable: value} after five runs of the train op."""
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    tf.set_random_seed(0)
    loss = tf.reduce_mean(tf.square(build() - LABELS))
    optimizer = sparse_net.METHODS[method](
      tf.train.MomentumOptimizer(0.01, 0.9), **sparse_net.hyper_of(method, SCHEDULE)
    )
    train_op = optimizer.minimize(loss, tf.train.get_or_create_global_step())
    session.run(tf.global_variables_initializer())
    for mask in pruning.get_masks():
      if method in sparse_net.DYNAMIC_METHODS:
        mask.load(np.arange(mask.shape.num_elements()).reshape(mask.shape) % 2, session)
    for _ in range(5):
      session.run(train_op)
    return session.run({v.op.name: v for v in tf.global_variables()})


# Without a loop, it does not matter which control flow is on.
_trained_in_a_row = functools.lru_cache(maxsize=None)(_trained)


@pytest.mark.parametrize(
  'method, loop, control_flow',
  combinations.thinned(sparse_net.METHODS, LOOPS, CONTROL_FLOWS),
  indirect=['control_flow'],
)
@pytest.mark.usefixtures('control_flow')
def test_a_loop_trains_as_its_steps_in_a_row(method, loop):
  build, build_in_a_row = LOOPS[loop]
  in_loop = _trained(method, build)
  in_a_row = _trained_in_a_row(method, build_in_a_row)
  assert set(in_loop) == set(in_a_row)
  scope = 'rnn/cell' if loop == 'dynamic_rnn' else 'layer'
  np.testing.assert_array_equal(in_loop[f'{scope}/mask'], in_a_row[f'{scope}/mask'])
  np.testing.assert_allclose(
    in_loop[f'{scope}/kernel'], in_a_row[f'{scope}/kernel'], rtol=1e-4, atol=1e-6
  )
  if method in sparse_net.DYNAMIC_METHODS and method != 'static':
    start = np.arange(in_loop[f'{scope}/mask'].size) % 2
    assert (in_loop[f'{scope}/mask'].ravel() != start).any()


@pytest.mark.parametrize(
  'method, control_flow',
  combinations.thinned(sparse_net.METHODS, CONTROL_FLOWS),
  indirect=['control_flow'],
)
@pytest.mark.usefixtures('control_flow')
def test_the_product_may_be_made_before_the_loop(method):

  def build():
    _one_product()
    return LOOPS['while_loop'][0]()

  one = _trained(method, build)
  other = _trained_in_a_row(method, _sum_of_products)
  np.testing.assert_array_equal(one['layer/mask'], other['layer/mask'])


def test_dense_gradient_of_a_loop_by_hand():
  """Of y = 3 * sum(x @ w): the sum of the x of all times, not the last one."""
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    loss = 3.0 * tf.reduce_sum(LOOPS['while_loop'][0]())
    optimizer = sparse_net.METHODS['rigl'](tf.train.GradientDescentOptimizer(0.1), **SCHEDULE)
    optimizer.compute_gradients(loss)
    (weights,) = optimizer.get_weights()
    (mask,) = optimizer.get_masks()
    session.run(tf.global_variables_initializer())
    mask.load(np.zeros([3, 6]), session)
    got = session.run(optimizer.dense_gradient(weights))
  np.testing.assert_allclose(
    got, 3.0 * np.tile(INPUTS.sum(axis=(0, 1))[:, None], (1, 6)), rtol=1e-5
  )


# --- Where the dense gradient comes from --------------------------------------


def _dense_gradient(loss):
  [(gradient, _)] = sparse_net.METHODS['rigl'](
    tf.train.GradientDescentOptimizer(0.1), **SCHEDULE
  ).compute_dense_gradients(loss)[1]
  return gradient


def test_other_uses_of_the_mask_are_no_part_of_the_dense_gradient():
  """As of a penalty on the active weights, or a mean over them."""
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    outputs = _product(INPUTS[0])
    (mask,), (weights,) = pruning.get_masks(), pruning.get_weights()
    loss = tf.reduce_sum(outputs) + 7.0 * tf.reduce_sum(tf.abs(weights) * mask)
    gradient = _dense_gradient(loss / tf.stop_gradient(tf.reduce_sum(mask)))
    session.run(tf.global_variables_initializer())
    got = session.run(gradient)
  np.testing.assert_allclose(got, np.tile(INPUTS[0].sum(axis=0)[:, None], (1, 6)) / 18.0, rtol=1e-5)


@pytest.mark.usefixtures('control_flow')
@pytest.mark.parametrize('takes_branch', [True, False])
def test_a_layer_that_a_branch_made_is_used_outside_of_it(takes_branch):
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    flag = tf.placeholder(tf.bool, [])
    first = tf.cond(flag, lambda: _product(INPUTS[0]), lambda: tf.zeros([5, 6]))
    loss = tf.reduce_sum(first) + tf.reduce_sum(_product(INPUTS[1]))
    gradient = _dense_gradient(loss)
    session.run(tf.global_variables_initializer())
    got = session.run(gradient, {flag: takes_branch})
  expected = INPUTS[1].sum(axis=0) + takes_branch * INPUTS[0].sum(axis=0)
  np.testing.assert_allclose(got, np.tile(expected[:, None], (1, 6)), rtol=1e-5)


def test_a_layer_used_in_a_function_alone_is_registered():
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    with tf.variable_scope('layer'):
      kernel = _kernel(3)
      mask, threshold = (
        tf.get_variable(name, shape, initializer=tf.ones_initializer(), trainable=False)
        for name, shape in (('mask', [3, 6]), ('threshold', []))
      )
    outputs = tf2.function(
      lambda x: tf.matmul(x, pruning.apply_mask(kernel, mask, threshold)), autograph=False
    )(tf.constant(INPUTS[0]))
    assert [m.op.name for m in pruning.get_masks()] == ['layer/mask']
    gradient = _dense_gradient(tf.reduce_sum(outputs))
    session.run(tf.global_variables_initializer())
    np.testing.assert_allclose(
      session.run(gradient), np.tile(INPUTS[0].sum(axis=0)[:, None], (1, 6)), rtol=1e-5
    )


@pytest.mark.parametrize('mask_dtype', ['int32', 'float64'])
def test_a_mask_of_another_type_is_used_before_a_loop(mask_dtype):
  """In it, its gradient would be missing or rounded."""
  with tf.Graph().as_default():
    with tf.variable_scope('layer'):
      kernel = _kernel(3)
      mask = tf.get_variable('mask', [3, 6], mask_dtype, tf.ones_initializer(), trainable=False)

    def loss():
      return tf.reduce_sum(
        tf.map_fn(lambda x: tf.matmul(x, pruning.apply_mask(kernel, mask)), tf.constant(INPUTS))
      )

    with pytest.raises(
      ValueError, match=(f'layer/mask:0 is {mask_dtype}, its weights float32.*before it')
    ):
      loss()
    pruning.apply_mask(kernel, mask)
    assert _dense_gradient(loss()).shape == (3, 6)


def test_an_imported_graph_can_be_differentiated(tmp_path):
  """By a program that does not use this library."""
  path = str(tmp_path / 'graph.meta')
  with tf.Graph().as_default():
    tf.add_to_collection('loss', tf.reduce_sum(_product(INPUTS[0])))
    tf.train.export_meta_graph(path)
  program = f"""
import tensorflow.compat.v1 as tf
with tf.Graph().as_default():
  tf.train.import_meta_graph({path!r})
  print(tf.gradients(tf.get_collection("loss")[0], tf.trainable_variables()))
"""
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'shape=(3, 6)' in done.stdout

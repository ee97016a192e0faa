"""Gradients changed by programs, and several train ops in one graph."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.core import mask_math
from rigl.model_pruning import layers, pruning
from tests import combinations, sparse_net

EVERY_STEP = {'begin_step': 0, 'end_step': -1, 'frequency': 1, 'drop_fraction': 0.5}
EVERY_THIRD_STEP = {**EVERY_STEP, 'frequency': 3}

pytestmark = pytest.mark.usefixtures('graph')


def _wrap(method, schedule=EVERY_STEP, inner=None):
  return sparse_net.METHODS[method](
    inner or tf.train.MomentumOptimizer(0.1, 0.9), **sparse_net.hyper_of(method, schedule)
  )


def _dense(inputs, scope, n_out=6, **arguments):
  return layers.masked_fully_connected(inputs, n_out, scope=scope, activation_fn=None, **arguments)


def _global_step():
  return tf.train.get_or_create_global_step()


def _half_masks(session):
  """Loads masks of which every other entry is 1."""
  for mask in pruning.get_masks():
    mask.load(np.arange(mask.shape.num_elements()).reshape(mask.shape) % 2, session)


def _state(session):
  return session.run({v.op.name: v for v in tf.global_variables()})


def _assert_equal(one, other):
  assert set(one) == set(other)
  for name, value in one.items():
    np.testing.assert_array_equal(value, other[name], err_msg=name)


# --- Pairs of a gradient and its variable ------------------------------------


def _clipped(pairs):
  gradients, variables = zip(*pairs)
  return zip(tf.clip_by_global_norm(gradients, 0.01)[0], variables)


PAIRS = {
  'list': list,
  'zip': lambda pairs: zip(*zip(*pairs)),
  'generator': lambda pairs: (pair for pair in pairs),
  'clipped': _clipped,
}


@functools.lru_cache(maxsize=None)
def _trained(method, kind):
  """State after three steps of a train op of PAIRS[kind](pairs)."""
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    loss = tf.reduce_mean(
      tf.square(_dense(tf.random.stateless_normal([8, 20], [1, 2]), 'layer') - 1.0)
    )
    optimizer = _wrap(method)
    train_op = optimizer.apply_gradients(
      PAIRS[kind](optimizer.compute_gradients(loss)), _global_step()
    )
    session.run(tf.global_variables_initializer())
    if method in sparse_net.DYNAMIC_METHODS:
      _half_masks(session)
    for _ in range(3):
      session.run(train_op)
    return _state(session)


@pytest.mark.parametrize(
  'method, kind', combinations.thinned(sparse_net.METHODS, ['zip', 'generator'])
)
def test_pairs_may_come_in_any_iterable(method, kind):
  """The usual way to clip hands over a zip, which can be read once."""
  expected = _trained(method, 'list')
  _assert_equal(_trained(method, kind), expected)
  n_ones = {'snip': 48, 'dnw': 48}.get(method, 60)
  assert expected['layer/mask'].sum() == n_ones


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_clipped_gradients_move_the_masks_all_the_same(method):
  """Of the first step, whose weights no clipping has changed yet."""
  states = [_trained(method, kind) for kind in ('list', 'clipped')]
  if method in ('rigl', 'snip'):  # The only ones that move masks first.
    np.testing.assert_array_equal(*(s['layer/mask'] for s in states))
  assert states[0]['layer/mask'].sum() == states[1]['layer/mask'].sum()
  assert (states[0]['layer/weights'] != states[1]['layer/weights']).any()


# --- Several calls of compute_gradients --------------------------------------


def _two_losses():
  """Losses of one layer whose gradients are largest in other columns."""
  outputs = _dense(tf.ones([1, 4]), 'layer', biases_initializer=None)
  return (
    tf.reduce_sum(outputs * [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    tf.reduce_sum(outputs * [50.0, 40.0, 30.0, 20.0, 10.0, 0.0]),
  )


def _grown_columns(train_op):
  """Which columns gain connections if the first row alone is connected."""
  (mask,) = pruning.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    start = np.zeros(mask.shape.as_list())
    start[0] = 1
    mask.load(start, session)
    session.run(train_op)
    return np.flatnonzero((session.run(mask) - start).max(axis=0) > 0).tolist()


@pytest.mark.parametrize(
  'method, processed, which',
  combinations.thinned(
    sparse_net.WITH_DENSE_GRADIENT, ['as they are', 'scaled', 'clipped', 'in a function'], [0, 1]
  ),
)
def test_growth_follows_the_call_whose_gradients_are_applied(method, processed, which):
  """A further call, for a log say, comes before or after it."""
  optimizer = _wrap(method, inner=tf.train.GradientDescentOptimizer(0.0))
  pairs = [optimizer.compute_gradients(loss) for loss in _two_losses()][which]
  if processed == 'scaled':
    pairs = [(gradient * 0.5, v) for gradient, v in pairs]
  elif processed == 'clipped':
    pairs = _clipped(pairs)
  elif processed == 'in a function':
    halve = tf2.function(lambda x: x / 2.0, autograph=False)
    pairs = [(halve(gradient), v) for gradient, v in pairs]
  # All three that move go to the four free places of one column.
  assert _grown_columns(optimizer.apply_gradients(pairs, _global_step())) == [[5], [0]][which]


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_gradients_of_several_calls_are_refused(method):
  """As of towers, or of an auxiliary loss: how they add up is not known."""
  optimizer = _wrap(method)
  first, second = (optimizer.compute_gradients(loss) for loss in _two_losses())
  mean = [((a + b) / 2.0, v) for (a, v), (b, _) in zip(first, second)]
  with pytest.raises(
    ValueError, match=('called 2 times for layer/weights:0.*2 of these.*Add up the losses')
  ):
    optimizer.apply_gradients(mean, _global_step())


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_gradients_of_an_unknown_one_of_several_calls_are_refused(method):
  optimizer = _wrap(method)
  pairs = [optimizer.compute_gradients(loss) for loss in _two_losses()][0]
  unknown = [(tf.ones(v.shape), v) for _, v in pairs]
  with pytest.raises(ValueError, match='layer/weights:0.*0 of these'):
    optimizer.apply_gradients(unknown, _global_step())


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_a_gradient_that_another_one_depends_on_is_not_combined(method):
  """A penalty on the gradient: the second call builds on the first one."""
  outputs = _dense(tf.ones([1, 4]), 'layer', biases_initializer=None)
  loss = tf.reduce_sum(tf.square(outputs) * tf.range(6.0))
  optimizer = _wrap(method)
  [(gradient, _)] = optimizer.compute_gradients(loss)
  pairs = optimizer.compute_gradients(loss + tf.reduce_sum(tf.square(gradient)))
  optimizer.apply_gradients(pairs, _global_step())


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_nor_if_all_gradients_are_clipped_by_their_norm(method):
  outputs = _dense(_dense(tf.ones([1, 4]), 'layer'), 'other')
  loss = tf.reduce_sum(tf.square(outputs) * tf.range(6.0))
  optimizer = _wrap(method)
  first = optimizer.compute_gradients(loss)
  pairs = optimizer.compute_gradients(
    loss + tf.linalg.global_norm([gradient for gradient, _ in first])
  )
  optimizer.apply_gradients(_clipped(pairs), _global_step())


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_nor_one_that_waits_for_another_train_op(method):
  optimizer = _wrap(method)
  first, second = _two_losses()
  with tf.control_dependencies([optimizer.minimize(first, _global_step())]):
    pairs = _clipped(optimizer.compute_gradients(second))
    optimizer.apply_gradients(pairs, _global_step())


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_gradients_kept_in_variables_are_those_of_the_only_call(method):
  optimizer = _wrap(method, inner=tf.train.GradientDescentOptimizer(0.0))
  pairs = optimizer.compute_gradients(_two_losses()[0])
  kept = [
    (tf.get_variable(f'kept_{i}', v.shape, trainable=False), v) for i, (_, v) in enumerate(pairs)
  ]
  add_up = [variable.assign_add(gradient) for (variable, _), (gradient, _) in zip(kept, pairs)]
  with tf.control_dependencies(add_up):
    train_op = optimizer.apply_gradients(
      [(variable.read_value(), v) for variable, v in kept], _global_step()
    )
  assert _grown_columns(train_op) == [5]


@pytest.mark.parametrize('method', ['dnw', 'snip', 'set', 'static'])
def test_methods_without_growth_by_gradient_take_the_mean_of_towers(method):
  """Only the applied gradient matters: one call with the mean does the same."""

  def trained(make_pairs):
    with tf.Graph().as_default(), sparse_net.quick_session() as session:
      losses = _two_losses()
      optimizer = _wrap(method)
      train_op = optimizer.apply_gradients(make_pairs(optimizer, losses), _global_step())
      session.run(tf.global_variables_initializer())
      for _ in range(3):
        session.run(train_op)
      return _state(session)

  def mean_of_gradients(optimizer, losses):
    first, second = (optimizer.compute_gradients(loss) for loss in losses)
    return [((a + b) / 2.0, v) for (a, v), (b, _) in zip(first, second)]

  one, other = (
    trained(mean_of_gradients),
    trained(lambda optimizer, losses: optimizer.compute_gradients((losses[0] + losses[1]) / 2.0)),
  )
  np.testing.assert_array_equal(one['layer/mask'], other['layer/mask'])
  np.testing.assert_allclose(one['layer/weights'], other['layer/weights'], rtol=1e-5)


# --- Several train ops --------------------------------------------------------


def _gan(method, n_optimizers, steps, scopes=('g', 'd')):
  """Train ops of the networks of a GAN; each reads what the other makes.

  Args:
    method: name of a method.
    n_optimizers: 1 for both networks, or 2, one for each.
    steps: the global step of each network.
    scopes: those to train; the other networks are built all the same.
  """
  with tf.variable_scope('g'):
    fake = _dense(tf.random.stateless_normal([16, 20], [3, 4]), 'layer', 20)
  with tf.variable_scope('d'):
    verdict = _dense(fake, 'layer', 4)
  losses = {
    'g': tf.reduce_mean(tf.square(verdict - 1.0)),
    'd': tf.reduce_mean(tf.square(verdict + 1.0)),
  }
  optimizers = [
    _wrap(method, EVERY_THIRD_STEP, tf.train.AdamOptimizer(1e-3)) for _ in range(n_optimizers)
  ]
  return [
    optimizer.minimize(losses[scope], step, var_list=tf.trainable_variables(f'{scope}/'))
    for scope, step, optimizer in zip(scopes, steps, itertools.cycle(optimizers))
  ]


def _own_steps():
  return [
    tf.get_variable(f'step_{scope}', [], tf.int64, tf.zeros_initializer(), trainable=False)
    for scope in 'gd'
  ]


@pytest.mark.parametrize(
  'method, n_optimizers, shares_step',
  combinations.thinned(sparse_net.METHODS, [1, 2], [True, False]),
)
def test_each_train_op_moves_the_masks_of_its_layers(method, n_optimizers, shares_step):
  steps = [_global_step()] * 2 if shares_step else _own_steps()
  if method == 'snip' and shares_step:
    with pytest.raises(ValueError, match='global_step:0.*of its own'):
      _gan(method, n_optimizers, steps)
    return
  ops = _gan(method, n_optimizers, steps)
  masks = pruning.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    _half_masks(session)
    first = session.run(masks)
    for _ in range(12):
      for op in ops:
        session.run(op)
    last = session.run(masks)
  for mask, before, after in zip(masks, first, last):
    assert (before != after).any() == (method != 'static'), mask.op.name
    n_ones = round(before.size * 0.4) if method in ('snip', 'dnw') else (before.sum())
    assert after.sum() == n_ones


@pytest.mark.parametrize('method, n_optimizers', combinations.thinned(sparse_net.METHODS, [1, 2]))
def test_a_train_op_does_not_know_of_another_one(method, n_optimizers):
  """Run alone, it does what it does in a graph that has no other."""

  def trained(scopes):
    with tf.Graph().as_default(), sparse_net.quick_session() as session:
      op, *_ = _gan(method, n_optimizers, _own_steps(), scopes)
      session.run(tf.global_variables_initializer())
      _half_masks(session)
      for _ in range(7):
        session.run(op)
      return _state(session)

  both, alone = trained('gd'), trained('g')
  assert {name: both[name].tolist() for name in alone} == {
    name: value.tolist() for name, value in alone.items()
  }


@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
def test_the_steps_of_the_last_updates_have_names_of_their_own(method):
  _gan(method, 2, _own_steps())
  names = [v.op.name for v in tf.global_variables()]
  assert [name for name in names if name.startswith('last_mask')] == [
    'last_mask_update_step',
    'last_mask_update_step_1',
  ]


def test_the_drop_fraction_is_that_of_the_last_train_op():
  """Two train ops of one layer that move masks at other steps."""
  loss = tf.reduce_sum(_dense(tf.ones([2, 4]), 'layer'))
  optimizer = _wrap('set', {**EVERY_THIRD_STEP, 'begin_step': 1})
  step = _global_step()
  fractions = []
  ops = []
  for _ in range(2):
    ops.append(optimizer.minimize(loss, step))
    fractions.append(optimizer.drop_fraction)
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    values = [session.run([fraction, op])[0] for fraction, op in zip(fractions * 2, ops * 2)]
  # Steps 1 to 4; the second op has its first update one step later.
  assert values == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize('n_optimizers', [1, 2])
def test_each_train_op_of_snfs_has_an_average_of_its_own(n_optimizers):
  """Two of the same layer: the average of one must not see the other's."""
  optimizers = [
    _wrap('momentum', inner=tf.train.GradientDescentOptimizer(0.0)) for _ in range(n_optimizers)
  ]
  ops = [
    optimizer.minimize(loss, _global_step())
    for loss, optimizer in zip(_two_losses(), itertools.cycle(optimizers))
  ]
  averages = [v for v in tf.global_variables() if 'ema' in v.op.name]
  assert [v.op.name for v in averages] == ['layer/dense_gradient_ema', 'layer/dense_gradient_ema_1']
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    for op in ops:
      session.run(op)
    got = [value[0] for value in session.run(averages)]
  np.testing.assert_allclose(got, [0.1 * np.arange(6.0), np.arange(5.0, -1.0, -1.0)], rtol=1e-5)


def test_snip_counts_an_l2_penalty():
  """|gradient of the whole loss * weight|, by hand.

  Without the penalty the scores are 3, 2, 2 and 4; it adds 2 * w to the
  gradient.
  """
  outputs = layers.masked_fully_connected(
    tf.ones([1, 4]),
    1,
    scope='layer',
    activation_fn=None,
    biases_initializer=None,
    weights_initializer=tf.constant_initializer([3.0, -2.0, 2.0, 1.0]),
    weights_regularizer=lambda w: tf.reduce_sum(tf.square(w)),
  )
  (masked,) = pruning.get_masked_weights()
  del outputs
  gradient = np.asarray([[1.0], [1.0], [1.0], [4.0]], np.float32)
  loss = tf.reduce_sum(masked * gradient) + tf.losses.get_regularization_loss()
  train_op = sparse_net.METHODS['snip'](
    tf.train.GradientDescentOptimizer(0.1), 0.5, 'random'
  ).minimize(loss, _global_step())
  (mask,) = pruning.get_masks()
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    session.run(train_op)
    # |1 + 6| * 3 = 21, |1 - 4| * 2 = 6, |1 + 4| * 2 = 10, |4 + 2| * 1 = 6.
    assert session.run(mask).ravel().tolist() == [1.0, 0.0, 1.0, 0.0]


# --- What programs of 2020 call -----------------------------------------------


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_dense_gradients_are_those_applied_whatever_is_computed_later(method):
  optimizer = _wrap(method)
  computed = []
  for loss in _two_losses():
    pairs = optimizer.compute_gradients(loss)
    computed.append((pairs, dict(optimizer._weight2masked_grads)))
  (name,) = computed[0][1]
  assert name == 'layer/weights:0'
  assert computed[0][1][name] is not computed[1][1][name]
  pairs, dense = computed[0]
  optimizer.apply_gradients(pairs, _global_step())
  optimizer.compute_gradients(tf.reduce_sum(optimizer.get_masked_weights()[0]))
  assert optimizer._weight2masked_grads[name] is dense[name]


@pytest.mark.parametrize('decay', [0.0, 0.9, 1.0])
def test_averages_of_snfs_answer_as_those_of_2020(decay):
  """With a decay of 1 the average stays where it starts, at 0."""
  outputs = _dense(tf.ones([1, 4]), 'layer', biases_initializer=None)
  optimizer = sparse_net.METHODS['momentum'](
    tf.train.GradientDescentOptimizer(0.1), momentum=decay, **EVERY_STEP
  )
  gradient = np.arange(6.0)
  train_op = optimizer.minimize(
    tf.reduce_sum(outputs * tf.constant(gradient, tf.float32)), _global_step()
  )
  (weights,) = optimizer.get_weights()
  average = optimizer._ema_grads.average(weights)
  assert average.op.name == 'layer/dense_gradient_ema'
  assert optimizer._ema_grads.average(_global_step()) is None
  with sparse_net.quick_session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(2):
      session.run(train_op)
    np.testing.assert_allclose(
      session.run(average), np.tile((1 - decay**2) * gradient, (4, 1)), rtol=1e-6
    )


def test_selection_is_the_one_of_core():
  """Growth of the first loss above, by hand: three of six move."""
  mask = np.zeros([4, 6], np.float32)
  mask[0] = 1
  update = mask_math.drop_and_grow(
    tf.constant(mask),
    tf.constant(np.arange(24.0).reshape(4, 6), tf.float32),
    tf.constant(np.tile(np.arange(6.0), (4, 1)), tf.float32),
    tf.constant(0.5),
  )
  with sparse_net.quick_session() as session:
    new = session.run(update.new_connections)
  assert np.argwhere(new).tolist() == [[1, 5], [2, 5], [3, 5]]

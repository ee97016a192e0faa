"""How the sparse optimizers use the wrapped one, and their errors."""

import numpy as np
import pytest

from rigl import sparse_optimizers, sparse_optimizers_base
from rigl.compat import tf
from rigl.core import methods
from rigl.model_pruning import layers, pruning
from tests import sparse_net


class _Spy(tf.train.GradientDescentOptimizer):
  """Counts calls."""

  def __init__(self):
    super().__init__(0.1)
    self.n_compute = self.n_apply = 0

  def compute_gradients(self, *args, **kwargs):
    self.n_compute += 1
    return super().compute_gradients(*args, **kwargs)

  def apply_gradients(self, *args, **kwargs):
    self.n_apply += 1
    return super().apply_gradients(*args, **kwargs)


def _wrap(method, inner, **changes):
  return sparse_net.METHODS[method](inner, **{**sparse_net.hyper_of(method), **changes})


def _two_layers():
  """The loss of a network with two masked layers, in the default graph."""
  hidden = layers.masked_fully_connected(tf.ones([2, 4]), 3, scope='first')
  outputs = layers.masked_fully_connected(hidden, 2, activation_fn=None, scope='second')
  return tf.reduce_mean(tf.square(outputs - 1.0))


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_inner_optimizer_is_called_once(method):
  with tf.Graph().as_default():
    spy = _Spy()
    _wrap(method, spy).minimize(_two_layers(), tf.train.get_or_create_global_step())
    assert (spy.n_compute, spy.n_apply) == (1, 1)


def _count_ops(graph, op_type):
  """In the graph and in the functions that branches live in."""
  definition = graph.as_graph_def()
  nodes = list(definition.node)
  for function in definition.library.function:
    nodes.extend(function.node_def)
  return sum(node.op == op_type for node in nodes)


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_one_backward_pass(method):
  counts = []
  for name in (None, method):
    with tf.Graph().as_default() as graph:
      optimizer = tf.train.GradientDescentOptimizer(0.1)
      if name:
        optimizer = _wrap(name, optimizer)
      optimizer.minimize(_two_layers(), tf.train.get_or_create_global_step())
      counts.append(_count_ops(graph, 'MatMul'))
  assert counts[0] == counts[1] > 2


@pytest.mark.parametrize('method', sparse_net.METHODS)
@pytest.mark.parametrize('all_variables', [True, False])
def test_gradients_are_those_of_the_variables_asked_for(method, all_variables):
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    loss = _two_layers()
    variables = tf.trainable_variables()[:: 1 if all_variables else -2]
    expected = tf.gradients(loss, variables)
    got = _wrap(method, tf.train.GradientDescentOptimizer(0.1)).compute_gradients(
      loss, None if all_variables else variables
    )
    assert [v for _, v in got] == variables
    session.run(tf.global_variables_initializer())
    # With masks of ones DNW's dense gradients are the ordinary ones.
    for a, b in session.run([(g, e) for (g, _), e in zip(got, expected)]):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_slots_are_those_of_the_wrapped_optimizer(method):
  with tf.Graph().as_default():
    inner = tf.train.AdamOptimizer()
    optimizer = _wrap(method, inner)
    optimizer.minimize(_two_layers(), tf.train.get_or_create_global_step())
    assert optimizer.get_slot_names() == inner.get_slot_names() == ['m', 'v']
    weights = optimizer.get_weights()[0]
    assert weights.name == 'first/weights:0'
    for slot in ('m', 'v'):
      assert optimizer.get_slot(weights, slot) is inner.get_slot(weights, slot)
    assert optimizer.variables() == inner.variables()
    assert len(optimizer.variables()) == 2 * 4 + 2


def test_slots_inside_an_optimizer_that_hides_them_are_reset():
  """As tf.train.experimental.enable_mixed_precision_graph_rewrite makes it."""

  class _Hiding(tf.train.Optimizer):
    def __init__(self, optimizer):
      super().__init__(False, 'Hiding')
      self._optimizer = optimizer

    def apply_gradients(self, *args, **kwargs):
      return self._optimizer.apply_gradients(*args, **kwargs)

  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    optimizer = sparse_optimizers.SparseSETOptimizer(
      _Hiding(tf.train.MomentumOptimizer(0.1, 0.9)), 0, -1, 1, 0.5
    )
    train_op = optimizer.minimize(_two_layers(), tf.train.get_or_create_global_step())
    assert optimizer.get_slot_names() == ['momentum']
    session.run(tf.global_variables_initializer())
    weights, mask = optimizer.get_weights()[0], optimizer.get_masks()[0]
    slot = optimizer.get_slot(weights, 'momentum')
    mask.load(np.eye(4, 3), session)
    slot.load(np.full([4, 3], 7.0), session)
    session.run(train_op)
    grown = (session.run(mask) == 1) & (np.eye(4, 3) == 0)
    assert grown.any()
    assert (session.run(slot)[grown] == 0).all()


@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
def test_the_slots_come_before_the_step_of_the_last_update(method):
  """The order of the variables in the graphs of 2020."""
  with tf.Graph().as_default():
    _wrap(method, tf.train.AdamOptimizer()).minimize(
      _two_layers(), tf.train.get_or_create_global_step()
    )
    names = [v.op.name for v in tf.global_variables()]
    assert names[-1] == 'last_mask_update_step'
    assert 'second/biases/Adam_1' in names


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_reference_variables_need_control_flow_of_their_kind(method):
  with tf.Graph().as_default():
    with tf.variable_scope('', use_resource=False):
      weights, mask, threshold, masked = sparse_net.add_layer('layer', np.ones([2, 3], np.float32))
    del mask, threshold
    optimizer = _wrap(method, tf.train.GradientDescentOptimizer(0.1))
    with pytest.raises(ValueError, match='reference variables'):
      optimizer.minimize(tf.reduce_sum(masked), tf.train.get_or_create_global_step(), [weights])


def test_without_a_global_step_the_graphs_own_is_read():
  """It then does not advance."""
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    step = tf.train.get_or_create_global_step()
    optimizer = _wrap('set', tf.train.GradientDescentOptimizer(0.1))
    train_op = optimizer.minimize(_two_layers())
    session.run(tf.global_variables_initializer())
    step.load(1, session)
    fraction, _ = session.run([optimizer.drop_fraction, train_op])
    assert fraction == sparse_net.SCHEDULE['drop_fraction']
    assert session.run(step) == 1


# --- Errors ------------------------------------------------------------------

BAD_ARGUMENTS = [
  ({'grow_init': 'initial_value'}, r"'initial_value'.*initial_dist"),
  ({'grow_init': None}, 'None'),
  ({'grow_init': 3}, '3'),
  ({'grow_init': 'random_normal_0'}, 'divide by zero'),
  ({'drop_fraction_anneal': 'linear'}, "'linear'.*constant, cosine, expon"),
  ({'drop_fraction_anneal': 'exponential_'}, "'exponential_'"),
  ({'drop_fraction_anneal': None}, 'None'),
  ({'drop_fraction': -0.1}, r'\[0, 1\], got -0.1'),
  ({'drop_fraction': 1.1}, r'\[0, 1\], got 1.1'),
  ({'frequency': 0}, 'frequency.*0'),
  ({'frequency': -2}, 'frequency.*-2'),
  ({'begin_step': 9, 'end_step': 8}, r'end_step \(8\).*begin_step \(9\)'),
]


@pytest.mark.parametrize(
  'method, words',
  [
    (methods.GradualPruning(), 'GradualPruning needs GradualPruningOptimizer'),
    (methods.SNIP, r"must be one such as methods.RigL\(\), got <class '.*SNIP'>"),
    ('rigl', "got 'rigl'"),
  ],
)
def test_methods_that_cannot_be_used(method, words):
  with pytest.raises(ValueError, match=words):
    sparse_optimizers.MethodOptimizer(_Spy(), method)


@pytest.mark.parametrize('arguments, message', BAD_ARGUMENTS)
@pytest.mark.parametrize('method', sparse_net.DYNAMIC_METHODS)
def test_bad_arguments_are_rejected(method, arguments, message):
  with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
    _wrap(method, tf.train.GradientDescentOptimizer(0.1), **arguments)


@pytest.mark.parametrize('grow_init', ['grad_scale', 'grad_sign_10'])
@pytest.mark.parametrize('method', ['set', 'static', 'momentum'])
def test_gradient_initialisations_are_rigls_alone(method, grow_init):
  with tf.Graph().as_default():
    with pytest.raises(ValueError, match=grow_init):
      _wrap(method, _Spy(), grow_init=grow_init)
    _wrap('rigl', _Spy(), grow_init=grow_init)


@pytest.mark.parametrize('decay', [-0.1, 1.1, 2.0])
def test_the_decay_of_snfs_is_checked(decay):
  with tf.Graph().as_default(), pytest.raises(ValueError, match=f'{decay}'):
    _wrap('momentum', _Spy(), momentum=decay)


def test_stateful_draws_are_warned_of_once(monkeypatch):
  """Programs of 2020 ask for them; draws stay stateless."""
  said = []
  monkeypatch.setattr(
    tf.logging, 'warning', lambda text, *values: said.append(text % values if values else text)
  )
  results = []
  for use_stateless in (True, False):
    with tf.Graph().as_default(), sparse_net.quick_session() as session:
      train_op = _wrap(
        'set', tf.train.GradientDescentOptimizer(0.1), begin_step=0, use_stateless=use_stateless
      ).minimize(_two_layers(), tf.train.get_or_create_global_step())
      session.run(tf.global_variables_initializer())
      masks = pruning.get_masks()
      for mask in masks:
        mask.load(np.arange(mask.shape.num_elements()).reshape(mask.shape) % 2, session)
      session.run(train_op)
      results.append(session.run(masks))
  for one, other in zip(*results):
    np.testing.assert_array_equal(one, other)
  assert [text.partition(' ')[0] for text in said if 'stateless' in text] == ['use_stateless=False']


@pytest.mark.parametrize('inner', [None, 'sgd', 0.1, tf.train.AdamOptimizer])
@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_only_optimizers_can_be_wrapped(method, inner):
  with tf.Graph().as_default(), pytest.raises(ValueError) as error:
    _wrap(method, inner)
  assert repr(inner) in str(error.value)


@pytest.mark.parametrize('method', sparse_net.WITH_DENSE_GRADIENT)
def test_dense_gradients_must_have_been_computed(method):
  with tf.Graph().as_default():
    loss = _two_layers()
    inner = tf.train.GradientDescentOptimizer(0.1)
    gradients = inner.compute_gradients(loss)
    with pytest.raises(ValueError, match='first/weights:0.*compute_gradients'):
      _wrap(method, inner).apply_gradients(gradients, tf.train.get_or_create_global_step())


@pytest.mark.parametrize('method', [*sparse_net.WITH_DENSE_GRADIENT, 'dnw'])
def test_the_loss_must_depend_on_every_masked_layer(method):
  with tf.Graph().as_default():
    loss = _two_layers()
    layers.masked_fully_connected(tf.ones([2, 4]), 3, scope='unused')
    with pytest.raises(ValueError, match='unused/weights:0'):
      _wrap(method, _Spy()).compute_gradients(loss)


def test_the_bases_ask_for_getters():
  with tf.Graph().as_default():
    for base in (
      sparse_optimizers_base.SparseSETOptimizerBase,
      sparse_optimizers_base.SparseRigLOptimizerBase,
    ):
      optimizer = base(_Spy(), **sparse_net.SCHEDULE)
      for getter in ('get_weights', 'get_masks', 'get_masked_weights'):
        with pytest.raises(NotImplementedError):
          getattr(optimizer, getter)()


def test_another_library_of_masked_layers_can_plug_in():
  """A subclass gives only three lists; no registry is involved."""

  class PluggedIn(sparse_optimizers_base.SparseRigLOptimizerBase):
    def get_weights(self):
      return [kernel]

    def get_masks(self):
      return [connections]

    def get_masked_weights(self):
      return [product]

  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    kernel = tf.get_variable('kernel', initializer=[1.0, 2.0, 3.0, 4.0])
    connections = tf.get_variable('connections', initializer=[1.0, 1.0, 0.0, 0.0], trainable=False)
    product = kernel * connections
    loss = tf.reduce_sum(product * [0.0, 0.0, 1.0, 2.0])
    train_op = PluggedIn(_Spy(), 0, -1, 1, 0.5).minimize(loss, tf.train.get_or_create_global_step())
    session.run(tf.global_variables_initializer())
    session.run(train_op)
    assert session.run(connections).tolist() == [0.0, 1.0, 0.0, 1.0]
    assert session.run(kernel).tolist() == [1.0, 2.0, 3.0, 0.0]


def test_public_names():
  for name in (
    'SparseSETOptimizer',
    'SparseStaticOptimizer',
    'SparseMomentumOptimizer',
    'SparseRigLOptimizer',
    'SparseSnipOptimizer',
    'SparseDNWOptimizer',
    'PruningGetterTf1Mixin',
  ):
    assert hasattr(sparse_optimizers, name)


def test_classes_derive_from_one_another_as_in_2020():
  """Programs ask isinstance, and override what they share."""
  base = sparse_optimizers_base
  for name in ('static', 'momentum'):
    assert issubclass(sparse_net.METHODS[name], sparse_optimizers.SparseSETOptimizer)
  assert issubclass(sparse_net.METHODS['rigl'], base.SparseRigLOptimizerBase)
  for name in sparse_net.DYNAMIC_METHODS:
    assert issubclass(sparse_net.METHODS[name], base.SparseSETOptimizerBase)

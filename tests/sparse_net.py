"""Networks of masked variables whose dense gradients a test feeds."""

from __future__ import annotations

import functools
from typing import Any, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from rigl import sparse_optimizers
from rigl.compat import tf
from rigl.core import methods
from rigl.model_pruning import mask_collections, pruning
from rigl.training import checkpoints
from tests import quick_sessions

METHODS = {
  'set': sparse_optimizers.SparseSETOptimizer,
  'momentum': sparse_optimizers.SparseMomentumOptimizer,
  'rigl': sparse_optimizers.SparseRigLOptimizer,
  'static': sparse_optimizers.SparseStaticOptimizer,
  'snip': sparse_optimizers.SparseSnipOptimizer,
  'dnw': sparse_optimizers.SparseDNWOptimizer,
}
DYNAMIC_METHODS = tuple(name for name in METHODS if methods.METHODS[name].is_dynamic)
# Those that keep the dense gradient; DNW trains with it.
WITH_DENSE_GRADIENT = tuple(name for name in DYNAMIC_METHODS if methods.METHODS[name].gradient)

SCHEDULE = {'begin_step': 1, 'end_step': 15, 'frequency': 4, 'drop_fraction': 0.5}
ONE_SHOT = {'default_sparsity': 0.6, 'mask_init_method': 'random'}

INNER_OPTIMIZERS = {
  'sgd': functools.partial(tf.train.GradientDescentOptimizer, 0.1),
  'momentum': functools.partial(tf.train.MomentumOptimizer, 0.1, 0.9),
  'nesterov': functools.partial(tf.train.MomentumOptimizer, 0.1, 0.9, use_nesterov=True),
  'adam': functools.partial(tf.train.AdamOptimizer, 0.05),
  'rmsprop': functools.partial(tf.train.RMSPropOptimizer, 0.02, momentum=0.9),
  'adagrad': functools.partial(tf.train.AdagradOptimizer, 0.2),
}

# What TensorFlow's optimizers start each slot with, by variable name.
SLOT_STARTS = {
  'sgd': {},
  'momentum': {'Momentum': 0.0},
  'nesterov': {'Momentum': 0.0},
  'adam': {'Adam': 0.0, 'Adam_1': 0.0},
  'rmsprop': {'RMSProp': 1.0, 'RMSProp_1': 0.0},
  'adagrad': {'Adagrad': 0.1},
}


def hyper_of(
  method: str, schedule: Mapping[str, Any] = SCHEDULE, one_shot: Mapping[str, Any] = ONE_SHOT
) -> Mapping[str, Any]:
  """Arguments of a method: those of the dynamic ones or those of the others."""
  return schedule if method in DYNAMIC_METHODS else one_shot


def add_layer(scope, weights, mask=None, mask_dtype=None, reuse=None):
  """Returns (weights, mask, threshold, masked weights) of a new masked layer.

  Args:
    scope: of its variables.
    weights: initial values.
    mask: initial values; ones when None.
    mask_dtype: NumPy type; that of the weights when None.
    reuse: whether the variables exist.
  """
  weights = np.asarray(weights)
  mask = np.ones(weights.shape) if mask is None else np.asarray(mask)
  with tf.variable_scope(scope, reuse=reuse):
    variables = (
      tf.get_variable('weights', initializer=weights),
      tf.get_variable(
        'mask', trainable=False, initializer=mask.astype(mask_dtype or weights.dtype)
      ),
      tf.get_variable('threshold', [], weights.dtype, tf.zeros_initializer(), trainable=False),
    )
  return *variables, mask_collections.apply_mask(*variables)


def quick_session(graph=None):
  """A session that runs a small graph as it is."""
  return tf.Session(graph=graph, config=quick_sessions.unoptimized())


class LayerSpec(NamedTuple):
  """Shape and types of one masked layer."""

  shape: Sequence[int]
  dtype: tf.DType = tf.float32
  mask_dtype: Optional[tf.DType] = None


class SparseNet:
  """Masked layers, an optimizer and its train op, with their session.

  The loss is the sum of masked weights * fed gradient over all layers, so the
  dense gradients are what is fed. A context manager, which closes the session.

  Attributes:
    optimizer: the wrapped one, or the inner one when `method` is None.
    train_op: of `optimizer`; None when `train` is False.
    loss: scalar tensor.
    variables: {name: variable} of all global variables.
  """

  def __init__(
    self,
    layers: Mapping[str, LayerSpec],
    inner: str = 'momentum',
    method: Optional[str] = None,
    hyper: Optional[Mapping[str, Any]] = None,
    density: float = 0.5,
    train: bool = True,
    use_resource: bool = True,
  ):
    self._rng = np.random.RandomState(0)
    self.layers = dict(layers)
    self.graph = tf.Graph()
    self.session = quick_session(self.graph)
    with self.graph.as_default():
      with tf.variable_scope(tf.get_variable_scope(), use_resource=use_resource):
        self.global_step = tf.train.get_or_create_global_step()
        for name, spec in self.layers.items():
          self._add_layer(name, spec, density)
      self.gradients = {
        name: tf.placeholder(spec.dtype, spec.shape, f'{name}/gradient')
        for name, spec in self.layers.items()
      }
      self.loss = tf.add_n(
        [
          tf.cast(tf.reduce_sum(layer.masked_weights * gradient), tf.float64)
          for layer, gradient in zip(pruning.masked_layers(), self.gradients.values())
        ]
      )
      self.inner = INNER_OPTIMIZERS[inner]()
      self.optimizer = METHODS[method](self.inner, **(hyper or {})) if method else self.inner
      self.train_op = None
      if train:
        self.train_op = self.optimizer.minimize(self.loss, self.global_step)
      self.initialize()

  def _add_layer(self, name, spec, density):
    weights = self._rng.randn(*spec.shape).astype(spec.dtype.as_numpy_dtype)
    mask = self._rng.rand(*spec.shape) < density
    add_layer(name, weights, mask, (spec.mask_dtype or spec.dtype).as_numpy_dtype)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.session.close()

  def initialize(self):
    """Initialises the variables, those made since construction included."""
    with self.graph.as_default():
      self.variables = {v.op.name: v for v in tf.global_variables()}
      self.session.run(tf.global_variables_initializer())

  def random_gradients(self, rng):
    """{layer name: dense gradient}, to be fed to `run`."""
    return {
      name: rng.randn(*spec.shape).astype(spec.dtype.as_numpy_dtype)
      for name, spec in self.layers.items()
    }

  def run(self, fetches, gradients):
    return self.session.run(
      fetches, {self.gradients[name]: value for name, value in gradients.items()}
    )

  def step(self, gradients):
    """One training step."""
    self.run(self.train_op, gradients)

  def state(self):
    """{variable name: value} of all global variables."""
    return self.session.run(self.variables)

  def load(self, state):
    """Sets the variables that this network has to the values of `state`."""
    known = [(v, state[n]) for n, v in self.variables.items() if n in state]
    checkpoints.assign(self.session, known)

"""A masked network trained on one or on several replicas, step by step."""

from __future__ import annotations

import contextlib

import numpy as np

from rigl.compat import tf, tf2
from rigl.model_pruning import layers
from tests import quick_sessions, sparse_net

N_IN, N_HIDDEN, N_OUT, BATCH = 6, 8, 4, 8


def _session(n_devices):
  return tf.Session(
    config=quick_sessions.unoptimized(tf.ConfigProto(device_count={'CPU': n_devices}))
  )


class ReplicaNet:
  """Two masked layers and a loss that is the mean over the whole batch.

  float64, so that rounding does not tell one replica from two. A context
  manager, which closes the session and leaves the graph and the strategy.

  Attributes:
    optimizers: the wrapped one of each replica.
    session: of the graph.
  """

  def __init__(self, method, n_replicas, inner='momentum', hyper=None):
    with contextlib.ExitStack() as stack:
      self._build(stack, method, n_replicas, inner, hyper or {})
      self._stack = stack.pop_all()

  def _build(self, stack, method, n_replicas, inner, hyper):
    stack.enter_context(tf.Graph().as_default())
    # As Estimators have it, whether or not v2 behaviour is disabled.
    stack.enter_context(tf.variable_scope(tf.get_variable_scope(), use_resource=True))
    self.strategy = None
    if n_replicas > 1:
      self.strategy = tf2.distribute.MirroredStrategy([f'/cpu:{i}' for i in range(n_replicas)])
      stack.enter_context(self.strategy.scope())
    self.images = tf.placeholder(tf.float64, [BATCH, N_IN])
    self.labels = tf.placeholder(tf.float64, [BATCH, N_OUT])
    self.global_step = tf.train.get_or_create_global_step()
    self.optimizers = []

    def step():
      optimizer = sparse_net.METHODS[method](sparse_net.INNER_OPTIMIZERS[inner](), **hyper)
      self.optimizers.append(optimizer)
      return optimizer.minimize(self._loss(n_replicas), self.global_step)

    self.train_op = self._in_replicas(step)
    self.session = stack.enter_context(_session(n_replicas))
    self.session.run(tf.global_variables_initializer())
    self._set_start()

  def _in_replicas(self, function):
    if self.strategy is None:
      return function()
    return self.strategy.group(self.strategy.extended.call_for_each_replica(function))

  def _loss(self, n_replicas):
    n = BATCH // n_replicas
    begin = 0
    if self.strategy is not None:
      begin = n * tf.distribute.get_replica_context().replica_id_in_sync_group
    hidden = layers.masked_fully_connected(self.images[begin : begin + n], N_HIDDEN, scope='first')
    outputs = layers.masked_fully_connected(hidden, N_OUT, activation_fn=None, scope='second')
    errors = tf.square(outputs - self.labels[begin : begin + n])
    return tf.reduce_sum(errors) / (BATCH * N_OUT)

  def copies(self):
    """{variable name: its copies, one of each replica}."""
    found = {}
    for v in tf.global_variables():
      local = v.values if hasattr(v, 'values') else [v]
      found[v.name.partition(':')[0]] = list(local)
    return found

  def _set_start(self):
    rng = np.random.RandomState(5)
    for name, copies in sorted(self.copies().items()):
      if name.endswith('/weights') or name.endswith('/mask'):
        shape = copies[0].shape
        value = (
          rng.randn(*shape) if name.endswith('weights') else (rng.rand(*shape) < 0.5).astype(float)
        )
        for copy in copies:
          copy.load(value, self.session)

  def step(self, images, labels):
    self.session.run(self.train_op, {self.images: images, self.labels: labels})

  def state(self):
    """{variable name: its value on each replica}."""
    return self.session.run(self.copies())

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._stack.close()

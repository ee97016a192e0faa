"""One masked layer whose dense gradient is set by the test."""

from __future__ import annotations

import numpy as np

from rigl.compat import tf
from rigl.model_pruning import layers
from tests import sparse_net

# Slot names of the inner optimizers, as the reference data call them.
SLOTS = {
  'sgd': {},
  'momentum': {'momentum': 'momentum'},
  'adam': {'m': 'm', 'v': 'v'},
  'rmsprop': {'rms': 'rms', 'momentum': 'momentum'},
  'adagrad': {'accumulator': 'accumulator'},
}


def make_inner(description):
  """The inner optimizer of {'type': name, **arguments}."""
  arguments = dict(description)
  return sparse_net.INNER_OPTIMIZERS[arguments.pop('type')].func(**arguments)


class OneLayer:
  """A layer, its wrapped optimizer and the train op, in the default graph."""

  def __init__(
    self, weights, dense_gradient, method, inner, hyper, scope='layer', dtype=tf.float32
  ):
    weights = np.asarray(weights)
    self.inner_type = inner['type']
    self.global_step = tf.train.get_or_create_global_step()
    initializer = tf.constant_initializer(weights, dtype)
    if weights.ndim == 2:
      layers.masked_fully_connected(
        tf.zeros([1, weights.shape[0]], dtype),
        weights.shape[1],
        biases_initializer=None,
        weights_initializer=initializer,
        scope=scope,
      )
    else:
      k_h, k_w, n_in, n_out = weights.shape
      layers.masked_conv2d(
        tf.zeros([1, k_h, k_w, n_in], dtype),
        n_out,
        (k_h, k_w),
        biases_initializer=None,
        weights_initializer=initializer,
        scope=scope,
      )
    hyper = dict(hyper)
    if 'ema_decay' in hyper:
      hyper['momentum'] = hyper.pop('ema_decay')
    self.optimizer = sparse_net.METHODS[method](make_inner(inner), **hyper)
    (self.weights,) = self.optimizer.get_weights()
    (self.mask,) = self.optimizer.get_masks()
    (masked,) = self.optimizer.get_masked_weights()
    # d loss / d masked weights is the constant, whatever the weights are.
    loss = tf.reduce_sum(masked * tf.constant(dense_gradient, dtype))
    self.train_op = self.optimizer.minimize(loss, self.global_step)

  def slots(self):
    return {
      ours: self.optimizer.get_slot(self.weights, theirs)
      for ours, theirs in SLOTS[self.inner_type].items()
    }

  def last_update_step(self):
    return next((v for v in tf.global_variables() if v.op.name == 'last_mask_update_step'), None)

  def ema(self):
    return next(
      (v for v in tf.global_variables() if v.op.name.endswith('dense_gradient_ema')), None
    )

  def state(self):
    """Everything a step may change, as one fetchable dict."""
    state = {
      'weights': self.weights,
      'mask': self.mask,
      'global_step': self.global_step,
      **{f'slot/{name}': slot for name, slot in self.slots().items()},
    }
    if self.last_update_step() is not None:
      state['last_mask_update_step'] = self.last_update_step()
    if self.ema() is not None:
      state['ema'] = self.ema()
    return state

  def load(self, session, values):
    """Sets variables to {key of state(): value}."""
    state = self.state()
    for key, value in values.items():
      state[key].load(np.asarray(value), session)

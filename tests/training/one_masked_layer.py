"""A network of one masked layer that any method trains."""

from __future__ import annotations

from typing import Optional

import numpy as np

from rigl.compat import tf
from rigl.model_pruning import layers, sparse_layers
from rigl.training import factory
from rigl.training.config import SparsityConfig


def build(
  config: SparsityConfig,
  n_units: int = 4,
  features: Optional[tf.Tensor] = None,
  first_iteration: Optional[int] = None,
):
  """Builds into the default graph.

  Args:
    config: of the training.
    n_units: of the layer.
    features: an input that everything then depends on, without effect.
    first_iteration: see factory.make_train_op.

  Returns:
    (loss, train op, global step).
  """
  inputs = tf.constant(np.random.RandomState(0).normal(size=[8, 6]).astype(np.float32))
  if features is not None:
    inputs += 0.0 * tf.reduce_sum(features)
  if config.method.uses_masks:
    outputs = layers.masked_fully_connected(inputs, n_units, scope='layer')
  else:
    outputs = sparse_layers.sparse_fully_connected(
      inputs, n_units, name='layer', dense_names=('kernel', 'bias')
    )
  loss = tf.reduce_mean(tf.square(outputs - 1.0))
  global_step = tf.train.get_or_create_global_step()
  optimizer = factory.make_optimizer(config, tf.train.MomentumOptimizer(0.05, 0.9))
  return (
    loss,
    factory.make_train_op(optimizer, loss, global_step, first_iteration=first_iteration),
    global_step,
  )


def variables(session: tf.Session) -> dict[str, np.ndarray]:
  """{name: value} of all global variables of the default graph."""
  return session.run({v.op.name: v for v in tf.global_variables()})

"""Initializers that depend only on the variable's scope and the seed.

The seed of an ordinary graph initializer depends on the number of operations
before it, so with the same `--seed` any change of the graph changes the
weights, and so does each evaluation. These initializers give the same weights
for every method, in every process, at every evaluation. Two variables of the
same shape need different scopes, or they get the same values.
"""

from __future__ import annotations

from typing import Any, Callable

from rigl.compat import tf, tf2
from rigl.core import seeding

Initializer = Callable[..., 'tf.Tensor']


def _seeded(initializer_class: Callable[..., Any], **arguments: Any) -> Initializer:

  def initialize(shape, dtype=tf.float32, partition_info=None) -> tf.Tensor:
    del partition_info
    scope = tf.get_variable_scope().name
    # Set by tf.set_random_seed, which RunConfig(tf_random_seed=...) calls.
    user_seed = tf.get_default_graph().seed or 0
    seed = seeding.stable_seed(scope, 'initial_value', user_seed)
    return initializer_class(seed=seed, **arguments)(shape, dtype=tf.as_dtype(dtype).name)

  return initialize


def glorot_uniform() -> Initializer:
  """U(-a, a) with a = sqrt(6 / (fan_in + fan_out))."""
  return _seeded(tf2.keras.initializers.GlorotUniform)


def variance_scaling(scale: float = 1.0) -> Initializer:
  """Truncated normal of variance scale / fan_in."""
  return _seeded(tf2.keras.initializers.VarianceScaling, scale=scale)


def random_normal(stddev: float) -> Initializer:
  """N(0, stddev)."""
  return _seeded(tf2.keras.initializers.RandomNormal, stddev=stddev)

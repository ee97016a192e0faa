"""Initial weights of the ImageNet networks, by `init_method`.

`baseline` initializes for a dense network, `sparse` corrects the variance for a
mask, `random_zeros` sets a part of the weights to zero. All work for kernels of
any rank.
"""

from __future__ import annotations

import math
from typing import Callable

from rigl import tf_random
from rigl.compat import tf
from rigl.core import checks, seeding
from rigl.model_pruning import initializers

# {name: what the initial weights are}.
INIT_METHODS = {
  'baseline': 'dense',
  'sparse': 'variance scaled by the density of the layer',
  'random_zeros': 'as many zeros as the mask would have',
}

Initializer = initializers.Initializer
# (factor of the variance) -> initializer.
InitializerFamily = Callable[[float], Initializer]


def fan_in_normal(scale: float = 1.0) -> InitializerFamily:
  """Truncated normal of variance scale / fan_in (arXiv 1502.01852: scale 2)."""
  return lambda factor: initializers.variance_scaling(scale * factor)


def normal(stddev: float) -> InitializerFamily:
  """N(0, stddev)."""
  return lambda factor: initializers.random_normal(stddev * math.sqrt(factor))


def random_zeros(initializer: Initializer, sparsity: float) -> Initializer:
  """Draws from `initializer`, then zeroes floor(sparsity * size) random positions.

  They are chosen uniformly without replacement and depend only on the variable scope and the
  graph's seed, see rigl.model_pruning.initializers.
  """

  def initialize(shape, dtype=tf.float32, partition_info=None) -> tf.Tensor:
    del partition_info
    weights = initializer(shape, dtype=dtype)
    scope = tf.get_variable_scope().name
    user_seed = tf.get_default_graph().seed or 0
    seed = seeding.stable_seed(scope, 'random_zeros', user_seed)
    size = weights.shape.num_elements()
    order = tf.argsort(tf_random.uniform([size], [seed, 0]), stable=True)
    kept = tf.reshape(order >= math.floor(sparsity * size), weights.shape)
    return tf.where(kept, weights, tf.zeros_like(weights))

  return initialize


def kernel_initializer(
  init_method: str, family: InitializerFamily, sparsity: float, is_masked: bool
) -> Initializer:
  """The initializer of one kernel.

  `sparse` divides the variance of the initial weights by the density of the
  layer. A unit of a masked layer sums density * fan_in terms instead of fan_in,
  so this keeps the output variance of the dense initialization; otherwise the
  signal fades from layer to layer (https://arxiv.org/abs/2010.03533). The
  density of the layer is the average density of its units under a random mask.
  Layers without a mask are not changed.

  With `random_zeros`, exactly a fraction `sparsity` of the kernel starts at
  zero, with or without a mask, and is trained like the rest.

  Call the initializer in the variable scope of the layer.

  Raises:
    ValueError: unknown method.
  """
  checks.one_of('init_method', init_method, INIT_METHODS)
  if init_method == 'sparse':
    return family(1.0 / (1.0 - sparsity) if is_masked else 1.0)
  if init_method == 'random_zeros':
    return random_zeros(family(1.0), sparsity)
  return family(1.0)

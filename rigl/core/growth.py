"""Initial values of newly grown connections (`grow_init`)."""

from __future__ import annotations

from typing import Callable, Optional

from rigl.compat import tf
from rigl.core import draws, tokens

_WEIGHT_INITS = ('zeros', 'initial_dist', 'random_normal', 'random_uniform')
_GRADIENT_INITS = ('grad_scale', 'grad_sign')
GROW_INITS = _WEIGHT_INITS + _GRADIENT_INITS


def parse_grow_init(grow_init: str,
                    has_dense_gradient: bool) -> tuple[str, float]:
  """Returns the name of `grow_init` and its divisor, 1 if it gives none.

  Args:
    grow_init: a name, optionally followed by `_<number>`, the divisor.
    has_dense_gradient: whether the method knows the dense gradient (RigL).

  Raises:
    ValueError: not a string, an unknown name, a divisor of 0, or a gradient
      initialisation for a method without dense gradient.
  """
  options = GROW_INITS if has_dense_gradient else _WEIGHT_INITS
  try:
    name, divisor = tokens.split_number(grow_init)
  except ValueError:
    name, divisor = '', 1.
  if name not in options:
    raise ValueError(
        f'grow_init {grow_init!r} is not one of {", ".join(options)}, '
        'optionally followed by _<number> to divide by it, as in '
        'random_normal_10.')
  if divisor == 0.:
    raise ValueError(f'grow_init {grow_init!r} would divide by zero.')
  return name, divisor


def grow_values(grow_init: str,
                weights: tf.Tensor,
                seed: tf.Tensor,
                initial_value: Optional[Callable[[], tf.Tensor]] = None,
                dense_gradient: Optional[Callable[[], tf.Tensor]] = None
               ) -> tf.Tensor:
  """Values for every position; the caller uses those of new connections.

  * zeros
  * initial_dist_d: the initial values of the variable, shuffled, / d.
  * random_normal_d: close to N(0, standard deviation of all `weights` / d),
    see draws.near_normal.
  * random_uniform_d: U(-a, a) with a = mean |weights| / d.
  * grad_scale_d, grad_sign_d: the dense gradient or its sign, / d.

  Args:
    grow_init: one of the above; d defaults to 1.
    weights: the current weights [...].
    seed: int32 [2], for the stateless draws.
    initial_value: returns the initial values [...]; needed by initial_dist.
    dense_gradient: returns it, [...]; needed by grad_scale and grad_sign.

  Returns:
    tensor of the shape and type of `weights`.

  Raises:
    ValueError: see parse_grow_init; or initial_dist without initial_value.
  """
  name, divisor = parse_grow_init(grow_init, dense_gradient is not None)
  shape = tf.shape(weights)
  if name == 'zeros':
    values = tf.zeros(shape)
  elif name == 'initial_dist':
    if initial_value is None:
      raise ValueError('grow_init initial_dist needs the initial values.')
    flat = tf.reshape(initial_value(), [-1])
    order = tf.argsort(draws.uniform(tf.shape(flat), seed), stable=True)
    values = tf.reshape(tf.gather(flat, order), shape)
  elif name == 'random_normal':
    values = draws.near_normal(shape, seed, 1.) * tf.math.reduce_std(
        tf.cast(weights, tf.float32))
  elif name == 'random_uniform':
    bound = tf.reduce_mean(tf.abs(tf.cast(weights, tf.float32)))
    values = bound * (2. * draws.uniform(shape, seed) - 1.)
  elif dense_gradient is not None:
    values = dense_gradient()
    if name == 'grad_sign':
      values = tf.sign(values)
  return tf.cast(tf.cast(values, tf.float32) / divisor, weights.dtype)

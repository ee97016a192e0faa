"""Initial values of newly grown connections (`grow_init`)."""

from __future__ import annotations

from typing import Callable, Optional

from rigl.core import arrays, numeric_suffix, stateless_random
from rigl.core.arrays import Array

_WEIGHT_INITS = ('zeros', 'initial_dist', 'random_normal', 'random_uniform')
_GRADIENT_INITS = ('grad_scale', 'grad_sign')
GROW_INITS = _WEIGHT_INITS + _GRADIENT_INITS


def parse_grow_init(grow_init: str, has_dense_gradient: bool) -> tuple[str, float]:
  """Returns the name of `grow_init` and its divisor, 1 if it gives none.

  Args:
    grow_init: a name, optionally followed by `_<number>`, the divisor.
    has_dense_gradient: whether the method has the dense gradient (RigL).

  Raises:
    ValueError: not a string, an unknown name, a divisor of 0, or a gradient
      initialisation for a method without dense gradient.
  """
  options = GROW_INITS if has_dense_gradient else _WEIGHT_INITS
  try:
    name, divisor = numeric_suffix.split(grow_init)
  except ValueError:
    name, divisor = '', 1.0
  if name not in options:
    raise ValueError(
      f'grow_init {grow_init!r} is not one of {", ".join(options)}, '
      'optionally followed by _<number> to divide by it, as in '
      'random_normal_10.'
    )
  if divisor == 0.0:
    raise ValueError(f'grow_init {grow_init!r} would divide by zero.')
  return name, divisor


def grow_values(
  grow_init: str,
  weights: Array,
  seed: stateless_random.Seed,
  initial_value: Optional[Callable[[], Array]] = None,
  dense_gradient: Optional[Callable[[], Array]] = None,
) -> Array:
  """Values for every position; the caller uses those of new connections.

  * zeros
  * initial_dist_d: the initial values of the variable, shuffled, / d.
  * random_normal_d: close to N(0, standard deviation of all `weights` / d),
    see stateless_random.near_normal.
  * random_uniform_d: U(-a, a) with a = mean |weights| / d.
  * grad_scale_d, grad_sign_d: the dense gradient or its sign, / d.

  Args:
    grow_init: one of the above; d defaults to 1.
    weights: the current weights [...].
    seed: see stateless_random.Seed.
    initial_value: returns the initial values [...]; needed by initial_dist.
    dense_gradient: returns it, [...]; needed by grad_scale and grad_sign.

  Returns:
    tensor of the shape and type of `weights`.

  Raises:
    ValueError: see parse_grow_init; or initial_dist without initial_value.
  """
  name, divisor = parse_grow_init(grow_init, dense_gradient is not None)
  xp = arrays.of(weights)
  weights = xp.asarray(weights)
  if name == 'zeros':
    return xp.zeros_like(weights)
  wide = xp.asarray(weights, 'float32')
  if name == 'initial_dist':
    if initial_value is None:
      raise ValueError('grow_init initial_dist needs the initial values.')
    flat = xp.reshape(xp.asarray(initial_value()), (-1,))
    order = xp.argsort(stateless_random.uniform(xp.reshape(weights, (-1,)), seed))
    values = xp.reshape(xp.take(flat, order), weights.shape)
  elif name == 'random_normal':
    values = stateless_random.near_normal(weights, seed) * xp.std(wide)
  elif name == 'random_uniform':
    drawn = 2.0 * stateless_random.uniform(weights, seed) - 1.0
    values = xp.mean(xp.abs(wide)) * drawn
  elif dense_gradient is not None:
    values = xp.asarray(dense_gradient())
    if name == 'grad_sign':
      values = xp.sign(values)
  return xp.cast_like(xp.asarray(values, 'float32') / divisor, weights)

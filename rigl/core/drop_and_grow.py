"""Methods that drop connections and grow as many, on a schedule.

`rigl.core.methods` has SET, Static, RigL and SNFS, which choose what to drop and grow.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from rigl.core import grow_init, mask_math, schedules, scores, stateless_random
from rigl.core.arrays import Array
from rigl.core.joined_layers import JoinedLayers
from rigl.core.method import Layer, OnSchedule, Update


@dataclasses.dataclass(frozen=True)
class DropAndGrow(OnSchedule):
  """Drops the weakest connections and grows as many, on a schedule.

  Attributes:
    drop_fraction: share of the active connections that an update drops (the
      first one, if annealed), in [0, 1].
    drop_fraction_anneal: constant, cosine or exponential_<exponent>.
    grow_init: initial values of new connections, see rigl.core.grow_init.
    noise_std: approximate standard deviation of the noise that breaks ties of
      the drop score, see stateless_random.noise.
  """

  is_dynamic = True
  # Whether a connection that is dropped and grown again restarts.
  restarts_regrown: ClassVar[bool] = False

  end_step: int = 25000
  drop_fraction: float = 0.3
  drop_fraction_anneal: str = 'constant'
  grow_init: str = 'zeros'
  noise_std: float = 1e-5

  def __post_init__(self):
    schedules.check_drop_fraction(self.drop_fraction, self.drop_fraction_anneal)
    grow_init.parse_grow_init(self.grow_init, self.allows_gradient_grow_init)
    _ = self.schedule

  def warning(self):
    return schedules.warning_without_end(self.drop_fraction_anneal, self.schedule)

  @property
  def initial_last_update_step(self):
    return self.schedule.initial_last_update_step

  def drop_fraction_at(self, step: Array) -> Array:
    """The drop fraction of an update at this step, float32 scalar.

    Args:
      step: integer scalar, from `seen_step`.
    """
    return schedules.annealed_drop_fraction(
      step, self.drop_fraction, self.drop_fraction_anneal, self.schedule
    )

  @scores.elementwise
  def drop_score(self, layer: Layer) -> Array:
    """float32 [...]; the active connections of lowest score are dropped."""
    return scores.magnitude(layer.mask, layer.weights)

  def grow_score(self, layer: Layer) -> Array:
    """float32 [...]; of the connections not kept, the highest are grown."""
    raise NotImplementedError

  def update(self, layers, step):
    fraction = self.drop_fraction_at(step)
    if mask_math.selects_each(layers[0].mask):
      moves = [self._move(layer, fraction) for layer in layers]
    else:
      moves = self._move_together(layers, fraction)
    return [Update(mask, restarted, layer.state) for layer, (mask, restarted) in zip(layers, moves)]

  def _move(self, layer, fraction):
    """(new mask, restarted connections) of a layer."""
    noise = stateless_random.noise(layer.mask, layer.seed('drop_noise'), self.noise_std)
    moved = mask_math.drop_and_grow(
      layer.mask, self.drop_score(layer) + noise, self.grow_score(layer), fraction
    )
    return moved.mask, self._restarted(moved)

  def _move_together(self, layers, fraction):
    """`_move` of each layer, computed on all of them as one matrix."""
    joined = JoinedLayers(layers)
    rows = joined.rows
    noise = stateless_random.joined_noise(
      rows, [layer.seed('drop_noise') for layer in layers], self.noise_std
    )
    moved = mask_math.drop_and_grow_joined(
      rows,
      joined.active,
      joined.score(self.drop_score) + noise,
      joined.score(self.grow_score),
      fraction,
    )
    masks = [
      rows.xp.cast_like(mask, layer.mask) for mask, layer in zip(rows.split(moved.mask), layers)
    ]
    return zip(masks, rows.split(self._restarted(moved)))

  def _restarted(self, moved):
    return moved.grown if self.restarts_regrown else moved.new_connections

  def new_weights(self, layer):
    return grow_init.grow_values(
      self.grow_init,
      layer.weights,
      layer.seed('grow_init'),
      layer.initial_value,
      layer.gradient if self.allows_gradient_grow_init else None,
    )

"""What a sparse training method is, and what front-ends ask it."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, ClassVar, NamedTuple, Optional, Sequence

from rigl.core import arrays, schedules
from rigl.core.arrays import Array


class Layer(NamedTuple):
  """What a method sees of one masked layer.

  Attributes:
    mask: 0/1 [...].
    weights: [...].
    seed: gives the seed of the draws for a purpose, a function of the layer,
      the purpose, the user's seed and the step.
    gradient: gives the gradient that `Method.gradient` asks for, [...].
    state: what the method keeps of the layer, see `Method.first_state`.
    sparsity: share of zeros that the layer is to have in the end.
    initial_value: gives the initial weights [...], for grow_init initial_dist.
  """

  mask: Array
  weights: Array
  seed: Optional[Callable[[str], Any]] = None
  gradient: Optional[Callable[[], Array]] = None
  state: Optional[Array] = None
  sparsity: float = 0.
  initial_value: Optional[Callable[[], Array]] = None


class Update(NamedTuple):
  """What an update makes of a layer.

  Attributes:
    mask: the new mask, of the old one's shape and type.
    restarted: bool [...], connections whose weights and slots begin anew; None
      if there are none.
    state: the new state; None if the method keeps none.
  """

  mask: Array
  restarted: Optional[Array] = None
  state: Optional[Array] = None


@dataclasses.dataclass(frozen=True)
class Method:
  """What all methods have in common; by itself it never moves a mask.

  Attributes:
    description: one line, for help texts.
    paper: its address.
    uses_masks: whether layers carry masks at all.
    inits_masks: whether training starts from sparse masks, rather than from a
      dense network.
    gradient: what `Layer.gradient` gives: 'dense', the gradient of the loss
      with respect to mask * weights; 'applied', what the optimizer applies to
      the weights, penalties and clipping included; '' if none is needed.
    when: 'never', 'once', 'on_schedule' or 'always'; tells what a front-end
      must remember of past updates.
    replaces_step: whether an update takes the place of a training step, which
      then is not counted; else it follows one.
    trains_all_weights: whether inactive weights are trained too, by the dense
      gradient.
    is_dynamic: whether it drops and grows connections on a schedule.
    allows_gradient_grow_init: whether `grow_init` may be made of the dense
      gradient.
    prunes_gradually: whether it only drops them, see GradualPruning.
  """

  description: ClassVar[str]
  paper: ClassVar[str] = ''
  uses_masks: ClassVar[bool] = True
  inits_masks: ClassVar[bool] = True
  gradient: ClassVar[str] = ''
  when: ClassVar[str] = 'never'
  replaces_step: ClassVar[bool] = False
  trains_all_weights: ClassVar[bool] = False
  is_dynamic: ClassVar[bool] = False
  allows_gradient_grow_init: ClassVar[bool] = False
  prunes_gradually: ClassVar[bool] = False

  @property
  def initial_last_update_step(self) -> int:
    """What the step of the last update is before there was one."""
    return -1

  def warning(self) -> str:
    """What is allowed but hardly meant, for front-ends to log; '' if all is."""
    return ''

  def seen_step(self, step: Array) -> Array:
    """The step that an iteration goes by, int64 scalar.

    Args:
      step: integer scalar, the global step at the begin of the iteration.
    """
    return step if self.replaces_step else step + 1

  def is_update(self, step: Array, last_update: Array) -> Array:
    """bool scalar: whether masks move.

    Args:
      step: integer scalar, from `seen_step`.
      last_update: integer scalar, the step of the last update.
    """
    del last_update
    return arrays.of(step).asarray(self.when == 'always')

  def first_state(self, weights: Array) -> Optional[Array]:
    """What is kept of a layer from step to step, at the start; often nothing.

    Args:
      weights: [...].
    """
    del weights
    return None

  def next_state(self, state: Array, gradient: Array) -> Array:
    """The state after one more gradient; called before each training step.

    Args:
      state: as `first_state` made it.
      gradient: see `Layer`.
    """
    del gradient
    return state

  def update(self, layers: Sequence[Layer], step: Array) -> list[Update]:
    """What becomes of each of several layers at an update.

    Args:
      layers: their tensors.
      step: integer scalar, from `seen_step`.
    """
    del step
    return [Update(layer.mask) for layer in layers]

  def new_weights(self, layer: Layer) -> Array:
    """Weights for connections that begin anew, [...]."""
    return arrays.of(layer.weights).zeros_like(layer.weights)

  def new_slot(self, layer: Layer, start: Array) -> Array:
    """Values of an optimizer's slot for connections that begin anew, [...].

    Args:
      layer: its tensors.
      start: what the optimizer itself starts the slot with. For Adagrad that
        is not 0, by which it would divide.
    """
    del layer
    return start


@dataclasses.dataclass(frozen=True)
class OnSchedule(Method):
  """Moves masks every `frequency` steps.

  Attributes:
    begin_step: first step that may be an update step.
    end_step: last such step; negative for no end.
    frequency: steps between updates (Delta T).
  """

  when = 'on_schedule'

  begin_step: int = 0
  end_step: int = -1
  frequency: int = 100

  @property
  def schedule(self) -> schedules.UpdateSchedule:
    """When masks move.

    Raises:
      ValueError: there is no such schedule.
    """
    return schedules.UpdateSchedule(
        self.begin_step, self.end_step, self.frequency)

  def is_update(self, step, last_update):
    return self.schedule.is_update_step(step, last_update)

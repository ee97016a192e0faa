"""The interface of sparse training methods, which front-ends call."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, ClassVar, NamedTuple, Optional, Sequence

from rigl.core import arrays, schedules
from rigl.core.arrays import Array


class Layer(NamedTuple):
  """The tensors of one masked layer.

  Attributes:
    mask: 0/1 [...].
    weights: [...].
    seed: returns the seed of random numbers for a purpose, made from the layer,
      the purpose, the user's seed and the step.
    gradient: returns the gradient that `Method.gradient` names, [...].
    state: the method's state of the layer, see `Method.first_state`.
    sparsity: final share of zeros of the layer.
    initial_value: returns the initial weights [...], for grow_init
      initial_dist.
  """

  mask: Array
  weights: Array
  seed: Optional[Callable[[str], Any]] = None
  gradient: Optional[Callable[[], Array]] = None
  state: Optional[Array] = None
  sparsity: float = 0.0
  initial_value: Optional[Callable[[], Array]] = None


class Update(NamedTuple):
  """The result of a mask update of one layer.

  Attributes:
    mask: the new mask, of the shape and type of the old one.
    restarted: bool [...], connections whose weights and slots are
      re-initialized; None if there are none.
    state: the new state; None if the method keeps none.
  """

  mask: Array
  restarted: Optional[Array] = None
  state: Optional[Array] = None


@dataclasses.dataclass(frozen=True)
class Method:
  """Base class of all methods. This one never changes a mask.

  Attributes:
    description: one line, for help texts.
    paper: its address.
    uses_masks: whether layers carry masks at all.
    inits_masks: whether training starts from sparse masks, rather than from a
      dense network.
    gradient: what `Layer.gradient` gives: 'dense', the gradient of the loss
      with respect to mask * weights; 'applied', what the optimizer applies to
      the weights, penalties and clipping included; '' if none is needed.
    when: when masks are updated: 'never', 'once', 'on_schedule' or 'always'.
      It tells what a front-end must remember of past updates.
    replaces_step: whether an update replaces a training step, which is then not
      counted; else the update follows the step.
    trains_all_weights: whether inactive weights are trained too, by the dense
      gradient.
    is_dynamic: whether it drops and grows connections on a schedule.
    allows_gradient_grow_init: whether `grow_init` may use the dense gradient.
    prunes_gradually: whether it only drops connections, see GradualPruning.
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
    """The value of `last_update` before the first update."""
    return -1

  def warning(self) -> str:
    """A warning about hyperparameters, for front-ends to log; or ''."""
    return ''

  def seen_step(self, step: Array) -> Array:
    """The step by which an iteration decides about an update, int64 scalar.

    Args:
      step: integer scalar, the global step at the start of the iteration.
    """
    return step if self.replaces_step else step + 1

  def is_update(self, step: Array, last_update: Array) -> Array:
    """bool scalar: whether masks are updated.

    Args:
      step: integer scalar, from `seen_step`.
      last_update: integer scalar, the step of the last update.
    """
    del last_update
    return arrays.of(step).asarray(self.when == 'always')

  def first_state(self, weights: Array) -> Optional[Array]:
    """The initial state of a layer; None for methods without state.

    Args:
      weights: [...].
    """
    del weights
    return None

  def next_state(self, state: Array, gradient: Array) -> Array:
    """The state after one more gradient; called before each training step.

    Args:
      state: the state before, see `first_state`.
      gradient: see `Layer`.
    """
    del gradient
    return state

  def update(self, layers: Sequence[Layer], step: Array) -> list[Update]:
    """Updates the masks of several layers.

    Args:
      layers: the tensors of each.
      step: integer scalar, from `seen_step`.
    """
    del step
    return [Update(layer.mask) for layer in layers]

  def new_weights(self, layer: Layer) -> Array:
    """Initial weights of restarted connections, [...]."""
    return arrays.of(layer.weights).zeros_like(layer.weights)

  def new_slot(self, layer: Layer, start: Array) -> Array:
    """Values of an optimizer's slot for restarted connections, [...].

    Args:
      layer: tensors of the layer.
      start: the optimizer's own initial value of the slot, which for Adagrad
        is not 0, as it divides by the slot.
    """
    del layer
    return start


@dataclasses.dataclass(frozen=True)
class OnSchedule(Method):
  """Updates masks every `frequency` steps.

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
    """The schedule of the updates.

    Raises:
      ValueError: begin_step, end_step and frequency do not make a schedule.
    """
    return schedules.UpdateSchedule(self.begin_step, self.end_step, self.frequency)

  def is_update(self, step, last_update):
    return self.schedule.is_update_step(step, last_update)

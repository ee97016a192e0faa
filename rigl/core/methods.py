"""The sparse training methods, each a small definition.

A method is a frozen dataclass of its hyperparameters. It decides when masks are
updated (`is_update`), computes the new mask of a layer (`update`) and the
initial weights and optimizer slots of new connections. All of it is maths on
tensors: front-ends, such as `rigl.sparse_optimizers`, own the variables, read
them into a `Layer` and assign the results.

`rigl.core.method` documents each function. To write your own method, derive
from the nearest one here and override what differs, see
docs/adding_a_method.md.
"""

from __future__ import annotations

import dataclasses
import math

from rigl.core import arrays, checks, distributions, mask_math, schedules, scores, stateless_random
from rigl.core.arrays import Array
from rigl.core.drop_and_grow import DropAndGrow
from rigl.core.method import Layer, Method, OnSchedule, Update


@dataclasses.dataclass(frozen=True)
class Dense(Method):
  """No masks at all."""

  description = 'dense training'
  uses_masks = False
  inits_masks = False


@dataclasses.dataclass(frozen=True)
class Scratch(Method):
  """Trains with the initial masks."""

  description = 'a fixed random mask'


@dataclasses.dataclass(frozen=True)
class SET(DropAndGrow):
  """Sparse Evolutionary Training, Mocanu et al. 2018."""

  description = 'drops the smallest weights, grows at random'
  paper = 'https://doi.org/10.1038/s41467-018-04316-3'

  def grow_score(self, layer):
    return stateless_random.uniform(layer.mask, layer.seed('grow'))


@dataclasses.dataclass(frozen=True)
class Static(DropAndGrow):
  """A fixed mask: the control experiment of SET, Evci et al. 2020.

  On the same schedule as SET, it drops connections and grows the same ones
  again, re-initialized.
  """

  description = 'a fixed mask; re-initialises what SET would drop'
  paper = 'https://arxiv.org/abs/1911.11134'
  restarts_regrown = True

  @scores.elementwise
  def grow_score(self, layer):
    return layer.mask


@dataclasses.dataclass(frozen=True)
class RigL(DropAndGrow):
  """Rigging the Lottery, Evci et al. 2020.

  Attributes:
    initial_acc_scale: slots of new connections start from their initial value
      plus this times the dense gradient. Not for optimizers whose slots hold
      squares, such as Adam: they may become negative, and weights NaN.
  """

  description = 'grows where the dense gradient is largest'
  paper = 'https://arxiv.org/abs/1911.11134'
  gradient = 'dense'
  replaces_step = True
  allows_gradient_grow_init = True

  initial_acc_scale: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    checks.finite('initial_acc_scale', self.initial_acc_scale)

  @scores.elementwise
  def grow_score(self, layer):
    return scores.gradient_magnitude(layer.gradient())

  def new_slot(self, layer, start):
    if not self.initial_acc_scale:
      return start
    return start + self.initial_acc_scale * arrays.of(start).cast_like(layer.gradient(), start)


@dataclasses.dataclass(frozen=True)
class SNFS(DropAndGrow):
  """Sparse networks from scratch, Dettmers & Zettlemoyer 2019.

  Without redistribution of connections between layers. The state is the moving
  average of the dense gradient.

  Attributes:
    momentum: decay of the average, in [0, 1]. With 1 the average stays 0, and
      the lowest indices are grown.
  """

  description = 'SNFS: grows by the averaged dense gradient'
  paper = 'https://arxiv.org/abs/1907.04840'
  gradient = 'dense'

  momentum: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    checks.in_unit_interval('momentum', self.momentum)

  def first_state(self, weights):
    xp = arrays.of(weights)
    return xp.zeros_like(xp.asarray(weights, 'float32'))

  def next_state(self, state, gradient):
    return self.momentum * state + (1.0 - self.momentum) * arrays.of(gradient).asarray(
      gradient, 'float32'
    )

  @scores.elementwise
  def grow_score(self, layer):
    return scores.gradient_magnitude(layer.state)


@dataclasses.dataclass(frozen=True)
class KeepBest(Method):
  """Keeps the connections of highest score, at the sparsity of the layer."""

  inits_masks = False

  def score(self, layer: Layer) -> Array:
    """[...]; the highest are kept."""
    raise NotImplementedError

  def update(self, layers, step):
    sizes = [arrays.size(layer.weights) for layer in layers]
    xp = arrays.of(layers[0].weights)
    kept = mask_math.top_k_masks(
      [self.score(layer) for layer in layers],
      xp.asarray(
        [
          size - distributions.get_n_zeros(size, layer.sparsity)
          for size, layer in zip(sizes, layers)
        ],
        'int32',
      ),
    )
    return [Update(xp.cast_like(mask, layer.mask)) for mask, layer in zip(kept, layers)]


@dataclasses.dataclass(frozen=True)
class SNIP(KeepBest):
  """Single-shot network pruning, Lee et al. 2019.

  The first step sets the masks instead of training. The gradient includes an L2
  penalty.
  """

  description = 'prunes once before training, by |gradient * weight|'
  paper = 'https://arxiv.org/abs/1810.02340'
  gradient = 'applied'
  when = 'once'
  replaces_step = True

  def is_update(self, step, last_update):
    return arrays.of(step).equal(step, 0) & (last_update < 0)

  def score(self, layer):
    return scores.connection_sensitivity(layer.weights, layer.gradient())


@dataclasses.dataclass(frozen=True)
class DNW(KeepBest):
  """Discovering neural wirings, Wortsman et al. 2019.

  The dense gradient does not include a penalty on the weights, so the penalty
  does not act on masked layers.
  """

  description = 'trains all weights, uses the largest'
  paper = 'https://arxiv.org/abs/1906.00586'
  gradient = 'dense'
  when = 'always'
  trains_all_weights = True

  def score(self, layer):
    return arrays.of(layer.weights).abs(layer.weights)


@dataclasses.dataclass(frozen=True)
class GradualPruning(OnSchedule):
  """Gradual magnitude pruning, Zhu & Gupta 2017.

  The state of a layer is its threshold, the smallest magnitude that is kept.

  Attributes:
    initial_sparsity: sparsity of the network up to `ramp_begin_step`.
    target_sparsity: sparsity of the network from `ramp_end_step` on. Layers
      with a sparsity of their own follow in proportion.
    ramp_begin_step: step at which the sparsity starts to rise.
    ramp_end_step: step at which it reaches its target.
    exponent: 3 in the paper.
    threshold_decay: d in threshold = d * old + (1 - d) * new.
  """

  description = 'gradual magnitude pruning of a dense network'
  paper = 'https://arxiv.org/abs/1710.01878'
  inits_masks = False
  prunes_gradually = True

  frequency: int = 10
  initial_sparsity: float = 0.0
  target_sparsity: float = 0.5
  ramp_begin_step: int = 0
  ramp_end_step: int = 100
  exponent: float = 3.0
  threshold_decay: float = 0.0

  def __post_init__(self):
    _ = self.schedule, self.sparsity_at(self.ramp_begin_step)

  @property
  def initial_last_update_step(self):
    return 0

  def seen_step(self, step):
    return step

  def sparsity_at(self, step: Array) -> Array:
    """The sparsity of the network at a step, float32 scalar.

    Args:
      step: integer scalar.
    """
    return schedules.gradual_sparsity(
      step,
      self.initial_sparsity,
      self.target_sparsity,
      self.ramp_begin_step,
      self.ramp_end_step,
      self.exponent,
    )

  def first_state(self, weights):
    xp = arrays.of(weights)
    return xp.zeros_like(xp.max(xp.asarray(weights)))

  def update(self, layers, step):
    xp = arrays.of(layers[0].weights)
    magnitudes = [scores.weight_magnitude(layer.weights) for layer in layers]
    kept = mask_math.top_k_masks(
      magnitudes, xp.stack([self._n_to_keep(layer, step) for layer in layers])
    )
    return [self._above_threshold(*of_layer) for of_layer in zip(layers, magnitudes, kept)]

  def _n_to_keep(self, layer, step):
    xp = arrays.of(layer.weights)
    sparsity = xp.asarray(self.sparsity_at(step))
    if self.target_sparsity:
      sparsity = sparsity * (layer.sparsity / self.target_sparsity)
    n_keep = xp.asarray(xp.round(float(arrays.size(layer.weights)) * (1.0 - sparsity)), 'int32')
    return xp.maximum(n_keep, 1)

  def _above_threshold(self, layer, magnitude, kept):
    xp = arrays.of(magnitude)
    smallest = xp.min(xp.where(kept, magnitude, xp.zeros_like(magnitude) + math.inf))
    threshold = (
      self.threshold_decay * xp.asarray(layer.state, 'float32')
      + (1.0 - self.threshold_decay) * smallest
    )
    return Update(
      xp.cast_like(magnitude >= threshold, layer.mask),
      state=xp.cast_like(threshold, xp.asarray(layer.state)),
    )


METHODS: dict[str, type[Method]] = {
  'baseline': Dense,
  'scratch': Scratch,
  'set': SET,
  'momentum': SNFS,
  'rigl': RigL,
  'static': Static,
  'snip': SNIP,
  'dnw': DNW,
  'prune': GradualPruning,
}

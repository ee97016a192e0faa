"""Graph glue of dynamic sparse training around the pure functions of rigl.core.

`SparseSETOptimizerBase` and `SparseRigLOptimizerBase` wrap an optimizer and
move the masks of the model while it trains. They do not know where the masks
come from: a subclass gives `get_weights`, `get_masks` and `get_masked_weights`,
three lists in one order, so any library of masked layers can plug in.

A method differs from SET in at most a few hooks:

* `_drop_scores`: which active connections to drop;
* `_grow_scores`: which inactive connections to activate;
* `_slot_values`: what the optimizer slots of new connections start at;
* `_reinitialises_regrown`: whether a connection dropped and grown back counts
  as new;
* `apply_local_gradients`, `skips_gradient_on_update`: whether it also trains.
"""

from __future__ import annotations

from typing import Callable, Optional, Sequence

from rigl.compat import tf, tf2
from rigl.core import (
  checks,
  draws,
  growth,
  mask_math,
  schedules,
  scores,
  seeding,
)
from rigl.dense_gradients import DenseGradientMixin
from rigl.optimizer_wrapper import (
  OptimizerWrapper,
  initial_value_of,
  root_variable,
)


class SparseSETOptimizerBase(OptimizerWrapper):
  """Sparse Evolutionary Training: drop the smallest, grow at random.

  Mocanu et al., Nature Communications 2018, 9:2383. Each step applies the
  gradient; a step of the schedule then moves the masks.

  Attributes:
    drop_fraction: after the train op was built, the float32 scalar tensor of
      the fraction in use: 0 on a step that is no update step. Fetch it
      together with the train op: it depends on the gradient step of methods
      that train first, and fetched alone takes that step and moves no mask.
    annealed_drop_fraction: likewise, but on every step: the fraction that an
      update at this step has or would have.
  """

  is_dynamic = True
  _reinitialises_regrown = False

  def __init__(self,
               optimizer: tf.train.Optimizer,
               begin_step: int,
               end_step: int,
               frequency: int,
               drop_fraction: float = 0.1,
               drop_fraction_anneal: str = 'constant',
               use_locking: bool = False,
               grow_init: str = 'zeros',
               name: str = 'SparseSETOptimizer',
               use_stateless: bool = True,
               stateless_seed_offset: int = 0):
    """Wraps `optimizer`.

    Args:
      optimizer: trains the weights.
      begin_step: first step that may be an update step.
      end_step: last such step; negative for no end.
      frequency: steps between updates (Delta T).
      drop_fraction: share of the active connections moved by an update (at
        the start, if annealed), in [0, 1].
      drop_fraction_anneal: constant, cosine or exponential_<exponent>.
      use_locking: as in tf.train.Optimizer.
      grow_init: initial values of new connections, see rigl.core.growth.
      name: name of this optimizer.
      use_stateless: accepted for compatibility. Draws are stateless, so that
        replicas and resumed runs agree, whatever it says; False warns of it.
      stateless_seed_offset: the user's seed.

    Raises:
      ValueError: a value out of its range or unknown; names the options.
    """
    super().__init__(optimizer, use_locking, name)
    if not use_stateless:
      tf.logging.warning(
          'use_stateless=False has no effect: draws are stateless, so that '
          'replicas and resumed runs agree.')
    self._schedule = schedules.UpdateSchedule(begin_step, end_step, frequency)
    schedules.check_drop_fraction(drop_fraction, drop_fraction_anneal)
    if schedules.lacks_end(drop_fraction_anneal, self._schedule):
      tf.logging.warning(
          'drop_fraction_anneal %s falls from begin_step to end_step and needs '
          'an end after the begin, got %s and %s. Use constant to move masks '
          'without end.', drop_fraction_anneal, begin_step, end_step)
    growth.parse_grow_init(grow_init, self.allows_gradient_grow_init)
    self._initial_drop_fraction = drop_fraction
    self._drop_fraction_anneal = drop_fraction_anneal
    self._grow_init = grow_init
    checks.integer('stateless_seed_offset', stateless_seed_offset)
    self._stateless_seed_offset = stateless_seed_offset
    self._last_update_step = None
    self._seed_step = None
    self.drop_fraction = self.annealed_drop_fraction = drop_fraction

  # --- When -----------------------------------------------------------------

  def _last_mask_update_step(self) -> tf.Variable:
    if self._last_update_step is None:
      self._last_update_step = root_variable(
          'last_mask_update_step', [], tf.int64,
          self._schedule.first_last_update_step)
    return self._last_update_step

  def is_mask_update_iter(self, global_step: tf.Tensor,
                          last_update_step: tf.Tensor) -> tf.Tensor:
    """bool scalar: whether the schedule updates masks at `global_step`.

    Args:
      global_step: int64 scalar.
      last_update_step: int64 scalar, the step of the last update.
    """
    return self._schedule.is_update_step(global_step, last_update_step)

  def get_drop_fraction(self, global_step: tf.Tensor,
                        is_mask_update_iter: tf.Tensor) -> tf.Tensor:
    """The annealed drop fraction, 0 unless masks are updated.

    Args:
      global_step: int64 scalar.
      is_mask_update_iter: bool scalar.
    """
    fraction = schedules.annealed_drop_fraction(
        global_step, self._initial_drop_fraction, self._drop_fraction_anneal,
        self._schedule)
    return tf.where(is_mask_update_iter, fraction, tf.zeros_like(fraction))

  def schedule_step(self, step: tf.Tensor) -> tf.Tensor:
    """The step that the schedule looks at in an iteration, int64 scalar.

    Args:
      step: integer scalar, the global step at the begin of the iteration.
    """
    return tf.cast(
        step if self.skips_gradient_on_update else step + 1, tf.int64)

  def skip_step_op(self, global_step: tf.Variable) -> tf.Operation:
    """Counts an iteration that is left out as what it would have been.

    A mask update that is left out is not made up for: the schedule keeps its
    rhythm, and the counters tell how many iterations there were.

    Args:
      global_step: integer scalar variable.
    """
    step = global_step.read_value()
    seen = self.schedule_step(step)
    last_update_step = self._last_mask_update_step()
    last = last_update_step.read_value()
    is_update = self.is_mask_update_iter(seen, last)
    stays = tf.logical_and(is_update, self.skips_gradient_on_update)
    with tf.control_dependencies([is_update]):
      return tf.group(
          last_update_step.assign(tf.where_v2(is_update, seen, last)),
          global_step.assign_add(tf.cast(tf.logical_not(stays), step.dtype)))

  def create_slots(self, var_list):
    super().create_slots(var_list)
    self._last_mask_update_step()

  def share_slots(self, other):
    super().share_slots(other)
    self._last_update_step = other._last_mask_update_step()

  def _begin_another_train_op(self):
    self._last_update_step = None

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Applies the gradients, then moves the masks if it is time."""
    layers = self._trained_layers(grads_and_vars)
    gradient_op = self._train_weights(grads_and_vars, global_step, name)
    if global_step is None:
      global_step = tf.train.get_or_create_global_step()
    with tf.control_dependencies([gradient_op]):
      return self.cond_mask_update_op(global_step, tf.no_op, layers)

  def cond_mask_update_op(
      self, global_step: tf.Variable,
      otherwise: Callable[[], tf.Operation],
      layers: Optional[Sequence[tuple[tf.Variable, tf.Variable]]] = None
  ) -> tf.Operation:
    """Moves the masks if `global_step` is an update step.

    Args:
      global_step: int64 scalar variable.
      otherwise: builds the op to run on all other steps.
      layers: (mask, weights) of those to update; all when None.

    Returns:
      An op; see `drop_fraction` for what it did.
    """
    last_update_step = self._last_mask_update_step()
    step = tf.cast(global_step.read_value(), tf.int64)
    is_update = self.is_mask_update_iter(step, last_update_step.read_value())
    self.drop_fraction = self.get_drop_fraction(step, is_update)
    self.annealed_drop_fraction = self.get_drop_fraction(
        step, tf.constant(True))
    self._seed_step = step

    if layers is None:
      layers = list(zip(self.get_masks(), self.get_weights()))

    def update_masks():
      updates = [
          self.generic_mask_update(mask, weights)
          for mask, weights in layers
      ]
      with tf.control_dependencies(updates):
        return tf.group(last_update_step.assign(step))

    def run(build):
      with tf.control_dependencies([build()]):
        return tf.constant(True)

    # The branch without update is traced first: it creates the slots of the
    # wrapped optimizer, which the update resets.
    return tf.cond(
        tf.logical_not(is_update), lambda: run(otherwise),
        lambda: self._apart(lambda: run(update_masks))).op

  def _apart(self, build: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Builds in a function of its own, which costs nothing while not called.

    A branch that is not taken is not free: the executor visits all its nodes,
    thousands of them, at each step.
    """
    # Functions take no reference variables.
    if not all(hasattr(mask, 'handle') for mask in self.get_masks()):
      return build()
    return tf2.function(
        build, autograph=False, experimental_attributes={'_noinline': True})()

  # --- What -----------------------------------------------------------------

  def generic_mask_update(self,
                          mask: tf.Variable,
                          weights: tf.Variable,
                          noise_std: float = 1e-5) -> tf.Operation:
    """One drop-and-grow of one layer, with `drop_fraction`.

    Args:
      mask: 0/1 variable [...].
      weights: variable of the same shape.
      noise_std: standard deviation of the Gaussian noise on the drop score.

    Returns:
      The op that assigns mask, weights and slots.
    """
    old_mask = mask.read_value()
    old_weights = weights.read_value()
    score_drop = self._drop_scores(weights, old_mask)
    score_drop += draws.near_normal(
        tf.shape(score_drop), self._seed(weights, 'drop_noise'), noise_std)
    update = mask_math.drop_and_grow(
        old_mask, score_drop, self._grow_scores(weights, old_mask),
        self.drop_fraction)
    fresh = (
        update.grown if self._reinitialises_regrown else
        update.new_connections)
    new_weights = tf.where(
        fresh, self.get_grow_tensor(weights, self._grow_init), old_weights)
    return tf.group(
        mask.assign(update.mask), weights.assign(new_weights),
        self.reset_momentum(weights, fresh))

  def _drop_scores(self, weights: tf.Variable,
                   old_mask: tf.Tensor) -> tf.Tensor:
    """float32 [...]; active connections are dropped where it is lowest."""
    return scores.magnitude(old_mask, weights.read_value())

  def _grow_scores(self, weights: tf.Variable,
                   old_mask: tf.Tensor) -> tf.Tensor:
    """float32 [...]; connections are grown where it is highest."""
    return scores.random_uniform(
        tf.shape(old_mask), self._seed(weights, 'grow'))

  def get_grow_tensor(self, weights: tf.Variable, method: str) -> tf.Tensor:
    """Values for new connections, [...] of the type of `weights`.

    Args:
      weights: the variable they are for.
      method: a `grow_init`, see rigl.core.growth.

    Raises:
      ValueError: `method` is unknown or not a string, which names the
        options; or it needs a dense gradient or initial values that there
        are not.
    """
    return growth.grow_values(
        method, weights.read_value(), self._seed(weights, 'grow_init'),
        initial_value=lambda: initial_value_of(weights, must_repeat=True),
        dense_gradient=(lambda: self.dense_gradient(weights))
        if self.allows_gradient_grow_init else None)

  def _slot_values(self, weights: tf.Variable,
                   slot: tf.Variable) -> tf.Tensor:
    """What `slot` restarts from at new connections, [...].

    Not 0 but what the optimizer itself starts it with: an accumulator of
    Adagrad that starts at 0 divides by it.
    """
    del weights
    return initial_value_of(slot)

  def reset_momentum(self, weights: tf.Variable,
                     new_connections: tf.Tensor) -> tf.Operation:
    """Resets every slot the wrapped optimizer keeps of new connections.

    Args:
      weights: the variable the slots belong to.
      new_connections: bool [...], where to reset.
    """
    return self._reset_slots(weights, new_connections, self._slot_values)

  def _seed(self, weights: tf.Variable, purpose: str) -> tf.Tensor:
    """int32 [2] of the layer, the purpose, the user's seed and the step."""
    step = self._seed_step
    if step is None:
      step = tf.train.get_or_create_global_step().read_value()
    stable = seeding.stable_seed(
        weights.name, purpose, self._stateless_seed_offset)
    return tf.stack([tf.constant(stable, tf.int32), tf.cast(step, tf.int32)])


class SparseRigLOptimizerBase(DenseGradientMixin, SparseSETOptimizerBase):
  """RigL: drop the smallest, grow where the dense gradient is largest.

  Evci et al., arXiv 1911.11134. A step of the schedule moves the masks
  *instead of* applying the gradient, and does not advance the global step.
  """

  allows_gradient_grow_init = True
  skips_gradient_on_update = True

  def __init__(self,
               optimizer: tf.train.Optimizer,
               begin_step: int,
               end_step: int,
               frequency: int,
               drop_fraction: float = 0.1,
               drop_fraction_anneal: str = 'constant',
               use_locking: bool = False,
               grow_init: str = 'zeros',
               initial_acc_scale: float = 0.,
               use_tpu: bool = False,
               name: str = 'SparseRigLOptimizer',
               stateless_seed_offset: int = 0):
    """Wraps `optimizer`; see SparseSETOptimizerBase for the other arguments.

    Args:
      initial_acc_scale: slots of new connections restart from their initial
        value plus this times the dense gradient. Only for slots of either sign:
        squares, as Adam keeps them, may become negative, and weights NaN.
      use_tpu: whether to sum dense gradients over the replicas of a TPU.
    """
    super().__init__(
        optimizer, begin_step, end_step, frequency, drop_fraction,
        drop_fraction_anneal, use_locking, grow_init, name,
        stateless_seed_offset=stateless_seed_offset)
    checks.finite('initial_acc_scale', initial_acc_scale)
    self._initial_acc_scale = initial_acc_scale
    self._use_tpu = use_tpu

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Moves the masks if it is time, else applies the gradients."""
    schedule_step = (
        global_step if global_step is not None else
        tf.train.get_or_create_global_step())
    self._create_slots_first(grads_and_vars)
    return self.cond_mask_update_op(
        schedule_step, lambda: self._train_weights(
            grads_and_vars, global_step, name),
        self._trained_layers(grads_and_vars))

  def _grow_scores(self, weights, old_mask):
    del old_mask
    return scores.gradient_magnitude(self.dense_gradient(weights))

  def _slot_values(self, weights, slot):
    start = super()._slot_values(weights, slot)
    if not self._initial_acc_scale:
      return start
    return start + self._initial_acc_scale * tf.cast(
        self.dense_gradient(weights), start.dtype)

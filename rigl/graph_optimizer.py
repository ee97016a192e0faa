"""Any method of rigl.core.methods around a tf.compat.v1.train optimizer.

A method only computes. `SparseOptimizer` adds the variables, the optimizer slots
and the condition in the graph. It does not know where the masks come from: a subclass
gives `get_weights`, `get_masks` and `get_masked_weights`, three lists in one
order, so any library of masked layers can plug in.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Callable, Mapping, Optional, Sequence

from rigl import dense_gradients, replicas, sparse_utils
from rigl.compat import tf
from rigl.core import checks, layer_names, methods, seeding, stateless_random
from rigl.core.shared_graphs import noinline_call
from rigl.optimizer_wrapper import (
  GradsAndVars,
  OptimizerWrapper,
  claim_step_0,
  initial_value_of,
  root_variable,
  schedule_step,
)


class SparseOptimizer(OptimizerWrapper):
  """Trains with the optimizer it wraps and updates masks by a method.

  Attributes:
    method: see rigl.core.methods.
    drop_fraction: float32 scalar tensor of the last train op built: the share
      of active connections that it moves, 0 on a step that is no update. Fetch
      it together with the train op. None before, and of methods without one.
  """

  drop_fraction: Optional[tf.Tensor] = None
  _memory: Optional[tf.Variable] = None

  def __init__(
    self,
    optimizer: tf.train.Optimizer,
    method: methods.Method,
    seed: int = 0,
    default_sparsity: float = 0.0,
    mask_init_method: str = 'random',
    custom_sparsity_map: Optional[Mapping[str, float]] = None,
    erk_power_scale: float = 1.0,
    use_locking: bool = False,
    use_tpu: bool = False,
    name: str = '',
  ):
    """Wraps `optimizer`.

    Args:
      optimizer: trains the weights.
      method: moves the masks.
      seed: the user's seed of all random numbers.
      default_sparsity: in [0, 1]; for methods that set whole masks, SNIP and DNW.
      mask_init_method: their distribution, see sparse_utils.get_sparsities.
      custom_sparsity_map: {layer name: sparsity} of exceptions.
      erk_power_scale: exponent of the raw densities of erdos_renyi_kernel.
      use_locking: as in tf.train.Optimizer.
      use_tpu: whether replicas of a TPU share each batch, so that gradients
        must be summed before masks are moved by them.
      name: name of this optimizer; the method's if empty.

    Raises:
      ValueError: `method` is not a method, or prunes gradually.
    """
    if not isinstance(method, methods.Method):
      raise ValueError(f'method must be one such as methods.RigL(), got {method!r}.')
    if method.prunes_gradually:
      raise ValueError(
        f'{type(method).__name__} needs GradualPruningOptimizer in a graph, whose update is fixed. '
        'A method of your own that derives from it trains with rigl.keras.'
      )
    super().__init__(optimizer, use_locking, name or type(method).__name__)
    checks.integer('seed', seed)
    self.method = method
    self._user_seed = seed
    self._use_tpu = use_tpu
    self._sparsities = functools.partial(
      sparse_utils.get_sparsities,
      method=mask_init_method,
      default_sparsity=default_sparsity,
      custom_sparsity_map=dict(custom_sparsity_map or {}),
      erk_power_scale=erk_power_scale,
    )
    self._step: Optional[tf.Tensor] = None
    self._begin_another_train_op()
    self._computed: list[dense_gradients.Computed] = []
    self._applied: dict[str, tf.Tensor] = {}
    if method.warning():
      tf.logging.warning(method.warning())

  def _last_update(self) -> tf.Tensor:
    """int64 scalar: the step of the last update."""
    memory = self._get_memory().read_value()
    return tf.cast(memory, tf.int64) - 1 if self.method.when == 'once' else memory

  def _get_memory(self) -> tf.Variable:
    """The variable that holds the last update of a train op."""
    if self._memory is None and self.method.when == 'once':
      self._memory = root_variable('is_snipped', [], tf.bool, False)
    elif self._memory is None:
      first = self.method.initial_last_update_step
      self._memory = root_variable('last_mask_update_step', [], tf.int64, first)
    return self._memory

  def _remember_update(self, step: tf.Tensor) -> tf.Operation:
    if self.method.when == 'always':
      return tf.no_op()
    return self._get_memory().assign(True if self.method.when == 'once' else step).op

  def _create_states(self, var_list: Sequence[tf.Variable]) -> None:
    """Creates `<layer scope>/dense_gradient_ema` of the layers among them."""
    names = {v.name for v in var_list}
    for weights in self.get_weights():
      if weights.name in names and weights.name not in self._ema_grads:
        state = self.method.first_state(weights)
        if state is not None:
          layer = replicas.name_of(weights).rpartition('/')[0]
          self._ema_grads[weights.name] = root_variable(
            layer_names.variable_of(layer, 'dense_gradient_ema'), state.shape, state.dtype, 0.0
          )

  def create_slots(self, var_list):
    self._create_states(var_list)
    super().create_slots(var_list)
    if self.method.when in ('once', 'on_schedule'):
      self._get_memory()

  def share_slots(self, other):
    super().share_slots(other)
    self._memory = other._memory
    self._ema_grads = other._ema_grads

  def _begin_another_train_op(self):
    self._memory = None
    self._ema_grads = dense_gradients.Averages()

  def is_mask_update_iter(self, global_step: tf.Tensor, last_update_step: tf.Tensor) -> tf.Tensor:
    """bool scalar: whether the schedule updates masks at `global_step`, int64 scalar."""
    return self.method.is_update(global_step, last_update_step)

  def get_drop_fraction(self, global_step: tf.Tensor, is_mask_update_iter: tf.Tensor) -> tf.Tensor:
    """The annealed drop fraction, 0 unless masks are updated; all are scalars."""
    method = typing.cast(methods.DropAndGrow, self.method)
    fraction = method.drop_fraction_at(global_step)
    return tf.where(is_mask_update_iter, fraction, tf.zeros_like(fraction))

  def compute_gradients(self, loss, var_list=None, *args, **kwargs) -> GradsAndVars:
    """As tf.train.Optimizer.compute_gradients; see `compute_dense_gradients` for errors.

    With a method that trains all weights, masked layers have the dense gradient.
    """
    if self.method.gradient != 'dense':
      return super().compute_gradients(loss, var_list, *args, **kwargs)
    pairs, dense = self.compute_dense_gradients(loss, var_list, *args, **kwargs)
    if self.method.trains_all_weights:
      dense_of = {
        weights.name: tf.cast(gradient, weights.dtype.base_dtype) for gradient, weights in dense
      }
      return [(dense_of.get(v.name, gradient), v) for gradient, v in pairs]
    self._computed += dense_gradients.of_call(
      pairs, dense_gradients.of_whole_batch(dense, self._use_tpu)
    )
    self._create_states([v for _, v in pairs])
    return pairs

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """See OptimizerWrapper.apply_gradients.

    Raises:
      ValueError: a method that sets masks at step 0 gets no global_step, or
        that of another train op; or see dense_gradients.of_applied.
    """
    if self.method.when == 'once':
      claim_step_0(type(self.method).__name__, global_step)
    grads_and_vars = list(grads_and_vars)
    self._applied = dense_gradients.of_applied(grads_and_vars, self._computed)
    return super().apply_gradients(grads_and_vars, global_step, name)

  @property
  def _weight2masked_grads(self) -> dict[str, tf.Tensor]:
    """{weights.name: gradient}, see `dense_gradient`."""
    computed = {one.name: one.dense for one in self._computed if one.dense is not None}
    return {**computed, **self._applied}

  def dense_gradient(self, weights: tf.Variable) -> tf.Tensor:
    """The dense gradient of a masked layer, [...] like `weights`.

    It belongs to the gradients that the last train op applies, or that were
    computed last if it applies none of the layer.

    Raises:
      ValueError: `compute_gradients` of this optimizer was not called for
        the layer.
    """
    found = self._weight2masked_grads.get(weights.name)
    if found is None:
      raise ValueError(
        f'No dense gradient of {weights.name}: call compute_gradients (or '
        'minimize) of this optimizer before apply_gradients.'
      )
    return found

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Trains and moves the masks if it is time, in the order of the method."""
    layers = self._trained_layers(grads_and_vars)
    step = schedule_step(global_step)
    train = functools.partial(self._train_weights, grads_and_vars, global_step, name)
    if self.method.gradient == 'applied':
      masked = {weights.name for _, weights in layers}
      self._applied = dense_gradients.of_whole_batch(
        [pair for pair in grads_and_vars if pair[1].name in masked], self._use_tpu
      )
    if self.method.replaces_step:
      if self.method.when == 'on_schedule':
        self._create_slots_first(grads_and_vars)
      return self.cond_mask_update_op(step, train, layers)
    self._create_states([v for g, v in grads_and_vars if g is not None])
    next_states = [
      state.assign(self.method.next_state(state.read_value(), self.dense_gradient(weights)))
      for _, weights in layers
      for state in [self._ema_grads.get(weights.name)]
      if state is not None
    ]
    with tf.control_dependencies(next_states):
      trained = train()
    with tf.control_dependencies([trained]):
      return self.cond_mask_update_op(step, tf.no_op, layers)

  def cond_mask_update_op(
    self,
    global_step: tf.Variable,
    otherwise: Callable[[], tf.Operation],
    layers: Optional[Sequence[tuple[tf.Variable, tf.Variable]]] = None,
  ) -> tf.Operation:
    """Moves the masks if `global_step` is an update step.

    Args:
      global_step: int64 scalar variable.
      otherwise: builds the op to run on all other steps.
      layers: (mask, weights) of those to update; all when None.

    Returns:
      An op; see `drop_fraction` for what it did.
    """
    if layers is None:
      layers = list(zip(self.get_masks(), self.get_weights()))
    step = tf.cast(global_step.read_value(), tf.int64)
    self._step = step

    def update_masks():
      updates = [self.generic_mask_update(mask, weights) for mask, weights in layers]
      with tf.control_dependencies(updates):
        return self._remember_update(step)

    if self.method.when == 'never':
      return otherwise()
    if self.method.when == 'always':
      return update_masks()

    def run(build):
      with tf.control_dependencies([build()]):
        return tf.constant(True)

    is_update = self.is_mask_update_iter(step, self._last_update())
    if isinstance(self.method, methods.DropAndGrow):
      self.drop_fraction = self.get_drop_fraction(step, is_update)
    # Functions take no reference variables.
    can_call = all(hasattr(mask, 'handle') for mask, _ in layers)
    call = noinline_call if can_call else lambda build: build()
    # The branch without update is traced first: it creates the slots of the
    # wrapped optimizer, which the update resets.
    return tf.cond(
      tf.logical_not(is_update), lambda: run(otherwise), lambda: call(lambda: run(update_masks))
    ).op

  def generic_mask_update(
    self, mask: tf.Variable, weights: tf.Variable, noise_std: float = 1e-5
  ) -> tf.Operation:
    """The op of an update of a layer: assigns mask, weights (both [...]) and slots.

    `noise_std` is the standard deviation of the noise on the drop score.
    """
    method = self.method
    if isinstance(method, methods.DropAndGrow):
      method = dataclasses.replace(method, noise_std=noise_std)
    layer = self._layer(mask, weights)
    [update] = method.update([layer], self._get_step())
    moved = mask.assign(update.mask).op
    if update.restarted is None:
      return moved
    new_weights = tf.where(
      update.restarted,
      self.get_grow_tensor(weights, getattr(method, 'grow_init', '')),
      layer.weights,
    )
    return tf.group(
      moved, weights.assign(new_weights), self.reset_momentum(weights, update.restarted)
    )

  def get_grow_tensor(self, weights: tf.Variable, method: str) -> tf.Tensor:
    """Values for new connections by a `grow_init`, [...] of the type of `weights`.

    Raises:
      ValueError: `method` is unknown or not a string, which names the
        options; or it needs a dense gradient or initial values that there
        are not.
    """
    definition = self.method
    if isinstance(definition, methods.DropAndGrow):
      definition = dataclasses.replace(definition, grow_init=method)
    return definition.new_weights(self._layer(None, weights))

  def reset_momentum(self, weights: tf.Variable, new_connections: tf.Tensor) -> tf.Operation:
    """Resets every slot that the wrapped optimizer keeps of new connections, bool [...]."""
    layer = self._layer(None, weights)
    return self._reset_slots(
      weights, new_connections, lambda _, slot: self.method.new_slot(layer, initial_value_of(slot))
    )

  def _layer(self, mask: Optional[tf.Variable], weights: tf.Variable) -> methods.Layer:
    """The tensors of a layer, read here and now."""
    state = self._ema_grads.get(weights.name)
    sparsity = 0.0
    if mask is not None and isinstance(self.method, methods.KeepBest):
      sparsity = self._sparsities(self.get_masks())[mask.name]
    return methods.Layer(
      None if mask is None else mask.read_value(),
      weights.read_value(),
      seed=functools.partial(self._seed, weights),
      gradient=functools.partial(self.dense_gradient, weights),
      state=None if state is None else state.read_value(),
      sparsity=sparsity,
      initial_value=lambda: initial_value_of(weights, must_repeat=True),
    )

  def _get_step(self) -> tf.Tensor:
    return tf.train.get_or_create_global_step().read_value() if self._step is None else self._step

  def _seed(self, weights: tf.Variable, purpose: str) -> stateless_random.Seed:
    return (seeding.stable_seed(weights.name, purpose, self._user_seed), self._get_step())

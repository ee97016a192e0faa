"""Sparse training methods as wrappers of tf.compat.v1.train optimizers.

    optimizer = tf.train.MomentumOptimizer(0.1, 0.9)
    optimizer = SparseRigLOptimizer(optimizer, begin_step=0, end_step=25000,
                                    frequency=100, drop_fraction=0.3)
    train_op = optimizer.minimize(loss, global_step)

They act on the layers registered by `rigl.model_pruning`.
"""

from __future__ import annotations

import functools
from typing import Callable, Mapping, Optional, Sequence

from rigl import replicas, sparse_utils
from rigl.compat import tf
from rigl.core import checks, layer_names, mask_math, scores
from rigl.dense_gradients import DenseGradientMixin
from rigl.model_pruning import pruning
from rigl.optimizer_wrapper import (
  GradsAndVars,
  OptimizerWrapper,
  root_variable,
)
from rigl.sparse_optimizers_base import (
  SparseRigLOptimizerBase,
  SparseSETOptimizerBase,
)

# The global steps of the train ops of SNIP in a graph.
_SNIP_STEPS = 'rigl/snip_steps'


class PruningGetterTf1Mixin:
  """Finds the masked layers in the registry of rigl.model_pruning."""

  def get_weights(self):
    """The masked weight variables."""
    return pruning.get_weights()

  def get_masks(self):
    """The mask variables, in the order of `get_weights()`."""
    return pruning.get_masks()

  def get_masked_weights(self):
    """The tensors mask * weights, in the order of `get_weights()`."""
    return pruning.get_masked_weights()

  def dense_gradient_sources(self):
    """See OptimizerWrapper; the masks, where the product is ours."""
    return [layer.dense_gradient_source for layer in pruning.masked_layers()]


class SparseSETOptimizer(PruningGetterTf1Mixin, SparseSETOptimizerBase):
  """SET, see SparseSETOptimizerBase."""


class SparseRigLOptimizer(PruningGetterTf1Mixin, SparseRigLOptimizerBase):
  """RigL, see SparseRigLOptimizerBase."""


class SparseStaticOptimizer(SparseSETOptimizer):
  """A fixed random mask whose smallest weights are re-initialised.

  The control experiment of SET: the same schedule drops the same connections,
  but grows them back at once as if they were new, so the mask never changes.
  """

  _reinitialises_regrown = True

  def __init__(self,
               optimizer: tf.train.Optimizer,
               begin_step: int,
               end_step: int,
               frequency: int,
               drop_fraction: float = 0.1,
               drop_fraction_anneal: str = 'constant',
               use_locking: bool = False,
               grow_init: str = 'zeros',
               name: str = 'SparseStaticOptimizer',
               stateless_seed_offset: int = 0):
    """See SparseSETOptimizerBase."""
    super().__init__(
        optimizer, begin_step, end_step, frequency, drop_fraction,
        drop_fraction_anneal, use_locking, grow_init, name,
        stateless_seed_offset=stateless_seed_offset)

  def _grow_scores(self, weights, old_mask):
    del weights
    return old_mask


class _Averages(dict):
  """{weights.name: variable of the moving average of its dense gradient}."""

  def average(self, weights: tf.Variable) -> Optional[tf.Variable]:
    """As tf.train.ExponentialMovingAverage.average."""
    return self.get(weights.name)


class SparseMomentumOptimizer(DenseGradientMixin, SparseSETOptimizer):
  """SNFS: grow where the averaged dense gradient is largest.

  Dettmers & Zettlemoyer, arXiv 1907.04840, without their redistribution of
  connections between layers.
  """

  def __init__(self,
               optimizer: tf.train.Optimizer,
               begin_step: int,
               end_step: int,
               frequency: int,
               drop_fraction: float = 0.1,
               drop_fraction_anneal: str = 'constant',
               use_locking: bool = False,
               grow_init: str = 'zeros',
               momentum: float = 0.9,
               use_tpu: bool = False,
               name: str = 'SparseMomentumOptimizer',
               stateless_seed_offset: int = 0):
    """Wraps `optimizer`; see SparseSETOptimizerBase for the other arguments.

    Args:
      momentum: decay of the moving average of the dense gradient, in [0, 1].
        With 1 the average stays 0, and growth takes the lowest indices.
      use_tpu: whether to sum dense gradients over the replicas of a TPU.
    """
    super().__init__(
        optimizer, begin_step, end_step, frequency, drop_fraction,
        drop_fraction_anneal, use_locking, grow_init, name,
        stateless_seed_offset=stateless_seed_offset)
    checks.in_unit_interval('momentum', momentum)
    self._ema_decay = momentum
    self._use_tpu = use_tpu
    self._ema_grads = _Averages()

  def compute_gradients(self, loss, var_list=None, *args,
                        **kwargs) -> GradsAndVars:
    """Also creates the averages, see DenseGradientMixin for all else."""
    pairs = super().compute_gradients(loss, var_list, *args, **kwargs)
    self._create_averages([v for _, v in pairs])
    return pairs

  def _create_averages(self, var_list: Sequence[tf.Variable]) -> None:
    """Creates `<layer scope>/dense_gradient_ema` of the layers among them."""
    names = {v.name for v in var_list}
    for layer in pruning.masked_layers():
      name = layer.weights.name
      if name in names and name not in self._ema_grads:
        self._ema_grads[name] = root_variable(
            layer_names.variable_of(layer.name, 'dense_gradient_ema'),
            layer.weights.shape, tf.float32, 0.)

  def create_slots(self, var_list):
    self._create_averages(var_list)
    super().create_slots(var_list)

  def share_slots(self, other):
    super().share_slots(other)
    self._ema_grads = other._ema_grads

  def _begin_another_train_op(self):
    super()._begin_another_train_op()
    self._ema_grads = _Averages()

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Updates the averages, applies the gradients, moves the masks."""
    self._create_averages([v for g, v in grads_and_vars if g is not None])
    decay = self._ema_decay
    updates = []
    for _, weights in self._trained_layers(grads_and_vars):
      gradient = tf.cast(self.dense_gradient(weights), tf.float32)
      ema = self._ema_grads[weights.name]
      updates.append(ema.assign(
          decay * ema.read_value() + (1. - decay) * gradient))
    with tf.control_dependencies(updates):
      return super().apply_local_gradients(
          grads_and_vars, global_step, name)

  def _grow_scores(self, weights, old_mask):
    del old_mask
    return scores.gradient_magnitude(
        self._ema_grads[weights.name].read_value())


class _OneShotMaskOptimizer(PruningGetterTf1Mixin, OptimizerWrapper):
  """Sets whole masks by a score, at the sparsities of a distribution."""

  uses_gradient = True

  def __init__(self,
               optimizer: tf.train.Optimizer,
               default_sparsity: float,
               mask_init_method: str,
               custom_sparsity_map: Optional[Mapping[str, float]] = None,
               use_locking: bool = False,
               use_tpu: bool = False,
               name: Optional[str] = None,
               erk_power_scale: float = 1.):
    """Wraps `optimizer`.

    Args:
      optimizer: trains the weights.
      default_sparsity: in [0, 1].
      mask_init_method: a distribution, see sparse_utils.get_sparsities.
      custom_sparsity_map: {layer name: sparsity} of exceptions.
      use_locking: as in tf.train.Optimizer.
      use_tpu: whether replicas of a TPU share each batch, so that gradients
        must be summed before masks are set by them.
      name: name of this optimizer.
      erk_power_scale: exponent of the raw densities of erdos_renyi_kernel.
    """
    super().__init__(optimizer, use_locking, name or type(self).__name__)
    self._default_sparsity = default_sparsity
    self._mask_init_method = mask_init_method
    self._custom_sparsity_map = dict(custom_sparsity_map or {})
    self._use_tpu = use_tpu
    self._erk_power_scale = erk_power_scale

  def _set_masks_op(
      self, score_fn: Callable[[tf.Variable], tf.Tensor],
      grads_and_vars: GradsAndVars) -> tf.Operation:
    """Keeps, per layer, the connections of highest `score_fn(weights)`."""
    sparsities = sparse_utils.get_sparsities(
        self.get_masks(), self._mask_init_method, self._default_sparsity,
        self._custom_sparsity_map, erk_power_scale=self._erk_power_scale)
    assigns = []
    for mask, weights in self._trained_layers(grads_and_vars):
      size = mask.shape.num_elements()
      n_ones = size - sparse_utils.get_n_zeros(size, sparsities[mask.name])
      kept = mask_math.top_k_mask(score_fn(weights), n_ones)
      assigns.append(mask.assign(tf.cast(kept, mask.dtype.base_dtype)))
    return tf.group(*assigns)


class SparseSnipOptimizer(_OneShotMaskOptimizer):
  """SNIP: keep the connections of highest |gradient * weight|, once.

  Lee et al., arXiv 1810.02340. The first step, if it has global step 0, sets
  the masks instead of applying the gradient, and stays step 0. The gradient is
  that of the whole loss with respect to the weights, as it would be applied:
  an L2 penalty counts.
  """

  @functools.cached_property
  def is_snipped(self) -> tf.Variable:
    """bool scalar variable, whether the masks of the train op are set."""
    return root_variable('is_snipped', [], tf.bool, False)

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """Sets the masks on the first step, else applies the gradients.

    Raises:
      ValueError: no global_step, or that of another train op: without it no
        step is the first.
    """
    if global_step is None:
      raise ValueError('SNIP needs a global_step to know the first step.')
    if not replicas.reuses_variables():
      if any(step is global_step for step in tf.get_collection(_SNIP_STEPS)):
        raise ValueError(
            f'Another train op of SNIP advances {global_step.name}, and SNIP '
            'sets masks at step 0 only. Give each train op a global_step of '
            'its own: tf.Variable(0, trainable=False, dtype=tf.int64).')
      tf.add_to_collection(_SNIP_STEPS, global_step)
    return super().apply_gradients(grads_and_vars, global_step, name)

  def _begin_another_train_op(self):
    self.__dict__.pop('is_snipped', None)

  def create_slots(self, var_list):
    super().create_slots(var_list)
    _ = self.is_snipped

  def share_slots(self, other):
    super().share_slots(other)
    self.is_snipped = other.is_snipped

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Sets the masks on the first step, else applies the gradients."""
    masked = {weights.name for weights in self.get_weights()}
    gradients = {
        v.name: tf.convert_to_tensor(gradient) for gradient, v in grads_and_vars
        if gradient is not None and v.name in masked}
    if self._use_tpu:
      gradients = {name: tf.tpu.cross_replica_sum(gradient)
                   for name, gradient in gradients.items()}

    def snip():
      set_masks = self._set_masks_op(
          lambda weights: scores.connection_sensitivity(
              weights.read_value(), gradients[weights.name]),
          grads_and_vars)
      with tf.control_dependencies([set_masks]):
        return tf.identity(self.is_snipped.assign(True))

    def train():
      with tf.control_dependencies([self._train_weights(
          grads_and_vars, global_step, name)]):
        return tf.constant(True)

    is_first = tf.logical_and(
        tf.equal(global_step.read_value(), 0),
        tf.logical_not(self.is_snipped.read_value()))
    return tf.cond(is_first, snip, train).op


class SparseDNWOptimizer(_OneShotMaskOptimizer):
  """Discovering Neural Wirings: dense updates, the largest weights in use.

  Wortsman et al., arXiv 1906.00586. The forward pass uses the masked weights,
  every weight is trained with the dense gradient, and after each step the
  mask holds the largest magnitudes. A penalty on the raw weights (L2) is not
  part of the dense gradient, so it does not reach masked layers.
  """

  def compute_gradients(self, loss, var_list=None, *args, **kwargs):
    """Gradients in which masked layers have the dense gradient."""
    pairs, dense = self.compute_dense_gradients(
        loss, var_list, *args, **kwargs)
    dense_of = {weights.name: tf.cast(gradient, weights.dtype.base_dtype)
                for gradient, weights in dense}
    return [(dense_of.get(v.name, gradient), v) for gradient, v in pairs]

  def apply_local_gradients(self, grads_and_vars, global_step, name):
    """Applies the gradients and recomputes the masks."""
    with tf.control_dependencies([self._train_weights(
        grads_and_vars, global_step, name)]):
      return self._set_masks_op(
          lambda weights: tf.abs(weights.read_value()), grads_and_vars)

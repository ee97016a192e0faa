"""The dense gradients that growth ranks, kept from one call to the other.

`compute_gradients` computes them, `apply_gradients` uses them, and in between
programs clip, average or choose the ordinary gradients as they like.
"""

from __future__ import annotations

import functools
from typing import Collection, Iterable, Optional, Sequence

from rigl import replicas
from rigl.compat import tf
from rigl.optimizer_wrapper import GradsAndVars


def _sources(op: tf.Operation,
             ends: Collection[tf.Operation]) -> set[tf.Operation]:
  """Those of `ends` that an op computes with; what is behind one is not seen.

  What it only waits for does not count.
  """
  found, seen, waiting = set(), {op}, [op]
  while waiting:
    op = waiting.pop()
    if op in ends:
      found.add(op)
      continue
    for source in (tensor.op for tensor in op.inputs):
      if source not in seen:
        seen.add(source)
        waiting.append(source)
  return found


class DenseGradientMixin:
  """Keeps the dense gradients that belong to the gradients being applied.

  Attributes:
    _weight2masked_grads: {weights.name: dense gradient}; after
      `compute_gradients` those of that call, after `apply_gradients` those of
      the gradients that are applied.
  """

  def compute_gradients(self, loss, var_list: Optional[Iterable] = None,
                        *args, **kwargs) -> GradsAndVars:
    """As tf.train.Optimizer.compute_gradients.

    Raises:
      ValueError: see `compute_dense_gradients`.
    """
    pairs, dense = self.compute_dense_gradients(
        loss, var_list, *args, **kwargs)
    self._weight2masked_grads = {
        weights.name: gradient for gradient, (_, weights) in zip(
            self._sum_over_replicas(dense), dense)}
    for gradient, weights in pairs:
      if gradient is not None:
        self._computed_ops.add(gradient.op)
      if weights.name in self._weight2masked_grads:
        self._computed.setdefault(weights.name, []).append(
            (gradient, self._weight2masked_grads[weights.name]))
    return pairs

  @functools.cached_property
  def _computed_ops(self) -> set[tf.Operation]:
    """Those that make the gradients of all variables and calls."""
    return set()

  @functools.cached_property
  def _computed(self) -> dict[str, list[tuple[tf.Tensor, tf.Tensor]]]:
    """{weights.name: (gradient, dense gradient) of each call}."""
    return {}

  def apply_gradients(self, grads_and_vars, global_step=None, name=None):
    """See OptimizerWrapper.apply_gradients.

    Raises:
      ValueError: a gradient was combined from several calls of
        `compute_gradients`; names its variable.
    """
    grads_and_vars = list(grads_and_vars)
    self._weight2masked_grads = self._dense_gradients_of(grads_and_vars)
    return super().apply_gradients(grads_and_vars, global_step, name)

  def _dense_gradients_of(self, grads_and_vars: GradsAndVars
                         ) -> dict[str, tf.Tensor]:
    """{weights.name: dense gradient} of the calls that the pairs come from."""
    found = {}
    for gradient, weights in grads_and_vars:
      calls = self._computed.get(weights.name, ())
      if gradient is None or not calls:
        continue
      if len(calls) > 1:
        sources = _sources(gradient.op, self._computed_ops)
        calls = [call for call in calls if call[0].op in sources]
      if len(calls) != 1:
        raise ValueError(
            f'compute_gradients was called '
            f'{len(self._computed[weights.name])} times for {weights.name}, '
            f'and the gradient to apply comes from {len(calls)} of these '
            'calls; connections grow by the dense gradient of exactly one. Add '
            'up the losses (those of towers too, which '
            'colocate_gradients_with_ops=True keeps on their devices) and call '
            'compute_gradients once. Gradients that a variable accumulates '
            'must be those of a single call, too.')
      found[weights.name] = calls[0][1]
    return found

  def _sum_over_replicas(
      self, pairs: Sequence[tuple[tf.Tensor, tf.Variable]]
  ) -> Sequence[tf.Tensor]:
    """The gradients of (gradient, weights) pairs, of the whole batch.

    Growth must rank the same gradient on every replica, and not that of one
    shard.
    """
    if self._use_tpu:
      return [tf.tpu.cross_replica_sum(gradient) for gradient, _ in pairs]
    if replicas.in_replica():
      return replicas.sum_over(pairs)
    return [gradient for gradient, _ in pairs]

  def dense_gradient(self, weights: tf.Variable) -> tf.Tensor:
    """The dense gradient of a masked layer, [...] like `weights`.

    Args:
      weights: variable of the layer.

    Raises:
      ValueError: `compute_gradients` of this optimizer was not called for
        the layer.
    """
    if weights.name not in getattr(self, '_weight2masked_grads', {}):
      raise ValueError(
          f'No dense gradient of {weights.name}: call compute_gradients (or '
          'minimize) of this optimizer before apply_gradients.')
    return self._weight2masked_grads[weights.name]

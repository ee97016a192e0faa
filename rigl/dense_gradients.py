"""Finds the dense gradients that belong to applied gradients.

`compute_gradients` computes the dense gradients and `apply_gradients` needs
them, but in between programs may clip, average or select the ordinary
gradients. The graph tells which computed gradients an applied one was made
from.
"""

from __future__ import annotations

from typing import Collection, Mapping, NamedTuple, Optional, Sequence

from rigl import replicas
from rigl.compat import tf
from rigl.optimizer_wrapper import GradsAndVars


class Computed(NamedTuple):
  """What one call of `compute_gradients` made for one variable.

  The op computes its gradient; a variable without a mask has no dense one.
  """

  name: str
  op: tf.Operation
  dense: Optional[tf.Tensor]


class Averages(dict):
  """{weights.name: variable of the moving average of its dense gradient}."""

  def average(self, weights: tf.Variable) -> Optional[tf.Variable]:
    """As tf.train.ExponentialMovingAverage.average; None for a variable without a mask."""
    return self.get(weights.name)


def _sources(op: tf.Operation, ends: Collection[tf.Operation]) -> set[tf.Operation]:
  """The ops of `ends` that `op` depends on through its inputs.

  The search stops at each op of `ends` and ignores control dependencies.
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


def of_call(pairs: GradsAndVars, dense: Mapping[str, tf.Tensor]) -> list[Computed]:
  """The record of a call that returns `pairs`; `dense` is {weights.name: dense gradient}."""
  return [
    Computed(v.name, gradient.op, dense.get(v.name))
    for gradient, v in pairs
    if gradient is not None
  ]


def of_applied(grads_and_vars: GradsAndVars, computed: Sequence[Computed]) -> dict[str, tf.Tensor]:
  """{weights.name: dense gradient} of the calls that the pairs to apply come from.

  Raises:
    ValueError: a gradient was combined from several calls; names its variable.
  """
  ends = {one.op for one in computed}
  found = {}
  for gradient, weights in grads_and_vars:
    calls = [one for one in computed if one.name == weights.name and one.dense is not None]
    if gradient is None or not calls:
      continue
    used = calls
    # A gradient that was stored in a variable has no source in the graph.
    if len(calls) > 1:
      sources = _sources(gradient.op, ends)
      used = [one for one in calls if one.op in sources]
    if len(used) != 1:
      raise ValueError(
        f'compute_gradients was called {len(calls)} times for {weights.name}, and the gradient to '
        f'apply comes from {len(used)} of these calls; connections grow by the dense gradient of '
        'exactly one. Add up the losses (those of towers too, which '
        'colocate_gradients_with_ops=True keeps on their devices) and call compute_gradients once. '
        'Gradients that a variable accumulates must be those of a single call, too.'
      )
    found[weights.name] = used[0].dense
  return found


def of_whole_batch(
  pairs: Sequence[tuple[tf.Tensor, tf.Variable]], use_tpu: bool
) -> dict[str, tf.Tensor]:
  """{weights.name: gradient}, summed over replicas, which may be those of a TPU.

  Every replica must rank the same gradient, that of the whole batch, to grow
  the same connections.
  """
  gradients = [tf.convert_to_tensor(gradient) for gradient, _ in pairs]
  variables = [weights for _, weights in pairs]
  if use_tpu:
    gradients = [tf.tpu.cross_replica_sum(gradient) for gradient in gradients]
  elif replicas.in_replica():
    gradients = replicas.all_reduce_sum(list(zip(gradients, variables)))
  return {v.name: gradient for v, gradient in zip(variables, gradients)}

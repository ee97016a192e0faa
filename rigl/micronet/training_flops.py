"""The cost of training, as a multiple of training the dense network.

From appendix H of the RigL paper (https://arxiv.org/abs/1911.11134). With f_S
and f_D the FLOPs of a forward pass of the sparse and the dense network, a step
takes a forward pass and a backward pass of twice its cost: 3 * f_D when dense.

    baseline                1
    scratch, static,
    SNIP, SET               3 f_S / 3 f_D
    SNFS, DNW               (2 f_S + f_D) / 3 f_D
    RigL                    (3 f_S dT + 2 f_S + f_D) / ((dT + 1) 3 f_D)
    gradual pruning         mean over the steps of f(s_t) / f_D

SNFS and DNW need the dense gradient of the weights at every step, RigL every dT
steps. (The paper has no formula for DNW; ours follows from the gradients that
it computes.) Drawing masks, sorting scores and optimizer updates are not
counted. All costs are multiplied by the length of the training.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

from rigl.core import checks

# Steps between two mask updates in the paper.
DEFAULT_DELTA_T = 100

# Of the published dense networks; steps * batch size = images in training.
PUBLISHED_STEPS = 32000
PUBLISHED_BATCH_SIZE = 4096


@dataclasses.dataclass(frozen=True)
class PruningSchedule:
  """Gradual magnitude pruning (https://arxiv.org/abs/1710.01878).

  The sparsity is s_f * (1 - (1 - (t - begin) / (end - begin))^3) at the steps
  where masks are updated, constant in between, and 0 before.

  Attributes:
    n_steps: number of steps of the whole training.
    begin_step: step of the first update.
    end_step: step from which the final sparsity holds.
    frequency: steps between updates.
  """

  n_steps: int
  begin_step: int
  end_step: int
  frequency: int

  def __post_init__(self):
    checks.positive('frequency', self.frequency)
    if not 0 <= self.begin_step < self.end_step <= self.n_steps:
      raise ValueError(
        'A pruning schedule needs 0 <= begin_step < end_step <= n_steps, got '
        f'{self.begin_step}, {self.end_step} and {self.n_steps}.'
      )

  def phases(self, final_sparsity: float) -> Iterator[tuple[float, int]]:
    """Yields (sparsity, number of steps it holds) over the training."""
    yield 0.0, self.begin_step
    for step in range(self.begin_step, self.end_step, self.frequency):
      remaining = (1 - (step - self.begin_step) / (self.end_step - self.begin_step)) ** 3
      yield final_sparsity * (1 - remaining), min(self.frequency, self.end_step - step)
    yield final_sparsity, self.n_steps - self.end_step


# The default schedule of the ImageNet script.
DEFAULT_PRUNING = PruningSchedule(
  n_steps=PUBLISHED_STEPS, begin_step=0, end_step=25000, frequency=100
)


def _sparse_only(f_sparse: float, f_dense: float, delta_t: float) -> float:
  return 3 * f_sparse / (3 * f_dense)


def _dense_gradient(f_sparse: float, f_dense: float, delta_t: float) -> float:
  return (2 * f_sparse + f_dense) / (3 * f_dense)


def _rigl(f_sparse: float, f_dense: float, delta_t: float) -> float:
  cycle = 3 * f_sparse * delta_t + 2 * f_sparse + f_dense
  return cycle / ((delta_t + 1) * 3 * f_dense)


# Training method -> (f_sparse, f_dense, delta_t) -> multiple, under the names
# of the training scripts. 'momentum' is SNFS.
_MULTIPLES: dict[str, Callable[[float, float, float], float]] = {
  'baseline': lambda f_sparse, f_dense, delta_t: 1.0,
  **dict.fromkeys(('scratch', 'static', 'snip', 'set'), _sparse_only),
  'momentum': _dense_gradient,
  'dnw': _dense_gradient,
  'rigl': _rigl,
}

METHODS = (*_MULTIPLES, 'prune')


def training_multiple(
  method: str,
  f_sparse: float,
  f_dense: float,
  delta_t: float = DEFAULT_DELTA_T,
  length: float = 1.0,
) -> float:
  """Returns the FLOPs of a training, as a multiple of the dense one.

  Args:
    method: a name in `METHODS` other than 'prune'.
    f_sparse: FLOPs of a forward pass of the sparse network.
    f_dense: FLOPs of a forward pass of the dense network.
    delta_t: steps between two mask updates; only RigL depends on it. Infinity
      stands for no updates.
    length: steps of this training as a multiple of those of the dense one.

  Raises:
    ValueError: on an unknown method or invalid numbers.
  """
  if method not in _MULTIPLES:
    hint = ' Use pruning_multiple for prune.' if method == 'prune' else ''
    raise ValueError(
      f'Unknown training method {method!r}. Choose one of {tuple(_MULTIPLES)}.{hint}'
    )
  checks.positive('f_dense', f_dense)
  checks.positive('length', length)
  checks.not_negative('f_sparse', f_sparse)
  if delta_t != math.inf:
    checks.positive('delta_t', delta_t)
  if math.isinf(delta_t) and method == 'rigl':
    return length * _sparse_only(f_sparse, f_dense, delta_t)
  return length * _MULTIPLES[method](f_sparse, f_dense, delta_t)


def pruning_multiple(
  flops_at: Callable[[float], float],
  final_sparsity: float,
  schedule: PruningSchedule = DEFAULT_PRUNING,
  length: float = 1.0,
) -> float:
  """Returns the FLOPs of gradual pruning, as a multiple of dense training.

  Args:
    flops_at: sparsity -> FLOPs of a forward pass, also for the dense network
      at 0.
    final_sparsity: sparsity at the end of the schedule.
    schedule: schedule of the pruning; a longer training scales it.
    length: see `training_multiple`.

  Raises:
    ValueError: on invalid numbers.
  """
  f_dense = flops_at(0.0)
  checks.positive('f_dense', f_dense)
  checks.positive('length', length)
  total = sum(
    flops_at(sparsity) * n_steps for sparsity, n_steps in schedule.phases(final_sparsity) if n_steps
  )
  return length * total / (schedule.n_steps * f_dense)

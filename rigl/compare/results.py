"""Results of the runs: a table of means and standard deviations."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Optional, Sequence

from rigl.compare.plan import Run
from rigl.micronet import formatting
from rigl.training import history

# The first of these that a script reports is used.
_ACCURACIES = ('accuracy', 'top_1_accuracy')
# With more than this factor more connections, networks are not comparable.
_MAX_DENSITY_RATIO = 1.1


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The result of a finished run.

  Attributes:
    run: the run.
    unit: 'epoch', or 'step' if the epoch is unknown.
    errors: (epoch or step, error) of each evaluation.
    sparsity: final sparsity of all masks together.
    n_bytes: final size of the network; None if the script does not report it.
    seconds: duration of the run.
  """

  run: Run
  unit: str
  errors: tuple[tuple[float, float], ...]
  sparsity: float
  n_bytes: Optional[int]
  seconds: float

  @property
  def error(self) -> float:
    """The error of the last evaluation."""
    return self.errors[-1][1]


def outcome_of(run: Run) -> Optional[Outcome]:
  """The result of a run; None if it was never evaluated.

  Raises:
    ValueError: its metrics.jsonl is damaged.
  """
  rows = run.rows()
  evaluated = history.evaluations(rows)
  if not evaluated:
    return None
  name = next(n for n in _ACCURACIES if n in evaluated[-1])
  unit = 'epoch' if 'epoch' in evaluated[-1] else 'step'
  errors = tuple((row[unit], 1.0 - row[name]) for row in evaluated)
  sparsities = [row['sparsity'] for row in rows if 'sparsity' in row]
  return Outcome(
    run,
    unit,
    errors,
    sparsities[-1] if sparsities else 0.0,
    evaluated[-1].get('bytes'),
    rows[-1]['seconds'],
  )


@dataclasses.dataclass(frozen=True)
class Group:
  """The outcomes of all finished seeds of a method at an end_sparsity, None without masks."""

  method: str
  sparsity: Optional[float]
  outcomes: tuple[Outcome, ...]

  @property
  def error(self) -> float:
    """The mean error."""
    return statistics.fmean(o.error for o in self.outcomes)

  @property
  def deviation(self) -> Optional[float]:
    """The standard deviation of the error; None for a single seed."""
    if len(self.outcomes) < 2:
      return None
    return statistics.stdev(o.error for o in self.outcomes)

  @property
  def measured_sparsity(self) -> float:
    """The mean sparsity of all masks at the end."""
    return statistics.fmean(o.sparsity for o in self.outcomes)

  @property
  def n_bytes(self) -> Optional[float]:
    """The mean size; None if the script does not report it."""
    sizes = [o.n_bytes for o in self.outcomes if o.n_bytes is not None]
    return statistics.fmean(sizes) if sizes else None


def grouped(outcomes: Sequence[Outcome]) -> list[Group]:
  """Groups results by method and sparsity, keeping their order."""
  keys = dict.fromkeys((o.run.method, o.run.sparsity) for o in outcomes)
  groups = [
    Group(
      method,
      sparsity,
      tuple(o for o in outcomes if (o.run.method, o.run.sparsity) == (method, sparsity)),
    )
    for method, sparsity in keys
  ]
  order = list(dict.fromkeys(method for method, _ in keys))
  return sorted(groups, key=lambda g: (order.index(g.method), g.sparsity or 0.0))


def sparsities_of(groups: Sequence[Group]) -> list[float]:
  """All distinct sparsities, ascending."""
  return sorted({g.sparsity for g in groups if g.sparsity is not None})


def markdown(groups: Sequence[Group]) -> str:
  """A table of errors in %, with rows for methods and columns for sparsities."""
  found = {(g.method, g.sparsity): g for g in groups}
  has_dense = any(g.sparsity is None for g in groups)
  columns: dict[Optional[float], str] = {None: 'dense'} if has_dense else {}
  columns |= {s: f'{100 * s:g} %' for s in sparsities_of(groups)}
  rows = [
    [method, *(_cell(found.get((method, sparsity))) for sparsity in columns)]
    for method in dict.fromkeys(g.method for g in groups)
  ]
  return formatting.markdown_table(['error in %', *columns.values()], rows)


def warnings(groups: Sequence[Group]) -> list[str]:
  """Warns of networks denser than others, as if training ended before gradual pruning."""
  found = []
  for sparsity in sparsities_of(groups):
    some = [g for g in groups if g.sparsity == sparsity]
    highest = max(g.measured_sparsity for g in some)
    found += [
      f'{g.method} at {100 * sparsity:g} % is not comparable: it ended at a '
      f'sparsity of {g.measured_sparsity:.4f}, others at {highest:.4f}.'
      for g in some
      if 1.0 - g.measured_sparsity > _MAX_DENSITY_RATIO * (1.0 - highest)
    ]
  return found


def _cell(group: Optional[Group]) -> str:
  if group is None:
    return ''
  mean = f'{100.0 * group.error:.2f}'
  return mean if group.deviation is None else f'{mean} ± {100.0 * group.deviation:.2f}'


def csv(groups: Sequence[Group]) -> str:
  """A row for each method and sparsity, of which there is at least one."""
  return formatting.csv_table(
    [
      {
        'method': group.method,
        'end_sparsity': group.sparsity or 0.0,
        'sparsity': group.measured_sparsity,
        'runs': len(group.outcomes),
        'error': group.error,
        'error_deviation': group.deviation,
        'best_error': statistics.fmean(min(e for _, e in o.errors) for o in group.outcomes),
        'bytes': group.n_bytes,
        'seconds': statistics.fmean(o.seconds for o in group.outcomes),
      }
      for group in groups
    ]
  )

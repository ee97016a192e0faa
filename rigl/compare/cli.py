"""The command line: `python -m rigl.compare`."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Optional

from rigl import console
from rigl.compare import plan
from rigl.core import checks
from rigl.training.config import SparsityConfig

_EXAMPLES = """further flags of the script follow --:
  python -m rigl.compare --script=mnist --methods=rigl,set,snip,dense \\
      --sparsities=.9,.98 --seeds=3 --output=/tmp/compared -- \\
      --num_epochs=40 --lr_drop_epoch=20 --maskupdate_end_step=1500

Started again with the same --output it trains what is missing: finished runs
are read, interrupted ones go on.
"""


def _parser() -> argparse.ArgumentParser:
  parser = console.Parser(
    prog='python -m rigl.compare',
    description='Trains methods at sparsities with several seeds, and writes\n'
    'a table (table.md, table.csv) and a figure (figure.png) of the errors.',
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--script', choices=plan.SCRIPTS, default='mnist', help='what trains (default: %(default)s)'
  )
  parser.add_argument(
    '--methods',
    metavar='NAME,...',
    default='rigl,set,static,dense',
    help='training methods (default: %(default)s)',
  )
  parser.add_argument(
    '--sparsities',
    metavar='X,...',
    default='0.9,0.95,0.98',
    help='in [0, 1) (default: %(default)s)',
  )
  parser.add_argument(
    '--seeds',
    metavar='N',
    type=int,
    default=3,
    help='runs of each, with the seeds 0 to N - 1 (default: %(default)s)',
  )
  parser.add_argument(
    '--jobs',
    metavar='N',
    type=int,
    help='runs at a time, which share the cores (default: one a core)',
  )
  parser.add_argument(
    '--output', metavar='FOLDER', required=True, help='folder of table, figure and runs'
  )
  return parser


def _runs_of(
  args: argparse.Namespace, arguments: Sequence[str], folder: pathlib.Path
) -> list[plan.Run]:
  """The runs for a command line."""
  methods, words = (list(filter(None, s.split(','))) for s in (args.methods, args.sparsities))
  for flag, given in (('--methods', methods), ('--sparsities', words)):
    if not given:
      raise ValueError(f'{flag} is empty.')
  for method in methods:
    SparsityConfig(training_method=method)  # Only a check here.
  try:
    sparsities = [float(word) for word in words]
  except ValueError:
    raise ValueError(
      f'--sparsities takes numbers separated by commas, got {args.sparsities!r}.'
    ) from None
  return plan.make_runs(
    plan.SCRIPTS[args.script], methods, sparsities, args.seeds, folder, arguments
  )


class _Progress:
  """Prints a line for each run that ends."""

  def __init__(self, n_finished: int, n_left: int, n_jobs: int):
    """Prints the number of runs."""
    print(
      f'{n_finished + n_left} runs: {n_finished} finished before, {n_left} '
      f'to go, {min(n_jobs, n_left) or n_jobs} at a time',
      flush=True,
    )
    self._n_before, self._n_left = n_finished, n_left
    self._n_ended = 0
    self._begin = time.monotonic()
    self.failures: list[tuple[plan.Run, str]] = []

  def on_end(self, run: plan.Run, failure: str) -> None:
    """Prints the result of a run, and how long the others will take."""
    # Imported here, as it loads TensorFlow.
    from rigl.compare import results
    from rigl.training import progress

    self._n_ended += 1
    outcome = None if failure else results.outcome_of(run)
    if outcome is None:
      said = f'failed: {failure}' if failure else 'was not evaluated'
      self.failures.append((run, said))
    else:
      said = f'error {outcome.error:7.2%}  sparsity {outcome.sparsity:.4f}  {outcome.seconds:.0f}s'
    n_to_go = self._n_left - self._n_ended
    seconds = (time.monotonic() - self._begin) / self._n_ended * n_to_go
    total = self._n_before + self._n_left
    print(
      f'[{self._n_before + self._n_ended}/{total}] {str(run):28} {said}'
      f'  {progress.format_seconds(seconds)} left',
      flush=True,
    )


def _compare(args: argparse.Namespace, arguments: Sequence[str]) -> int:
  """Trains what is missing, writes table and figure; returns the exit code."""
  n_jobs = args.jobs or len(os.sched_getaffinity(0))
  checks.positive('--jobs', n_jobs)
  folder = pathlib.Path(checks.expanded_path('--output', args.output))
  runs = _runs_of(args, arguments, folder)
  # Imported here, as they load TensorFlow.
  from rigl.compare import figures, results, workers
  from rigl.training import signals

  module = workers.load(runs)
  left = [run for run in runs if not run.is_finished]
  progress = _Progress(len(runs) - len(left), len(left), n_jobs)
  stopped: Optional[signals.StoppedError] = None
  try:
    workers.train(module, left, n_jobs, progress.on_end)
  except signals.StoppedError as error:
    stopped = error
  groups = results.grouped(
    [outcome for run in runs if run.is_finished for outcome in [results.outcome_of(run)] if outcome]
  )
  if groups:
    table = '\n'.join([results.markdown(groups), *(f'{w}\n' for w in results.warnings(groups))])
    (folder / 'table.md').write_text(table, encoding='utf-8')
    (folder / 'table.csv').write_text(results.csv(groups), encoding='utf-8')
    figures.write(groups, folder / 'figure.png')
    print(f'\n{table}\nWrote table.md, table.csv and figure.png in {folder}.')
  if stopped:
    print(stopped, file=sys.stderr)
    return 128 + stopped.number
  for run, said in progress.failures:
    print(f'Error: {run} {said} (see {run.folder / "output.txt"})', file=sys.stderr)
  return 1 if progress.failures else 0


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command with `argv`, or the arguments of the process; returns its exit code."""
  words = list(sys.argv[1:] if argv is None else argv)
  split = words.index('--') if '--' in words else len(words)
  parser = _parser()
  args = parser.parse_args(words[:split])
  try:
    return _compare(args, words[split + 1 :])
  except (OSError, ValueError) as error:
    parser.exit(2, f'Error: {error}\n')

"""The runs of a comparison: their arguments, folders and completion."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from typing import Any, Optional, Sequence

from rigl.core import checks
from rigl.training import history
from rigl.training.config import SparsityConfig


@dataclasses.dataclass(frozen=True)
class Script:
  """A training script.

  Attributes:
    module: name of its module.
    folder: name of the flag for the folder of a run.
    arguments: flags that make it evaluate too, and use exactly that folder.
  """

  module: str
  folder: str
  arguments: tuple[str, ...] = ()


SCRIPTS = {
  'mnist': Script('rigl.mnist.mnist_train_eval', 'save_path'),
  'cifar': Script('rigl.cifar_resnet.resnet_train_eval', 'train_dir', ('--mode=train_and_eval',)),
  'imagenet': Script(
    'rigl.imagenet_resnet.imagenet_train_eval',
    'output_dir',
    ('--mode=train_and_eval', '--nouse_folder_stub'),
  ),
}
_FINISHED = 'finished.json'


@dataclasses.dataclass(frozen=True)
class Run:
  """One training, by a method as the user named it.

  The sparsity is None for a method without masks, and the arguments are all
  flags except that of the folder.
  """

  script: Script
  method: str
  sparsity: Optional[float]
  seed: int
  folder: pathlib.Path
  arguments: tuple[str, ...]

  def __str__(self) -> str:
    level = '' if self.sparsity is None else f' {self.sparsity:g}'
    return f'{self.method}{level} seed {self.seed}'

  @property
  def argv(self) -> list[str]:
    """The command line, without the name of the program."""
    return [*self.arguments, f'--{self.script.folder}={self.folder}']

  @property
  def is_finished(self) -> bool:
    """Whether it was completed with exactly these flags."""
    path = self.folder / _FINISHED
    try:
      return json.loads(path.read_text()) == list(self.arguments)
    except (OSError, ValueError):
      return False

  def note_finished(self) -> None:
    """Makes `is_finished` true."""
    (self.folder / _FINISHED).write_text(json.dumps(self.arguments) + '\n')

  def rows(self) -> list[dict[str, Any]]:
    """The rows of its metrics.jsonl.

    The CIFAR-10 script writes it to a subfolder named by hyperparameters; the
    newest one counts.
    """
    found = [path for path in self.folder.rglob(history.METRICS_FILE) if path.parent.name != 'eval']
    if not found:
      return []
    latest = max(found, key=lambda path: path.stat().st_mtime_ns)
    return history.read(str(latest.parent))


def make_runs(
  script: Script,
  method_names: Sequence[str],
  sparsities: Sequence[float],
  n_seeds: int,
  folder: pathlib.Path,
  arguments: Sequence[str],
) -> list[Run]:
  """All runs, ordered by seed, so that the first results show all methods.

  The sparsities are for methods with masks, and the arguments further flags of
  all runs, which have their folders in `folder`.

  Raises:
    ValueError: a name is unknown or repeated, or a number is out of range.
  """
  checks.positive('--seeds', n_seeds)
  for value in sparsities:
    checks.below_one('--sparsities', value)
  for given in (method_names, sparsities):
    if len(set(given)) < len(given):
      raise ValueError(f'{", ".join(map(str, given))} has one of them twice.')

  runs = []
  for seed, name in itertools.product(range(n_seeds), method_names):
    has_masks = SparsityConfig(training_method=name).method.uses_masks
    for sparsity in sparsities if has_masks else [None]:
      flags = [*script.arguments, *arguments, f'--training_method={name}', f'--seed={seed}']
      level = ''
      if sparsity is not None:
        flags.append(f'--end_sparsity={sparsity!r}')
        level = f'_sparsity{sparsity!r}'
      own_folder = folder / f'{name}{level}_seed{seed}'
      runs.append(Run(script, name, sparsity, seed, own_folder, tuple(flags)))
  return runs

"""Evaluates a run given only its folder.

The config.gin in the folder describes the network, and the checkpoint tells
which layers have masks.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

from rigl import checkpoint_files, gin_configs
from rigl.training import checkpoints, resuming

# Modes without training.
MODES = ('eval', 'eval_once')


def is_run(mode: str, folder: str) -> bool:
  """Whether `folder` is that of a run to evaluate, not one with runs in subfolders."""
  return mode in MODES and (
    bool(gin_configs.files_in(folder)) or checkpoint_files.holds_checkpoints(folder)
  )


@contextlib.contextmanager
def explained_misfits(
  folder: str, configs: Sequence[Any], network: Sequence[str]
) -> Iterator[None]:
  """A context that adds cause and remedy to a MisfitError of the checkpoint in a folder.

  `configs` are those of the evaluation, one of each class in config.gin;
  `network` names the fields that determine the shapes of variables.
  """
  try:
    yield
  except checkpoints.MisfitError as error:
    if not gin_configs.files_in(folder):
      flags = ', '.join(f'--{name}' for name in network)
      raise checkpoints.MisfitError(
        f'No {gin_configs.CONFIG_FILE} in {folder} says which network it '
        f'is. Give its flags: {flags}. {error}'
      ) from error
    formers = resuming.former_configs(folder, configs)
    found = [name for name in network if resuming.differences(formers, configs, [name])]
    if not found:
      raise
    raise checkpoints.MisfitError(
      f'The run in {folder} has {"; ".join(resuming.differences(formers, configs, found))}. Leave '
      f'out {", ".join(f"--{name}" for name in found)}. {error}'
    ) from error

"""Evaluating a run that is given by its folder alone.

The config.gin in the folder says which network it is, and the checkpoint which
of its layers have masks.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Sequence

from rigl import gin_configs
from rigl.training import checkpoints, resuming

# Those that train nothing.
MODES = ('eval', 'eval_once')


def is_run(mode: str, folder: str) -> bool:
  """Whether evaluation is asked for in the folder of a run itself.

  Else the run is in a folder below, which hyperparameters name.
  """
  return mode in MODES and (
      bool(gin_configs.files_in(folder)) or
      checkpoints.holds_checkpoints(folder))


@contextlib.contextmanager
def explained_misfits(folder: str, configs: Sequence[Any],
                      network: Sequence[str]) -> Iterator[None]:
  """Says why a checkpoint does not fit, and what to do about it.

  Args:
    folder: folder of the checkpoint.
    configs: what it is evaluated with, of all classes in its config.gin.
    network: names of the fields that shape the variables; flags of the names.

  Raises:
    MisfitError: one that the context raises, with what there is to say.
  """
  try:
    yield
  except checkpoints.MisfitError as error:
    if not gin_configs.files_in(folder):
      flags = ', '.join(f'--{name}' for name in network)
      raise checkpoints.MisfitError(
          f'No {gin_configs.CONFIG_FILE} in {folder} says which network it '
          f'is. Give its flags: {flags}. {error}') from error
    formers = resuming.former_configs(folder, configs)
    found = [name for name in network
             if resuming.differences(formers, configs, [name])]
    if not found:
      raise
    raise checkpoints.MisfitError(
        f'The run in {folder} has '
        f'{"; ".join(resuming.differences(formers, configs, found))}. '
        f'Leave out {", ".join(f"--{name}" for name in found)}. '
        f'{error}') from error

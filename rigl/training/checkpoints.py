"""Checks that checkpoints fit a training, reads their values, and assigns values to variables."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional, Sequence

import numpy as np

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.core import messages


def describe_latest(model_dir: str) -> str:
  """A sentence about the checkpoint that training would resume from."""
  try:
    prefix = checkpoint_files.latest(model_dir)
  except ValueError as error:
    return str(error)
  if prefix:
    return f'The last good checkpoint is {prefix}.'
  return f'There is no checkpoint in {model_dir} yet.'


def names_and_shapes(variables: Iterable[tf.Variable]) -> dict[str, tuple[int, ...]]:
  """{variable name: shape}, as `check_fits` expects it."""
  return {v.op.name: tuple(v.shape.as_list()) for v in variables}


class MisfitError(ValueError):
  """A checkpoint does not fit the variables that are to be read from it."""


def check_fits(prefix: str, expected: Mapping[str, Sequence[int]]) -> None:
  """Raises MisfitError unless the checkpoint has all of {variable name: shape}.

  Call it before restoring: tf.train.Saver gives a resource variable a value of
  another shape without an error.

  Raises:
    MisfitError: names the variables that are missing or of another shape.
    ValueError: the checkpoint cannot be read.
  """
  shapes = checkpoint_files.open_checkpoint(prefix).get_variable_to_shape_map()
  different = [
    f'{name} is {list(shapes[name])} there and {list(shape)} here'
    for name, shape in expected.items()
    if name in shapes and tuple(shapes[name]) != tuple(shape)
  ]
  problems = different + [f'{name} is missing there' for name in expected if name not in shapes]
  if problems:
    raise MisfitError(
      f'The checkpoint {prefix} does not fit this network and training '
      f'method: {messages.first_few(problems, 5, "; ")}.'
    )


def read_values(prefix: str, variables: Sequence[tf.Variable]) -> dict[str, np.ndarray]:
  """{variable name: value} of the variables in a checkpoint.

  Raises:
    ValueError: see check_fits, or the data cannot be read.
  """
  check_fits(prefix, names_and_shapes(variables))
  return checkpoint_files.read_tensors(prefix, [v.op.name for v in variables])


def assign(session: tf.Session, values: Iterable[tuple[tf.Variable, np.ndarray]]) -> None:
  """Assigns values, pairs of a variable and an array of its shape, in one run of the session.

  TensorFlow prepares the whole graph for each new set of fetches, so that a run for each variable
  takes long.
  """
  initializers = {variable.initializer: value for variable, value in values}
  session.run(
    list(initializers),
    {initializer.inputs[1]: value for initializer, value in initializers.items()},
  )


def check_resumable(model_dir: str, variables: Iterable[tf.Variable]) -> Optional[str]:
  """The prefix of the checkpoint that training would resume from, checked; None without one.

  Raises:
    ValueError: the checkpoint does not fit; names what differs.
  """
  prefix = checkpoint_files.latest(model_dir)
  if prefix:
    read_values(prefix, list(variables))
  return prefix


def read_counters(prefix: str, names: Sequence[str]) -> dict[str, int]:
  """{name: value} of scalar variables, such as the global step.

  Raises:
    ValueError: a variable is missing or no scalar, or cannot be read.
  """
  check_fits(prefix, dict.fromkeys(names, ()))
  return {name: int(value) for name, value in checkpoint_files.read_tensors(prefix, names).items()}


def latest_step(model_dir: str) -> int:
  """The global step of the latest checkpoint; 0 without one."""
  prefix = checkpoint_files.latest(model_dir)
  return read_counters(prefix, ['global_step'])['global_step'] if prefix else 0


def mask_sparsities(prefix: str) -> dict[str, float]:
  """{layer: share of zeros} of all masks in a checkpoint."""
  return {
    layer: float(np.mean(mask == 0)) for layer, mask in checkpoint_files.read_masks(prefix).items()
  }


def check_given(settings: Any, *names: str) -> None:
  """Raises ValueError unless settings of these names are checkpoints, or ''."""
  for name in names:
    path = getattr(settings, name)
    if path:
      checkpoint_files.resolve(path, name)


def initialize_parameters_from_ckpt(
  ckpt_path: str,
  model_dir: str,
  param_suffixes: Sequence[str] = checkpoint_files.PARAMETER_SUFFIXES,
) -> None:
  """Initializes the parameters of the graph from a checkpoint.

  Not masks, slots and the global step. Does nothing if `model_dir` has a
  checkpoint, because training then resumes from that. The suffixes are the last
  components of the names of parameters.

  Raises:
    ValueError: there is no checkpoint, or it lacks a parameter or has it in
      another shape; names it.
  """
  if checkpoint_files.latest(model_dir):
    return
  prefix = checkpoint_files.resolve(ckpt_path)
  parameters = {
    v.op.name: v for v in tf.global_variables() if v.op.name.rsplit('/', 1)[-1] in param_suffixes
  }
  check_fits(prefix, names_and_shapes(parameters.values()))
  tf.train.init_from_checkpoint(prefix, parameters)

"""Small session hooks of all training scripts."""

from __future__ import annotations

from typing import Any, Callable

from rigl import gin_configs
from rigl.compat import tf
from rigl.training import checkpoints, iterations, saving


class ResumableHook(tf.train.SessionRunHook):
  """Refuses to start when the folder holds another training's checkpoint."""

  def __init__(self, model_dir: str, may_write: bool, says_so: bool = False):
    """Checks the latest checkpoint of `model_dir` when the graph is complete.

    If it `may_write`, it restores a missing state file; if it `says_so`, it
    prints which checkpoint training resumes from.
    """
    self._model_dir = model_dir
    self._may_write = may_write
    self._says_so = says_so

  def begin(self) -> None:
    prefix = checkpoints.check_resumable(self._model_dir, tf.global_variables())
    if self._may_write and prefix:
      saving.restore_state_file(self._model_dir)
    if self._says_so and prefix:
      print(f'Going on from {prefix}.', flush=True)


class WriteConfigHook(tf.train.SessionRunHook):
  """Writes config.gin after the checkpoint in the folder has been checked."""

  def __init__(self, model_dir: str, *configs: Any):
    """Writes `configs` before training_steps_multiplier scales them."""
    self._arguments = (model_dir, *configs)

  def begin(self) -> None:
    gin_configs.write(*self._arguments)


class LastIterationHook(tf.train.SessionRunHook):
  """Ends training after a number of iterations, the last of which is a step.

  The last checkpoint then has a global step of its own.
  """

  def __init__(self, first_iteration: int, n_iterations: int):
    self._iteration = first_iteration
    self._n_iterations = n_iterations

  def begin(self) -> None:
    self._advanced = iterations.advanced()

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    return tf.train.SessionRunArgs(self._advanced)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    self._iteration += 1
    if self._iteration >= self._n_iterations and all(run_values.results):
      run_context.request_stop()


class SaveState(tf.train.CheckpointSaverListener):
  """Saves the state of a history before each checkpoint."""

  def __init__(self, save: Callable[[], None]):
    self._save = save

  def before_save(self, session: Any, global_step_value: int) -> None:
    del session, global_step_value
    self._save()

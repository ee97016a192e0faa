"""Saves checkpoints, so that a kill at any moment loses none."""

from __future__ import annotations

import os
import re
from typing import Any, Sequence

from absl import logging

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.core import messages
from rigl.training import checkpoints, iterations

# Temporary files and folders of TensorFlow and rigl.files.
_LEFTOVER = re.compile(
  r'model\.ckpt-\d+(_temp|\.meta\.tmp.*)|'
  r'(checkpoint|graph\.pbtxt)\.tmp.*|.*\.\d+\.tmp'
)


def _is_latest(prefix: str) -> bool:
  """Whether a checkpoint exists and training would resume from it."""
  folder, name = os.path.split(prefix)
  # The state file may spell the folder differently.
  return tf.io.gfile.exists(f'{prefix}.index') and (
    os.path.basename(checkpoint_files.latest(folder) or '') == name
  )


def _write_state_file(model_dir: str, names: Sequence[str]) -> None:
  """Writes the state file for some checkpoints; the last one is the latest.

  Paths are relative, as the Saver writes them, so that the folder can be moved.
  """
  # TensorFlow itself makes paths relative only if the folder is relative.
  paths = names if os.path.isabs(model_dir) else [os.path.join(model_dir, name) for name in names]
  tf.train.update_checkpoint_state(model_dir, paths[-1], paths)


def remove_leftovers(model_dir: str) -> None:
  """Removes incomplete files that a kill has left; no other process may train in the folder."""
  for file in tf.io.gfile.listdir(model_dir):
    name = file.rstrip('/')  # Names of remote folders end with a slash.
    path = os.path.join(model_dir, name)
    if _LEFTOVER.fullmatch(name):
      if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
      else:
        tf.io.gfile.remove(path)


def restore_state_file(model_dir: str) -> None:
  """Rewrites a missing state file, so that TensorFlow finds the checkpoints that there are."""
  state_file = os.path.join(model_dir, checkpoint_files.STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    prefixes = checkpoint_files.all_complete(model_dir)
    logging.warning('%s is missing: going on from %s.', state_file, prefixes[-1])
    _write_state_file(model_dir, list(map(os.path.basename, prefixes)))


class MultiplesTimer(tf.train.SecondOrStepTimer):
  """Triggers once at or after each multiple of some numbers of steps, the periods."""

  def __init__(self, periods: Sequence[int]):
    super().__init__(every_steps=min(periods))
    self._periods = periods

  def should_trigger_for_step(self, step: int) -> bool:
    """Whether a multiple was reached since the last trigger, or none was."""
    last = self.last_triggered_step()
    return last is None or any(step // period > last // period for period in self._periods)


class SaverHook(tf.train.CheckpointSaverHook):
  """Saves the graph's variables and `iteration`, but no NaN or infinity.

  Never rewrites the checkpoint that the session was restored from, so a kill
  loses nothing.
  """

  def __init__(
    self,
    model_dir: str,
    *periods: int,
    keep: int = 0,
    listeners: Sequence[tf.train.CheckpointSaverListener] = (),
  ):
    """Saves at each multiple of each of `periods` (steps) and at the end; 0 keeps all."""
    super().__init__(model_dir, save_steps=min(periods), listeners=list(listeners))
    self._timer = MultiplesTimer(periods)
    # A run makes one step at most. By default the base class expects more, and reads the global
    # step once more after each run.
    self._set_steps_per_run(1)
    self._keep = keep

  def begin(self) -> None:
    super().begin()
    variables = tf.global_variables()
    self._saver = tf.train.Saver(
      [*variables, *iterations.variables()],
      sharded=True,
      max_to_keep=self._keep or None,
      save_relative_paths=True,
    )
    self._is_finite = {
      v.op.name: tf.reduce_all(tf.math.is_finite(v)) for v in variables if v.dtype.is_floating
    }

  def after_create_session(self, session: Any, coord: Any) -> None:
    del coord
    state = tf.train.get_checkpoint_state(self._checkpoint_dir)
    if state:
      self._saver.recover_last_checkpoints(state.all_model_checkpoint_paths)
    # The base class also writes the graph here, as text and for TensorBoard. That takes seconds,
    # and the summary writer and each checkpoint have it.
    step = session.run(self._global_step_tensor)
    self._save(session, step)
    self._timer.update_last_triggered_step(step)
    remove_leftovers(self._checkpoint_dir)

  def _save(self, session: Any, step: int) -> Any:
    prefix = f'{self._save_path}-{step}'
    spoilt = [name for name, is_finite in session.run(self._is_finite).items() if not is_finite]
    if spoilt:
      raise FloatingPointError(
        f'Training stops at step {step}: NaN or infinity in {messages.first_few(spoilt, 3)}. '
        f'{checkpoints.describe_latest(self._checkpoint_dir)}'
      )
    for listener in self._listeners:
      listener.before_save(session, step)
    if not _is_latest(prefix):
      logging.debug('Saving %s.', prefix)
      self._write(session, step, prefix)
    # A list, so that every listener is called.
    return any([listener.after_save(session, step) for listener in self._listeners])

  def _write(self, session: Any, step: int, prefix: str) -> None:
    try:
      self._saver.save(session, self._save_path, global_step=step)
    except (tf.errors.OpError, OSError) as error:
      # Remove the incomplete checkpoint to free its space.
      temporary = f'{prefix}_temp'
      if tf.io.gfile.isdir(temporary):
        tf.io.gfile.rmtree(temporary)
      raise OSError(
        f'Cannot write the checkpoint {prefix}: {messages.reason(error)}. '
        f'{checkpoints.describe_latest(self._checkpoint_dir)}'
      ) from error

"""Saving checkpoints, so that nothing is lost if it is cut short."""

from __future__ import annotations

import os
import re
from typing import Any, Sequence

from absl import logging

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.core import messages
from rigl.training import checkpoints, iterations

# Files and folders that TensorFlow and rigl.files rename when done.
_LEFTOVER = re.compile(
    r'model\.ckpt-\d+(_temp|\.meta\.tmp.*)|'
    r'(checkpoint|graph\.pbtxt)\.tmp.*|.*\.\d+\.tmp')


def _is_latest(prefix: str) -> bool:
  """Whether training would go on from this very checkpoint, if it is there."""
  folder, name = os.path.split(prefix)
  # The state file may name the folder in another way.
  return tf.io.gfile.exists(f'{prefix}.index') and (
      os.path.basename(checkpoints.latest(folder) or '') == name)


def _write_state_file(model_dir: str, names: Sequence[str]) -> None:
  """Names the checkpoints of a folder, of which the last is the latest.

  Without the folder, as the Saver does, so that it may be moved.
  """
  # TensorFlow strips the folder itself, but only one that is not absolute.
  paths = names if os.path.isabs(model_dir) else [
      os.path.join(model_dir, name) for name in names]
  tf.train.update_checkpoint_state(model_dir, paths[-1], paths)


def remove_leftovers(model_dir: str) -> None:
  """Removes what a kill left of files that training was writing.

  Args:
    model_dir: folder of a training, in which no other is running.
  """
  for file in tf.io.gfile.listdir(model_dir):
    name = file.rstrip('/')  # Remote folders end with one.
    path = os.path.join(model_dir, name)
    if _LEFTOVER.fullmatch(name):
      if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
      else:
        tf.io.gfile.remove(path)


def restore_state_file(model_dir: str) -> None:
  """Makes TensorFlow find the checkpoints too, if the state file is gone.

  Args:
    model_dir: folder of a training that has a checkpoint.
  """
  state_file = os.path.join(model_dir, checkpoint_files.STATE_FILE)
  if not tf.io.gfile.exists(state_file):
    prefixes = checkpoint_files.all_complete(model_dir)
    logging.warning('%s is missing: going on from %s.', state_file,
                    prefixes[-1])
    _write_state_file(model_dir, list(map(os.path.basename, prefixes)))


class MultiplesTimer(tf.train.SecondOrStepTimer):
  """Triggers once at or after each multiple of some numbers of steps."""

  def __init__(self, periods: Sequence[int]):
    """See the class; `periods` are these numbers."""
    super().__init__(every_steps=min(periods))
    self._periods = periods

  def should_trigger_for_step(self, step: int) -> bool:
    """Whether a multiple was reached since it was last triggered, or never was.
    """
    last = self.last_triggered_step()
    return last is None or any(
        step // period > last // period for period in self._periods)


class SaverHook(tf.train.CheckpointSaverHook):
  """Saves the graph's variables and `iteration`, never what is not finite.

  The checkpoint that a session was restored from stays as it is: nothing is
  lost if this process is killed, whenever that is.
  """

  def __init__(self, model_dir: str, *periods: int, keep: int = 0,
               listeners: Sequence[tf.train.CheckpointSaverListener] = ()):
    """Saves at each multiple of each of `periods`, and at the end.

    Args:
      model_dir: folder of the training, from which its session is restored.
      *periods: global steps between checkpoints.
      keep: checkpoints to keep; 0 for all.
      listeners: called around each checkpoint.
    """
    super().__init__(
        model_dir, save_steps=min(periods), listeners=list(listeners))
    self._timer = MultiplesTimer(periods)
    self._keep = keep

  def begin(self) -> None:
    super().begin()
    variables = tf.global_variables()
    self._saver = tf.train.Saver(
        [*variables, *iterations.variables()], sharded=True,
        max_to_keep=self._keep or None, save_relative_paths=True)
    self._is_finite = {
        v.op.name: tf.reduce_all(tf.math.is_finite(v))
        for v in variables if v.dtype.is_floating}

  def after_create_session(self, session: Any, coord: Any) -> None:
    state = tf.train.get_checkpoint_state(self._checkpoint_dir)
    if state:
      self._saver.recover_last_checkpoints(state.all_model_checkpoint_paths)
    super().after_create_session(session, coord)
    remove_leftovers(self._checkpoint_dir)

  def _save(self, session: Any, step: int) -> Any:
    prefix = f'{self._save_path}-{step}'
    spoilt = [name for name, is_finite in session.run(self._is_finite).items()
              if not is_finite]
    if spoilt:
      raise FloatingPointError(
          f'Training stops at step {step}: NaN or infinity in '
          f'{messages.first_few(spoilt, 3)}. '
          f'{checkpoints.describe_latest(self._checkpoint_dir)}')
    for listener in self._listeners:
      listener.before_save(session, step)
    if not _is_latest(prefix):
      logging.debug('Saving %s.', prefix)
      self._write(session, step, prefix)
    # A list, as each of them is to be told.
    return any([listener.after_save(session, step)
                for listener in self._listeners])

  def _write(self, session: Any, step: int, prefix: str) -> None:
    try:
      self._saver.save(session, self._save_path, global_step=step)
    except (tf.errors.OpError, OSError) as error:
      # Half a checkpoint, which takes the space of another attempt.
      temporary = f'{prefix}_temp'
      if tf.io.gfile.isdir(temporary):
        tf.io.gfile.rmtree(temporary)
      raise OSError(
          f'Cannot write the checkpoint {prefix}: {messages.reason(error)}. '
          f'{checkpoints.describe_latest(self._checkpoint_dir)}') from error

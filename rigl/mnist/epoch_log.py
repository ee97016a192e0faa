"""What the MNIST script reports while it trains.

At the end of each epoch the hook tests the network and reports to the
terminal, to a text file, to TensorBoard and, where asked for, to the file of
mask records. It works inside the session that trains, so nothing is rebuilt.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any, Callable, Optional, Sequence

import numpy as np

from rigl.compat import tf
from rigl.core import layer_names
from rigl.mnist import compression, mask_records
from rigl.training import files, hooks

# The beginning of a line of the text file.
_EPOCH = ('epoch={epoch} iteration={iteration}, test loss {test_loss:.6f}, '
          'test accuracy {accuracy:.6f}, ')
_READ_EPOCH = re.compile(
    r'epoch=\d+ iteration=(\d+), test loss \S+, test accuracy ([\d.]+), ')


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Where a training stands and when it reports.

  Attributes:
    n_batches: iterations in an epoch.
    n_epochs: epochs of the whole training.
    first_iteration: iterations done before this process.
    record_frequency: iterations between mask records; 0 for none.
  """

  n_batches: int
  n_epochs: int
  first_iteration: int
  record_frequency: int

  @property
  def n_iterations(self) -> int:
    """Iterations of the whole training, which may need one more to end."""
    return self.n_epochs * self.n_batches


@dataclasses.dataclass(frozen=True)
class Fetches:
  """Tensors of the training graph.

  Attributes:
    loss: training loss, scalar.
    accuracy: training accuracy, scalar.
    drop_fraction: annealed, scalar; None without mask updates.
    test_loss: scalar, of the digits in `test_feed`.
    test_accuracy: scalar, of the same.
    test_feed: {placeholder: array}.
    masks: mask variables in the order of the layers; may be empty.
  """

  loss: tf.Tensor
  accuracy: tf.Tensor
  drop_fraction: Optional[tf.Tensor]
  test_loss: tf.Tensor
  test_accuracy: tf.Tensor
  test_feed: dict[tf.Tensor, np.ndarray]
  masks: Sequence[tf.Variable]


def compression_line(masks: Sequence[np.ndarray]) -> str:
  """Sizes, sparsities and bytes of the network without its dead units.

  Args:
    masks: 0/1 [inputs, outputs] of each layer.
  """
  sparsities, sizes = compression.get_compressed_fc(masks)
  return (f'compressed {"-".join(map(str, sizes))}, sparsity '
          f'{" ".join(f"{s:.4f}" for s in sparsities)}, '
          f'{compression.compressed_size_bytes(masks)} bytes')


def _sparsity(masks: Sequence[np.ndarray]) -> float:
  size = sum(mask.size for mask in masks)
  return 1. - sum(np.count_nonzero(mask) for mask in masks) / size


def _describe(masks: Sequence[np.ndarray]) -> list[str]:
  """Lines on the network: its sparsities and, if there are masks, its core."""
  if not masks:
    return ['sparsity 0.000000, layers dense']
  layers = ' '.join(f'{_sparsity([mask]):.4f}' for mask in masks)
  return [f'sparsity {_sparsity(masks):.6f}, layers {layers}',
          compression_line(masks)]


class EpochLog(tf.train.SessionRunHook):
  """Tests and reports at the end of each epoch, records masks on the way.

  Attributes:
    best_accuracy: highest test accuracy of an epoch so far; None before.
    last_accuracy: test accuracy of the last epoch of this process; None before.
  """

  def __init__(self, fetches: Fetches, schedule: Schedule, folder: str,
               text_file: str, records_file: str,
               kept_pixels: Optional[np.ndarray] = None):
    """Continues the files of an earlier process where they exist.

    Args:
      fetches: what to report.
      schedule: when.
      folder: for TensorBoard.
      text_file: one line an epoch.
      records_file: mask records (.npz).
      kept_pixels: bool [784], the pixels that are inputs; None for all.
    """
    self._fetches = fetches
    self._schedule = schedule
    self._folder = folder
    self._text_file = pathlib.Path(text_file)
    self._records_file = records_file
    self._kept_pixels = kept_pixels
    # Stays empty in a worker that does not write, where the hook does not run.
    self._records = mask_records.MaskRecords()
    self._iteration = schedule.first_iteration
    self._totals = np.zeros(2)
    self._n_fetched = 0
    self.best_accuracy: Optional[float] = None
    self.last_accuracy: Optional[float] = None

  # --- Files ----------------------------------------------------------------

  def begin(self) -> None:
    self._records = mask_records.resume_mask_records(
        self._records_file, self._iteration, self._kept_pixels)
    self._truncate_text()
    self._writer = tf.summary.FileWriterCache.get(self._folder)
    # TensorBoard then forgets what will be done again.
    self._writer.add_session_log(
        tf.SessionLog(status=tf.SessionLog.START), self._iteration + 1)

  def _truncate_text(self) -> None:
    """Removes the lines of iterations that will be done again.

    Raises:
      ValueError: a line is not one of this class; names the file.
    """
    lines = []
    if self._text_file.exists():
      # A kill may have left half a line.
      lines = [line for line in self._text_file.read_text().splitlines(True)
               if line.endswith('\n')]
    kept, done = [], True
    for line in lines:
      if line.startswith('epoch='):
        match = _READ_EPOCH.match(line)
        if not match:
          raise ValueError(f'{self._text_file} was changed: cannot read the '
                           f'line {line.rstrip()!r}. Move the file away.')
        done = int(match[1]) <= self._iteration
        if done:
          self._note_accuracy(float(match[2]))
      if done:
        kept.append(line)
    with files.replaced(str(self._text_file)) as temporary:
      pathlib.Path(temporary).write_text(''.join(kept))

  def save_records(self) -> None:
    """Writes the mask records; to be called with each checkpoint."""
    if len(self._records):
      self._records.save(self._records_file)

  def _note_accuracy(self, accuracy: float) -> None:
    self.best_accuracy = max(self.best_accuracy or 0., accuracy)

  # --- Steps ----------------------------------------------------------------

  def after_create_session(self, session: Any, coord: Any) -> None:
    del coord
    if self._iteration == 0 and not len(self._records):
      self._record(session)
    self._clock = hooks.StepClock()

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    fetches = {'loss': self._fetches.loss, 'accuracy': self._fetches.accuracy}
    if self._fetches.drop_fraction is not None:
      fetches['drop_fraction'] = self._fetches.drop_fraction
    return tf.train.SessionRunArgs(fetches)

  def after_run(self, run_context: Any, run_values: Any) -> None:
    results = run_values.results
    self._totals += results['loss'], results['accuracy']
    self._n_fetched += 1
    self._clock.count()
    self._iteration += 1
    session = run_context.session
    if self._schedule.record_frequency and (
        self._iteration % self._schedule.record_frequency == 0):
      self._record(session)
    if self._iteration % self._schedule.n_batches == 0 and (
        self._iteration <= self._schedule.n_iterations):
      self._report(session, results.get('drop_fraction', 0.))

  def end(self, session: Any) -> None:
    del session
    self._writer.flush()

  def _record(self, session: Any) -> None:
    if self._schedule.record_frequency and self._fetches.masks:
      values = session.run(list(self._fetches.masks))
      self._records.append(self._iteration, {
          layer_names.layer_of_mask(mask.name): value
          for mask, value in zip(self._fetches.masks, values)
      })

  # --- Reports --------------------------------------------------------------

  def _report(self, session: Any, drop_fraction: float) -> None:
    epoch = self._iteration // self._schedule.n_batches
    test_loss, accuracy, masks = session.run(
        [self._fetches.test_loss, self._fetches.test_accuracy,
         list(self._fetches.masks)], self._fetches.test_feed)
    train_loss, train_accuracy = self._totals / self._n_fetched
    steps_per_second = self._clock.steps_per_second()
    self._totals[:], self._n_fetched = 0., 0
    self.last_accuracy = accuracy
    self._note_accuracy(accuracy)
    sparsity = _sparsity(masks) if masks else 0.

    left = (self._schedule.n_epochs - epoch) * self._schedule.n_batches
    network = _describe(masks)
    print(f'epoch {epoch:3d}/{self._schedule.n_epochs}  '
          f'iteration {self._iteration:5d}  '
          f'loss {train_loss:.4f}  test loss {test_loss:.4f}  '
          f'test accuracy {accuracy:7.2%}  {steps_per_second:4.0f} steps/s  '
          f'{hooks.format_seconds(left / steps_per_second)} left',
          *(f'  {line}' for line in network if masks), sep='\n', flush=True)
    with files.naming(str(self._text_file)), (
        self._text_file.open('a')) as file:
      file.write(_EPOCH.format(
          epoch=epoch, iteration=self._iteration, test_loss=test_loss,
          accuracy=accuracy) + '\n'.join(network) + '\n')
    self._write_summaries({
        'loss': train_loss,
        'accuracy': train_accuracy,
        'test_loss': test_loss,
        'test_accuracy': accuracy,
        'drop_fraction': drop_fraction,
        'global_sparsity': sparsity,
        **{f'sparsity/{variable.op.name}_0': _sparsity([mask])
           for variable, mask in zip(self._fetches.masks, masks)},
    })

  def _write_summaries(self, values: dict[str, float]) -> None:
    self._writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=float(value))
        for tag, value in values.items()
    ]), self._iteration)


class SaveRecords(tf.train.CheckpointSaverListener):
  """Saves the mask records together with each checkpoint."""

  def __init__(self, get_log: Callable[[], EpochLog]):
    """The log is made with the graph, which is later than the listener."""
    self._get_log = get_log

  def before_save(self, session: Any, global_step_value: int) -> None:
    del session, global_step_value
    self._get_log().save_records()

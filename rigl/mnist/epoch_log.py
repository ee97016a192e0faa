"""The reports of the MNIST script during training.

At the end of each epoch a hook tests the network and reports to the terminal,
metrics.jsonl, TensorBoard and, optionally, the file of mask records. It derives
the text file of the script of 2020 from metrics.jsonl. It runs inside the
training session, so no graph is rebuilt.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from rigl import files
from rigl.compat import tf
from rigl.core import connections
from rigl.mnist import compression, mask_records
from rigl.training import history, iterations, mask_watch, progress, summaries


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The position of a training, and when it reports.

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
    """Iterations of the whole training; it may need one more to end."""
    return self.n_epochs * self.n_batches


def network_values(masks: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The values of a row about the network: sparsities and sizes.

  Masks are {layer: 0/1 [inputs, outputs]}, empty for a dense network.
  """
  values: dict[str, Any] = {'sparsity': connections.sparsity(masks)}
  if masks:
    sparsities, units = compression.get_compressed_fc(list(masks.values()))
    values.update(
      layer_sparsities={
        layer: connections.sparsity({layer: mask}) for layer, mask in masks.items()
      },
      units=units,
      unit_sparsities=sparsities,
      bytes=compression.compressed_size_bytes(list(masks.values())),
    )
  return values


def text_of(row: Mapping[str, Any]) -> str:
  """The lines for a test row of metrics.jsonl in the text file of the script of 2020."""

  def joined(numbers):
    return ' '.join(f'{number:.4f}' for number in numbers)

  layers = row.get('layer_sparsities')
  text = (
    f'epoch={row["epoch"]} iteration={row["iteration"]}, '
    f'test loss {_loss_of(row):.6f}, '
    f'test accuracy {row["accuracy"]:.6f}, '
    f'sparsity {row["sparsity"]:.6f}, '
    f'layers {joined(layers.values()) if layers else "dense"}\n'
  )
  if layers:
    text += (
      f'compressed {"-".join(map(str, row["units"]))}, sparsity '
      f'{joined(row["unit_sparsities"])}, {row["bytes"]} bytes\n'
    )
  return text


def _loss_of(row: Mapping[str, Any]) -> float:
  """The loss of a row; NaN for None, which stands for any non-finite loss."""
  return math.nan if row['loss'] is None else row['loss']


class EpochLog(tf.train.SessionRunHook):
  """Tests and reports at the end of each epoch, and records masks.

  Attributes:
    last_accuracy: test accuracy of the last epoch of this process; None before.
  """

  def __init__(
    self,
    train: Mapping[str, Optional[tf.Tensor]],
    test: Mapping[str, tf.Tensor],
    test_feed: Mapping[tf.Tensor, np.ndarray],
    masks: Sequence[tf.Variable],
    schedule: Schedule,
    folder: str,
    text_file: str,
    records_file: str,
    kept_pixels: Optional[np.ndarray] = None,
  ):
    """Resumes the files of an earlier process, if any.

    Args:
      train: scalars of a training step: loss, accuracy, learning_rate, and
        drop_fraction, which is None without mask updates.
      test: scalars of `test_feed`: loss and accuracy.
      test_feed: {placeholder: array}, the test digits.
      masks: mask variables in the order of the layers; may be empty.
      schedule: when to report.
      folder: folder of metrics.jsonl and TensorBoard's files.
      text_file: path of the text file, with one or two lines per epoch.
      records_file: path of the mask records (.npz).
      kept_pixels: bool [784], the pixels that are inputs; None for all.
    """
    self._train = {name: value for name, value in train.items() if value is not None}
    self._test = dict(test)
    self._test_feed = test_feed
    self._watch = mask_watch.MaskWatch(masks)
    self._schedule = schedule
    self._folder = folder
    # TensorBoard draws one tag of several folders into one chart.
    self._test_folder = os.path.join(folder, 'eval')
    self._text_file = pathlib.Path(text_file)
    self._records_file = records_file
    self._kept_pixels = kept_pixels
    # Stays empty in a worker that does not write, where the hook does not run.
    self._records = mask_records.MaskRecords()
    self._iteration = schedule.first_iteration
    self._history = history.History(folder, 'iteration')
    # Loss, accuracy and number of the iterations of this epoch.
    self._totals = np.zeros(3)
    self.last_accuracy: Optional[float] = None

  @property
  def best(self) -> Optional[dict[str, Any]]:
    """The row of the highest test accuracy so far, or None."""
    return max(
      history.evaluations(self._history.rows), default=None, key=lambda row: row['accuracy']
    )

  # --- Files ----------------------------------------------------------------

  def begin(self) -> None:
    self._records = mask_records.resume_mask_records(
      self._records_file, self._iteration, self._kept_pixels
    )
    self._former_state = self._history.resume(self._iteration)
    with files.replaced(str(self._text_file)) as temporary:
      pathlib.Path(temporary).write_text(
        ''.join(map(text_of, history.evaluations(self._history.rows)))
      )
    self._global_step = tf.train.get_global_step()
    self._watch.begin()
    for folder in (self._folder, self._test_folder):
      summaries.begin(folder, self._iteration)

  def save_records(self) -> None:
    """Writes the mask records."""
    if len(self._records):
      self._records.save(self._records_file)

  def save(self) -> None:
    """Writes the state for a checkpoint. Call it before each checkpoint."""
    self.save_records()
    self._history.save_state(
      self._iteration, {'totals': self._totals.tolist(), **self._watch.state()}
    )

  # --- Steps ----------------------------------------------------------------

  def after_create_session(self, session: Any, coord: Any) -> None:
    del coord
    if self._iteration == 0 and not len(self._records):
      self._record(session)
    if self._former_state:
      self._totals = np.array(self._former_state['totals'])
    self._watch.start(session, self._iteration == 0, self._former_state)
    self._clock = progress.StepClock()

  def before_run(self, run_context: Any) -> tf.train.SessionRunArgs:
    del run_context
    others = {'advanced': iterations.advanced(), 'updates': self._watch.updates}
    return tf.train.SessionRunArgs({**self._train, **others})

  def after_run(self, run_context: Any, run_values: Any) -> None:
    results = run_values.results
    self._totals += results['loss'], results['accuracy'], 1
    self._clock.count()
    self._iteration += 1
    session = run_context.session
    self._watch.after_run(session, results['updates'], all(results['advanced']))
    if self._schedule.record_frequency and self._iteration % self._schedule.record_frequency == 0:
      self._record(session)
    if self._iteration % self._schedule.n_batches == 0 and (
      self._iteration <= self._schedule.n_iterations
    ):
      self._report(session, results)

  def _record(self, session: Any) -> None:
    if self._schedule.record_frequency and self._watch.masks:
      self._records.append(self._iteration, session.run(self._watch.masks))

  # --- Reports --------------------------------------------------------------

  def _report(self, session: Any, results: Mapping[str, float]) -> None:
    step, test, masks, pictures = session.run(
      [self._global_step, self._test, self._watch.masks, self._watch.pictures], self._test_feed
    )
    loss, train_accuracy, n_iterations = self._totals
    self._totals = np.zeros(3)
    place = {
      'step': step,
      'iteration': self._iteration,
      'epoch': self._iteration // self._schedule.n_batches,
    }
    train = {
      'loss': loss / n_iterations,
      'accuracy': train_accuracy / n_iterations,
      'learning_rate': results['learning_rate'],
      'drop_fraction': results.get('drop_fraction', 0.0),
    }
    of_masks = self._watch.row(masks)
    self._history.add('train', **place, **train, **of_masks)
    self._history.add('test', **place, **test, **network_values(masks))
    row = self._history.rows[-1]
    self.last_accuracy = row['accuracy']
    self._print(train['loss'], row)
    with files.errors_name(str(self._text_file)), self._text_file.open('a') as file:
      file.write(text_of(row))
    summaries.write(
      self._folder, self._iteration, {**train, **mask_watch.tags(of_masks, masks)}, pictures
    )
    summaries.write(self._test_folder, self._iteration, test)

  def _print(self, train_loss: float, row: Mapping[str, Any]) -> None:
    """Prints the line of an epoch."""
    epoch, n_epochs = row['epoch'], self._schedule.n_epochs
    size = (
      [f'sparsity {row["sparsity"]:.4f}', f'{row["bytes"]:,} bytes'] if self._watch.masks else []
    )
    speed = self._clock.steps_per_second()
    left = (n_epochs - epoch) * self._schedule.n_batches / speed
    print(
      f'epoch {epoch:3d}/{n_epochs}',
      f'loss {train_loss:.4f}',
      f'test loss {_loss_of(row):.4f}',
      f'test accuracy {row["accuracy"]:7.2%}',
      *size,
      f'{speed:4.0f} steps/s',
      f'{progress.format_seconds(left)} left',
      sep='  ',
      flush=True,
    )

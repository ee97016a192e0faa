"""Trains, evaluates and follows runs, for all scripts."""

from __future__ import annotations

import signal
from typing import Any, Callable, Iterator, Optional, Sequence

from absl import logging

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.core import messages
from rigl.training import (
  checkpoints,
  distribution,
  history,
  saving,
  session_loop,
  signals,
  specs,
  tpu_estimator,
)
from rigl.training import hooks as training_hooks
from rigl.training import tpu as tpu_lib


def choose_loop(loop: Optional[str], num_replicas: int, use_tpu: bool = False) -> str:
  """The name of the loop that trains and evaluates.

  Args:
    loop: one of config.LOOPS; None for TPUEstimator where TensorFlow has it and
      it can run the training, else sessions.
    num_replicas: devices of this process that share a batch.
    use_tpu: whether to use a TPU.

  Raises:
    ValueError: TensorFlow lacks this loop, or it cannot run the training.
  """
  n = distribution.total_replicas(num_replicas)
  has_estimator = tpu_estimator.is_available()
  if loop is None:
    loop = 'tpu_estimator' if use_tpu or (has_estimator and n == 1) else 'session'
  if loop == 'session' and not use_tpu:
    return loop
  if not has_estimator:
    named = 'use_tpu' if use_tpu else 'loop=tpu_estimator'
    remedy = (
      'Leave out use_tpu, or run: pip install ".[estimator,tpu]" (Python 3.10 or 3.11).'
      if use_tpu
      else 'Use loop=session.'
    )
    raise ValueError(
      f'{named} needs TPUEstimator, which TensorFlow '
      f'{tf.__version__} does not have: 2.15 was the last '
      f'release with it. {remedy}'
    )
  if loop == 'session':
    raise ValueError('loop=session does not work with use_tpu. Use loop=tpu_estimator.')
  if n > 1:
    raise ValueError(
      f'loop=tpu_estimator does not work with {n} replicas '
      '(num_replicas, or workers of TF_CONFIG). Use '
      'loop=session.'
    )
  return loop


def make_loop(
  job: specs.Job,
  loop: Optional[str] = None,
  num_replicas: int = 1,
  tpu: Optional[tpu_lib.TpuSetup] = None,
) -> specs.Loop:
  """Makes the loop that trains and evaluates a job.

  On `tpu`, or on CPU or GPU if None. `num_replicas` devices of this process share
  a training batch. If TF_CONFIG names workers, this process is one, see
  distribution.py.

  Raises:
    ValueError: see `choose_loop`.
  """
  distribution.tidy_tf_config()
  if choose_loop(loop, num_replicas, tpu is not None) == 'session':
    return session_loop.SessionLoop(job, num_replicas)
  return tpu_estimator.EstimatorLoop(job, tpu)


def train(
  loop: specs.Loop,
  input_fn: specs.InputFn,
  *,
  max_steps: Optional[int] = None,
  first_step: Optional[int] = None,
  hooks: Sequence[tf.train.SessionRunHook] = (),
  saving_listeners: Sequence[Any] = (),
  says_resumed: bool = True,
) -> Optional[signal.Signals]:
  """Trains until the data end or the global step reaches `max_steps`.

  Resumes from the latest checkpoint in the folder of the loop.

  Args:
    loop: from `make_loop`.
    input_fn: gives the training batches, from the next one on.
    max_steps: the global step to stop at; None for the end of the data.
    first_step: global step of the checkpoint after which `input_fn` begins, if
      it does not look for it itself.
    hooks: further ones of the session, of the process that writes.
    saving_listeners: called around each checkpoint; not by workers.
    says_resumed: whether to print which checkpoint training resumes from.

  Returns:
    The signal that stopped training; None if it ran to its end.

  Raises:
    ValueError: the folder holds a checkpoint of another network or method.
    distribution.WorkerLostError: workers cannot go on together.
  """
  is_chief = distribution.is_chief()
  resumable = training_hooks.ResumableHook(loop.folder, is_chief, is_chief and says_resumed)
  if distribution.n_workers() > 1:
    if first_step is None:
      first_step = checkpoints.latest_step(loop.folder)
    try:
      loop.train(
        input_fn,
        max_steps,
        [distribution.WorkerHook(first_step), resumable, *(hooks if is_chief else ())],
        (),
      )
    except (
      tf.errors.AbortedError,
      tf.errors.CancelledError,
      tf.errors.DeadlineExceededError,
      tf.errors.UnavailableError,
    ) as error:
      raise distribution.WorkerLostError('one of them is gone') from error
    return None
  stop = signals.StopOnSignalHook()
  try:
    loop.train(input_fn, max_steps, [resumable, stop, *hooks], saving_listeners)
  finally:
    stop.restore()
  return stop.stopped_by


def end_at_once(model_dir: str, length: str) -> None:
  """Says that the folder holds the whole training, of '10 steps'; removes its leftovers."""
  print(f'{model_dir} already holds {length}.')
  if distribution.is_chief():
    saving.remove_leftovers(model_dir)


def _is_evaluated(folder: str, step: int) -> bool:
  """Whether metrics.jsonl has an evaluation of a step."""
  return any(row['step'] == step for row in history.evaluations(history.read(folder)))


def train_in_turns(
  loop: specs.Loop,
  input_fn: specs.InputFn,
  total: int,
  chunk: int,
  evaluate: Optional[Callable[[str], Any]] = None,
  **arguments: Any,
) -> None:
  """Trains to the global step `total`, alternating with `evaluate`, if given.

  First evaluates the checkpoint to resume from if metrics.jsonl lacks its
  evaluation, as after a kill between the two. The last checkpoint is always
  evaluated.

  Args:
    loop: from `make_loop`.
    input_fn: gives the training batches, from the next one on.
    total: the global step to stop at.
    chunk: steps between evaluations, at its multiples and at the end.
    evaluate: called with the prefix of a checkpoint; None to only train.
    **arguments: passed to `train`.

  Raises:
    ValueError: see `train`.
    signals.StoppedError: a signal has stopped training.
  """
  folder = loop.folder
  step = checkpoints.latest_step(folder)
  if step >= total:
    end_at_once(folder, f'{step} steps')
  if evaluate and (
    step >= total or (step and step % chunk == 0 and not _is_evaluated(folder, step))
  ):
    evaluate(checkpoint_files.resolve(folder))
  if step >= total:
    return
  is_first = True
  while step < total:
    step = min(step - step % chunk + chunk, total) if evaluate else total
    stopped_by = train(loop, input_fn, max_steps=step, **arguments, says_resumed=is_first)
    is_first = False
    if stopped_by:
      raise signals.StoppedError(
        stopped_by,
        f'Stopped at step {checkpoints.latest_step(folder)} of '
        f'{total}, saved in {folder}. The same command goes on.',
      )
    if evaluate:
      evaluate(checkpoint_files.resolve(folder))
  if distribution.is_chief():
    print(
      f'Trained to step {checkpoints.latest_step(folder)}: {checkpoint_files.resolve(folder)}.',
      flush=True,
    )


def evaluate(
  loop: specs.Loop, input_fn: specs.InputFn, checkpoint: str, steps: Optional[int] = None
) -> dict[str, float]:
  """Evaluates one checkpoint on all examples of `input_fn`.

  Args:
    loop: from `make_loop`.
    input_fn: gives every example once.
    checkpoint: its prefix. It must have the variables of the network and the
      global step.
    steps: batches to evaluate, needed by a TPU; None for all.

  Returns:
    {metric: value}, with the step as 'global_step'.

  Raises:
    ValueError: the checkpoint or an example cannot be read, or the checkpoint
      lacks a variable or has it in another shape; names it.
  """
  checkpoint_files.open_checkpoint(checkpoint)
  try:
    return loop.evaluate(input_fn, checkpoint, steps)
  except tf.errors.OpError as error:
    raise ValueError(
      f'Cannot evaluate the checkpoint {checkpoint}: {messages.reason(error)}'
    ) from error


def _checkpoints_of(model_dir: str, timeout_seconds: float) -> Iterator[str]:
  """Yields new checkpoints, until none appears for `timeout_seconds`."""
  first = checkpoint_files.latest(model_dir)
  # Without a state file TensorFlow does not find the checkpoint.
  is_alone = first is not None and not tf.train.latest_checkpoint(model_dir)
  if first is None:
    logging.info('Waiting for a checkpoint in %s ...', model_dir)
  elif is_alone:
    yield first
  for prefix in tf.train.checkpoints_iterator(model_dir, timeout=timeout_seconds):
    if not is_alone or prefix != first:
      yield prefix


def evaluate_until(
  loop: specs.Loop,
  input_fn: specs.InputFn,
  max_steps: int,
  timeout_seconds: float = 3600.0,
  steps: Optional[int] = None,
) -> Iterator[dict[str, float]]:
  """Evaluates the checkpoints of a running training as they appear.

  Of the checkpoints that appear during an evaluation, only the newest is
  evaluated; one that training has deleted meanwhile is left out. Ends after the
  checkpoint of the global step `max_steps`, or when none appears for
  `timeout_seconds`.

  Yields:
    The metrics of each checkpoint; other arguments and errors are those of `evaluate`.

  Raises:
    ValueError: the folder or a checkpoint is damaged, see checkpoint_files.latest.
  """
  last_step = None
  for checkpoint in _checkpoints_of(loop.folder, timeout_seconds):
    try:
      metrics = evaluate(loop, input_fn, checkpoint, steps)
    except ValueError:
      if tf.train.checkpoint_exists(checkpoint):
        raise
      logging.warning(
        '%s was deleted before it was evaluated. Keep more by --keep_checkpoint_max.', checkpoint
      )
      continue
    yield metrics
    last_step = metrics['global_step']
    if last_step >= max_steps:
      return
  logging.warning(
    'No new checkpoint in %s for %d s: evaluation ends %s.',
    loop.folder,
    timeout_seconds,
    'without one' if last_step is None else f'at step {last_step}',
  )

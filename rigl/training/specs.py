"""Interfaces between scripts and loops: jobs and the graphs of model_fns."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Mapping, Optional, Protocol, Sequence

from rigl.compat import tf

# On a TPU, called with (number of this host, number of hosts).
InputFn = Callable[..., tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """The graph of a training step.

  Attributes:
    loss: scalar.
    train_op: one training step.
    make_scaffold: called once, when the graph of the step is complete.
    hooks: hooks of the session.
    chief_hooks: further hooks, only of the process that writes.
    host_call: (function that makes ops that write summaries, its arguments); on
      a TPU the host runs them.
    listeners: called around each checkpoint, in the process that writes.
    replica_means: results of `replicas.mean`, a collective operation: all replicas run
      them at each step.
  """

  loss: tf.Tensor
  train_op: tf.Operation
  make_scaffold: Callable[[], tf.train.Scaffold] = tf.train.Scaffold
  hooks: Sequence[tf.train.SessionRunHook] = ()
  chief_hooks: Sequence[tf.train.SessionRunHook] = ()
  host_call: Optional[tuple[Callable[..., Any], Mapping[str, tf.Tensor]]] = None
  listeners: Sequence[tf.train.CheckpointSaverListener] = ()
  replica_means: Sequence[tf.Tensor] = ()


@dataclasses.dataclass(frozen=True)
class EvalSpec:
  """The graph of an evaluation.

  Attributes:
    loss: scalar; its mean over the batches is reported as 'loss'.
    metric_fn: called with `tensors`; returns {name: tf.metrics pair}.
    tensors: arguments of `metric_fn`, each [batch, ...].
  """

  loss: tf.Tensor
  metric_fn: Callable[..., dict[str, Any]]
  tensors: Sequence[tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Job:
  """What to train and evaluate, and what to save.

  Attributes:
    model_fn: (features, labels, mode) -> TrainSpec of the mode 'train',
      EvalSpec of 'eval'.
    folder: folder of checkpoints and summaries.
    seed: seed of the graph.
    save_steps: steps between checkpoints; None for no checkpoints.
    keep_checkpoint_max: checkpoints to keep; 0 for all.
    save_summary_steps: on a TPU, steps between the losses for TensorBoard;
      elsewhere hooks write them.
    export_steps: steps between exports, each of which needs a checkpoint (a TPU
      saves only between two loops); 0 for no exports.
  """

  model_fn: Callable[..., Any]
  folder: str
  seed: int
  save_steps: Optional[int]
  keep_checkpoint_max: int
  save_summary_steps: int = 100
  export_steps: int = 0

  @property
  def saving_periods(self) -> tuple[int, ...]:
    """Checkpoints are saved at multiples of each of these; () for none."""
    return tuple(filter(None, (self.save_steps, self.export_steps)))


class Loop(Protocol):
  """Runs a job; used by `runner`."""

  folder: str

  def train(
    self,
    input_fn: InputFn,
    max_steps: Optional[int],
    hooks: Sequence[tf.train.SessionRunHook],
    listeners: Sequence[tf.train.CheckpointSaverListener],
  ) -> None:
    """Trains, from the latest checkpoint of the folder if there is one.

    Until the global step is `max_steps`, the data from the next batch on end, or
    a hook ends it. Listeners are called around each checkpoint.
    """

  def evaluate(self, input_fn: InputFn, checkpoint: str, steps: Optional[int]) -> dict[str, Any]:
    """{metric: value} of a checkpoint, with its step as 'global_step'.

    Also writes them for TensorBoard, to <folder of the job>/eval. The input
    gives every example once; `steps` is the number of batches, needed by a TPU.

    Raises:
      ValueError: the checkpoint lacks a variable or has it in another shape.
      tf.errors.OpError: the checkpoint or an example cannot be read.
    """

"""What a script tells a loop to run: a job, and the graphs of its model_fn."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Mapping, Optional, Protocol, Sequence

from rigl.compat import tf

# On a TPU called with (number of this host, number of hosts), else without.
InputFn = Callable[..., tf.data.Dataset]


@dataclasses.dataclass(frozen=True)
class TrainSpec:
  """The graph of a training step.

  Attributes:
    loss: scalar.
    train_op: one training step.
    make_scaffold: called once, when the graph of the step is complete.
    hooks: run with the training, on the host.
    chief_hooks: likewise, but only in the process that writes.
    host_call: (function that makes the ops that write summaries, its
      arguments), which a TPU has its host run.
    listeners: called around each checkpoint, in the process that writes.
    means: what `replicas.mean` returned. All replicas compute them at each
      step, since they wait for one another there.
  """

  loss: tf.Tensor
  train_op: tf.Operation
  make_scaffold: Callable[[], tf.train.Scaffold] = tf.train.Scaffold
  hooks: Sequence[tf.train.SessionRunHook] = ()
  chief_hooks: Sequence[tf.train.SessionRunHook] = ()
  host_call: Optional[tuple[Callable[..., Any], Mapping[str, tf.Tensor]]] = None
  listeners: Sequence[tf.train.CheckpointSaverListener] = ()
  means: Sequence[tf.Tensor] = ()


@dataclasses.dataclass(frozen=True)
class EvalSpec:
  """The graph of an evaluation.

  Attributes:
    loss: scalar; its mean over the batches is reported as 'loss'.
    metric_fn: called with `tensors`; returns {name: tf.metrics pair}.
    tensors: [batch, ...] each.
  """

  loss: tf.Tensor
  metric_fn: Callable[..., dict[str, Any]]
  tensors: Sequence[tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Job:
  """What to train and to evaluate, and what to keep of it.

  Attributes:
    model_fn: (features, labels, mode) -> TrainSpec of the mode 'train',
      EvalSpec of 'eval'.
    folder: folder of checkpoints and summaries.
    seed: seed of the graph.
    save_steps: steps between checkpoints; None for none at all.
    keep_checkpoint_max: checkpoints to keep; 0 for all.
    save_summary_steps: on a TPU, steps between the losses that TensorBoard
      shows; elsewhere a hook writes what it shows.
    export_steps: steps between exports, which are made of checkpoints: without
      a TPU, which saves between two loops only, there is one for each. 0 for
      no exports.
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
    """Checkpoints come at the multiples of each; none at all if empty."""
    return tuple(filter(None, (self.save_steps, self.export_steps)))


class Loop(Protocol):
  """Runs a job. `runner` is made on top of it."""

  folder: str

  def train(self, input_fn: InputFn, max_steps: Optional[int],
            hooks: Sequence[tf.train.SessionRunHook],
            listeners: Sequence[tf.train.CheckpointSaverListener]) -> None:
    """Trains from the latest checkpoint of the folder, or from nothing.

    Args:
      input_fn: gives the training batches, from the next one on.
      max_steps: the global step to stop at; None for the end of the data.
      hooks: further ones; each may end the training.
      listeners: called around each checkpoint.
    """

  def evaluate(self, input_fn: InputFn, checkpoint: str,
               steps: Optional[int]) -> dict[str, Any]:
    """{metric: value} of a checkpoint, with its step as 'global_step'.

    Also writes them for TensorBoard, to the folder `eval` in the job's.

    Args:
      input_fn: gives every example once.
      checkpoint: its prefix.
      steps: batches to evaluate, which a TPU must know; None for all.

    Raises:
      ValueError: the checkpoint lacks a variable or has it in another shape.
      tf.errors.OpError: the checkpoint or an example cannot be read.
    """

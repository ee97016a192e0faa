"""LeNet-300-100 on MNIST: data, training step, tests and what is kept."""

from __future__ import annotations

import dataclasses
import functools
import os
import shlex
import tempfile
from typing import Any, Mapping, Optional

import numpy as np
from absl import logging

from rigl import checkpoint_files, replicas
from rigl.compat import tf
from rigl.mnist import epoch_log, mnist_config, mnist_data, mnist_input
from rigl.mnist.mnist_config import MnistConfig, RunSettings
from rigl.mnist.mnist_model import mnist_network_fc
from rigl.model_pruning import pruning
from rigl.training import (
  checkpoints,
  distribution,
  factory,
  history,
  hooks,
  mask_init,
  runner,
  signals,
  specs,
  stop_at_nan,
)
from rigl.training.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class MnistExperiment(Experiment):
  """LeNet-300-100 on MNIST, trained for epochs and tested after each.

  Attributes:
    has_own_data: whether the user named the folder settings.mnist.
  """

  schema = mnist_config.SCHEMA
  lasting_fields = ('optimizer', 'input_mask_path', 'sparsity_scale')
  config: MnistConfig
  settings: RunSettings
  has_own_data: bool = False

  @classmethod
  def of(cls, given: Mapping[str, Any]) -> MnistExperiment:
    settings = cls.schema.settings(given)
    sparsity, config = cls.schema.hyperparameters(given)
    experiment = cls(sparsity, config, settings, settings.save_path, has_own_data='mnist' in given)
    experiment.check()
    return experiment

  def check(self) -> None:
    """Raises ValueError for what would only show once the graph is built."""
    settings = self.settings
    _ = self.custom_sparsity_map  # Only a check here.
    self.check_common(self.config.batch_size)
    if distribution.n_workers() > 1 and (settings.mask_record_frequency or not settings.save_path):
      raise ValueError(
        f'The workers of TF_CONFIG need a save_path, got {settings.save_path!r}, and '
        f'mask_record_frequency=0, got {settings.mask_record_frequency}.'
      )
    if settings.mask_record_frequency and not self.sparsity.method.uses_masks:
      logging.warning(
        'mask_record_frequency=%d has no effect: %s has no masks.',
        settings.mask_record_frequency,
        self.sparsity.training_method,
      )

  @property
  def custom_sparsity_map(self) -> dict[str, float]:
    """See Experiment; the second layer is less sparse, and the last one dense.

    Raises:
      ValueError: sparsity_scale leaves nothing of the second layer.
    """
    second = self.sparsity.end_sparsity * self.config.sparsity_scale
    if second >= 1.0:
      raise ValueError(
        f'sparsity_scale={self.config.sparsity_scale} makes the '
        f'sparsity of layer2 {second}, which is not in [0, 1).'
      )
    return {'layer2': second, 'layer3': 0.0}

  # --- Run ------------------------------------------------------------------

  def run(self) -> str:
    kept = mnist_config.input_pixels(self.config.input_mask_path, self.folder)
    data = mnist_data.load_mnist(self.settings.mnist, explicit=self.has_own_data)
    if self.folder:
      os.makedirs(self.folder, exist_ok=True)
      self.train(data, kept)
      return self.folder
    with tempfile.TemporaryDirectory() as folder:
      logging.warning('No --save_path: nothing of this run will be kept.')
      dataclasses.replace(self, folder=folder).train(data, kept)
    return ''

  def train(self, data: mnist_data.MnistData, kept: Optional[np.ndarray]) -> None:
    """Trains in the folder, continuing what it finds there.

    Args:
      data: the digits.
      kept: bool [784], the pixels that are inputs; None for all.

    Raises:
      ValueError: a batch is more than the training images.
      signals.StoppedError: a signal has stopped it.
    """
    batch_size, folder = self.config.batch_size, self.folder
    if batch_size > len(data.train_images):
      raise ValueError(
        f'batch_size {batch_size} is more than the {len(data.train_images)} training digits.'
      )
    self.check_resumable()
    mnist_config.keep_input_pixels(kept, folder)
    graph = Graph(
      self,
      self._schedule(data),
      mnist_input.flat_pixels(data.test_images, kept),
      data.test_labels,
      kept,
    )
    (logging.warning if data.is_sample else logging.info)('Data: %s.', data.source)
    first, n_iterations = graph.schedule.first_iteration, graph.schedule.n_iterations
    factory.warn_of_late_pruning(self.sparsity, n_iterations)
    if first and first >= n_iterations:
      n_epochs = first // graph.schedule.n_batches
      runner.end_at_once(folder, f'{n_epochs} epochs')
      return
    # One more batch than iterations: see hooks.LastIterationHook.
    input_fn = functools.partial(
      mnist_input.train_dataset,
      mnist_input.flat_pixels(data.train_images, kept),
      data.train_labels,
      batch_size,
      first,
      n_iterations and n_iterations + 1,
      self.sparsity.seed,
    )
    stopped_by = runner.train(
      self._make_loop(graph),
      input_fn,
      first_step=checkpoints.latest_step(folder),
      hooks=[hooks.WriteConfigHook(folder, *self.configs)],
    )
    graph.logs[0].save_records()
    if stopped_by:
      raise signals.StoppedError(stopped_by, self._text_of_stop(n_iterations))
    self._print_end(graph.logs[0])

  def _schedule(self, data: mnist_data.MnistData) -> epoch_log.Schedule:
    return epoch_log.Schedule(
      n_batches=len(data.train_images) // self.config.batch_size,
      n_epochs=self.config.num_epochs,
      first_iteration=self.first_iteration,
      record_frequency=self.settings.mask_record_frequency,
    )

  def _make_loop(self, graph: Graph) -> specs.Loop:
    save_steps = self.settings.checkpoint_epochs * graph.schedule.n_batches
    return runner.make_loop(
      specs.Job(
        graph.model_fn,
        self.folder,
        seed=self.sparsity.seed,
        save_steps=save_steps if self.settings.saves else None,
        keep_checkpoint_max=2,
      ),
      self.settings.loop,
      self.settings.num_replicas,
    )

  # --- Reports --------------------------------------------------------------

  def _text_of_stop(self, n_iterations: int) -> str:
    """What is kept of a training that a signal has stopped."""
    folder = self.settings.save_path
    if not folder:
      return 'Stopped; nothing is kept, as there is no --save_path.'
    if not self.settings.save_model:
      return 'Stopped; no checkpoint is kept, as of --nosave_model.'
    return (
      f'Stopped at iteration {self.first_iteration} of {n_iterations}, '
      f'saved in {folder}. The same command goes on.'
    )

  def _text_of_checkpoint(self) -> str:
    """The last checkpoint, and why its number is not that of the iterations."""
    name = os.path.basename(checkpoint_files.latest(self.folder) or '')
    done = self.first_iteration
    n_updates = done - checkpoints.latest_step(self.folder)
    if not n_updates:
      return name
    return f'{name} (the other {n_updates:,} of {done:,} iterations set masks)'

  def _print_end(self, log: epoch_log.EpochLog) -> None:
    """Prints the test errors, the files that are kept, and commands for them."""
    best = log.best
    if log.last_accuracy is None or not best:
      return
    print(
      f'Test error: final {1.0 - log.last_accuracy:.2%}, '
      f'best {1.0 - best["accuracy"]:.2%} (epoch {best["epoch"]})'
    )
    folder = self.settings.save_path
    if not folder:
      return
    kept = [history.METRICS_FILE]
    quoted = shlex.quote(folder)
    commands = [f'tensorboard --logdir={quoted}']
    if self.settings.mask_record_frequency:
      commands.append(
        f'python -m rigl.mnist.visualize_mask_records --records_path={quoted} --output=masks.png'
      )
    if self.settings.saves:
      kept.insert(0, self._text_of_checkpoint())
      commands.append(f'python -m rigl.inference export {quoted} --output=model.tflite')
    print(
      f'Kept in {folder}: {" and ".join(kept)}. Next:',
      *(f'  {command}' for command in commands),
      sep='\n',
      flush=True,
    )


@dataclasses.dataclass(frozen=True)
class Graph:
  """The graph of an experiment: training step, test network and their log.

  Attributes:
    experiment: the experiment.
    schedule: when to test and to log.
    test_images: uint8 [test digits, pixels].
    test_labels: uint8 [test digits].
    kept_pixels: bool [784], those that the network sees; None for all.
    logs: the log of each replica that `model_fn` was called for; the first one
      is in use.
  """

  experiment: MnistExperiment
  schedule: epoch_log.Schedule
  test_images: np.ndarray
  test_labels: np.ndarray
  kept_pixels: Optional[np.ndarray] = None
  logs: list[epoch_log.EpochLog] = dataclasses.field(default_factory=list)

  def model_fn(self, features: tf.Tensor, labels: tf.Tensor, mode: str) -> specs.TrainSpec:
    """The graph of training.

    Args:
      features: float32 [batch, pixels] in [0, 1].
      labels: integer [batch].
      mode: 'train'; tests run inside training, see epoch_log.
    """
    del mode
    experiment, schedule = self.experiment, self.schedule
    sparsity, config = experiment.sparsity, experiment.config
    cross_entropy, accuracy = mnist_network_fc(
      (features, labels), model_pruning=sparsity.method.uses_masks, l2_scale=config.l2_scale
    )
    loss = cross_entropy + tf.losses.get_regularization_loss()
    global_step = tf.train.get_or_create_global_step()
    learning_rate = tf.convert_to_tensor(
      config.learning_rate_at(global_step, not sparsity.method.uses_masks, schedule.n_batches),
      tf.float32,
    )
    optimizer = factory.make_optimizer(
      sparsity,
      factory.make_inner_optimizer(
        config.optimizer, learning_rate, config.momentum, config.use_nesterov
      ),
      custom_sparsity_map=experiment.custom_sparsity_map,
    )
    drop_fraction = factory.annealed_drop_fraction(sparsity, global_step.read_value())
    # The folder of the settings is '' if nothing is kept.
    not_finite = stop_at_nan.NotFiniteHook(experiment.settings.save_path)
    train_op = factory.make_train_op(
      optimizer,
      loss,
      global_step,
      not_finite=not_finite,
      first_iteration=schedule.first_iteration,
      reported=[learning_rate, drop_fraction],
    )
    means = replicas.mean(loss), replicas.mean(accuracy)
    log = self._make_log(
      {
        'loss': means[0],
        'accuracy': means[1],
        'learning_rate': learning_rate,
        'drop_fraction': drop_fraction,
      }
    )
    self.logs.append(log)
    return specs.TrainSpec(
      loss,
      train_op,
      lambda: mask_init.make_scaffold(sparsity, experiment.custom_sparsity_map),
      hooks=[not_finite, hooks.LastIterationHook(schedule.first_iteration, schedule.n_iterations)],
      chief_hooks=[log],
      listeners=[hooks.SaveState(log.save)],
      replica_means=means,
    )

  def _make_log(self, train: Mapping[str, Optional[tf.Tensor]]) -> epoch_log.EpochLog:
    """Builds the test network on the trained variables, and the log of it and of `train`."""
    experiment = self.experiment
    images = tf.placeholder(tf.uint8, [None, self.test_images.shape[1]], 'test_images')
    labels = tf.placeholder(tf.uint8, [None], 'test_labels')
    loss, accuracy = mnist_network_fc(
      (mnist_input.scale_pixels(images), labels),
      reuse=True,
      model_pruning=experiment.sparsity.method.uses_masks,
      l2_scale=0.0,
    )
    path = os.path.join(
      experiment.folder, mnist_config.run_name(experiment.sparsity, experiment.config)
    )
    return epoch_log.EpochLog(
      train,
      {'loss': loss, 'accuracy': accuracy},
      {images: self.test_images, labels: self.test_labels},
      pruning.get_masks(),
      self.schedule,
      experiment.folder,
      f'{path}.txt',
      f'{path}_masks.npz',
      self.kept_pixels,
    )

"""Graph of the MNIST script: digits to logits, loss, training and its log."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Callable, Optional

import numpy as np

from rigl import replicas
from rigl.compat import tf
from rigl.mnist import epoch_log, mnist_config, mnist_input
from rigl.mnist.mnist_model import mnist_network_fc
from rigl.model_pruning import pruning
from rigl.training import factory, finite, hooks, mask_init, specs
from rigl.training.config import SparsityConfig


@dataclasses.dataclass(frozen=True)
class Training:
  """The arguments of `model_fn` besides its batch.

  Attributes:
    sparsity: hyperparameters of the method.
    config: hyperparameters of network and optimizer.
    schedule: when to test and to log.
    test_images: uint8 [test digits, pixels].
    test_labels: uint8 [test digits].
    folder: folder of checkpoints, logs and summaries.
    name: name of its logs, see `mnist_config.run_name`.
    kept_pixels: bool [784], the input pixels of the network; None for all.
    keeps_folder: whether `folder` outlives the training.
  """

  sparsity: SparsityConfig
  config: mnist_config.MnistConfig
  schedule: epoch_log.Schedule
  test_images: np.ndarray
  test_labels: np.ndarray
  folder: str
  name: str
  kept_pixels: Optional[np.ndarray] = None
  keeps_folder: bool = True


def _make_log(training: Training, loss: tf.Tensor, accuracy: tf.Tensor,
              learning_rate: tf.Tensor, drop_fraction: Optional[tf.Tensor]
             ) -> epoch_log.EpochLog:
  """Builds the test network, which shares the variables, and the log."""
  images = tf.placeholder(
      tf.uint8, [None, training.test_images.shape[1]], 'test_images')
  labels = tf.placeholder(tf.uint8, [None], 'test_labels')
  test_loss, test_accuracy = mnist_network_fc(
      (mnist_input.scale_pixels(images), labels), reuse=True,
      model_pruning=training.sparsity.method.uses_masks, l2_scale=0.)
  fetches = epoch_log.Fetches(
      loss=loss, accuracy=accuracy,
      learning_rate=learning_rate, drop_fraction=drop_fraction,
      test_loss=test_loss, test_accuracy=test_accuracy,
      test_feed={images: training.test_images, labels: training.test_labels},
      masks=pruning.get_masks())
  path = os.path.join(training.folder, training.name)
  return epoch_log.EpochLog(
      fetches, training.schedule, training.folder, f'{path}.txt',
      f'{path}_masks.npz', training.kept_pixels)


def make_model_fn(training: Training,
                  logs: list[epoch_log.EpochLog]) -> Callable[..., Any]:
  """The model_fn of one training.

  Args:
    training: describes the graph.
    logs: the log of each replica is appended; only that of the first, which
      comes first, is used.
  """

  def model_fn(features, labels, mode):
    del mode  # Tests run inside training, see epoch_log.
    sparsity, config = training.sparsity, training.config
    cross_entropy, accuracy = mnist_network_fc(
        (features, labels), model_pruning=sparsity.method.uses_masks,
        l2_scale=config.l2_scale)
    loss = cross_entropy + tf.losses.get_regularization_loss()
    global_step = tf.train.get_or_create_global_step()
    learning_rate = tf.convert_to_tensor(config.learning_rate_at(
        global_step, not sparsity.method.uses_masks,
        training.schedule.n_batches), tf.float32)
    custom_map = mnist_config.custom_sparsity_map(sparsity, config)
    optimizer = factory.make_optimizer(
        sparsity, factory.make_inner_optimizer(
            config.optimizer, learning_rate, config.momentum,
            config.use_nesterov), custom_sparsity_map=custom_map)
    drop_fraction = factory.annealed_drop_fraction(
        sparsity, global_step.read_value())
    not_finite = finite.NotFiniteHook(
        training.folder if training.keeps_folder else '')
    train_op = factory.make_train_op(
        optimizer, loss, global_step, not_finite=not_finite,
        first_iteration=training.schedule.first_iteration,
        reported=[learning_rate, drop_fraction])
    means = replicas.mean(loss), replicas.mean(accuracy)
    log = _make_log(training, *means, learning_rate, drop_fraction)
    logs.append(log)
    return specs.TrainSpec(
        loss, train_op,
        lambda: mask_init.make_scaffold(sparsity, custom_map),
        hooks=[not_finite, hooks.LastIterationHook(
            training.schedule.first_iteration,
            training.schedule.n_iterations)],
        chief_hooks=[log], listeners=[hooks.SaveState(log.save)], means=means)

  return model_fn

"""Network, loss, metrics and exports of the ImageNet script."""

from __future__ import annotations

import functools
from typing import Any, Collection, Mapping, Optional

from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config, preprocessing
from rigl.model_pruning import pruning
from rigl.training import export, top_k

# Of the pixels of ImageNet, 0 to 255, red, green and blue.
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STDDEV_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)


def normalize(images: tf.Tensor, config: imagenet_config.ImageNetConfig) -> tf.Tensor:
  """Pixels as the networks take them.

  Args:
    images: [batch, height, width, 3] of values 0 to 255.
    config: data format and precision.

  Returns:
    float32 or bfloat16 of mean 0 and variance 1, of the same shape, or
    [batch, 3, height, width].
  """
  images = (tf.cast(images, tf.float32) - tf.constant(MEAN_RGB)) / tf.constant(STDDEV_RGB)
  if config.data_format == 'channels_first':
    images = tf.transpose(images, [0, 3, 1, 2])
  return tf.cast(images, tf.as_dtype(config.precision))


def build_logits(
  images: tf.Tensor,
  config: imagenet_config.ImageNetConfig,
  is_training: bool = False,
  init_sparsity: Optional[Mapping[str, float]] = None,
  masked_layers: Optional[Collection[str]] = None,
) -> tf.Tensor:
  """The network of `imagenet_config.make_network` -> float32 [batch, classes].

  Images are [batch, height, width, 3], with pixels of 0 to 255.
  """
  network = imagenet_config.make_network(config, init_sparsity, masked_layers)
  return tf.cast(network(normalize(images, config), is_training), tf.float32)


def mask_sizes(
  config: imagenet_config.ImageNetConfig, masked_layers: Optional[Collection[str]] = None
) -> dict[str, int]:
  """{layer: number of its weights} of all with a mask, in the order of `make_network`."""
  with tf.Graph().as_default():
    build_logits(tf.zeros([1, 64, 64, 3]), config, masked_layers=masked_layers)
    return {layer.name: layer.mask.shape.num_elements() for layer in pruning.masked_layers()}


def export_checkpoint(config: imagenet_config.ImageNetConfig, checkpoint: str, folder: str) -> str:
  """Writes `<folder>/<step>`, a SavedModel for images and JPEGs; returns its folder."""
  return export.export_saved_model(
    functools.partial(build_logits, config=config, is_training=config.use_batch_statistics),
    checkpoint,
    folder,
    image_shape=[config.image_size, config.image_size, 3],
    decode=functools.partial(preprocessing.preprocess_eval, image_size=config.image_size),
  )


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float) -> tf.Tensor:
  """Loss of each example, float32 [batch].

  Args:
    labels: int32 [batch].
    logits: float32 [batch, classes].
    label_smoothing: share of the target spread over all classes
      (arXiv 1512.00567).
  """
  n_classes = logits.shape.as_list()[1]
  one_hot = tf.one_hot(labels, n_classes)
  targets = (1.0 - label_smoothing) * one_hot + label_smoothing / n_classes
  return tf.nn.softmax_cross_entropy_with_logits_v2(targets, logits)


def metric_fn(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float) -> dict[str, Any]:
  """Metrics over all evaluated images; arguments as of `mean_loss`."""
  weights = tf.cast(labels >= 0, tf.float32)
  values = {
    'top_1_accuracy': top_k.in_top_k(labels, logits, 1),
    'top_5_accuracy': top_k.in_top_k(labels, logits, 5),
    'cross_loss': cross_entropy(labels, logits, label_smoothing),
  }
  return {name: tf.metrics.mean(value, weights) for name, value in values.items()}


def mean_loss(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float) -> tf.Tensor:
  """Mean of `cross_entropy` over the images that are not padding, which has the label -1."""
  weights = tf.cast(labels >= 0, tf.float32)
  total = tf.reduce_sum(weights * cross_entropy(labels, logits, label_smoothing))
  return total / tf.maximum(tf.reduce_sum(weights), 1.0)

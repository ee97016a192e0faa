"""Wide residual networks (https://arxiv.org/abs/1605.07146) with masks."""

from __future__ import annotations

from typing import Any, Callable, Collection, ContextManager, Optional

from rigl import networks, tf_random
from rigl.compat import tf
from rigl.core import checks, seeding
from rigl.model_pruning import data_formats, dense_layers, sparse_layers

# Default variable scope.
SCOPE = 'resnet_model'


def check_depth(depth: int) -> None:
  """Raises ValueError unless the depth of a WideResNet is 6n + 4."""
  if depth < 10 or (depth - 4) % 6:
    raise ValueError(
      f'resnet_depth of a WideResNet must be 6n + 4 (10, 16, 22, 28, ...), got {depth}.'
    )


def masked_as(masked_layers: Collection[str]) -> dict[str, Any]:
  """Arguments of WideResNetModel for a checkpoint with these masked layers."""
  return {
    'pruning_method': 'threshold' if masked_layers else 'baseline',
    'prune_first_layer': f'{SCOPE}/conv_1' in masked_layers,
    'prune_last_layer': f'{SCOPE}/logits' in masked_layers,
  }


class WideResNetModel:
  """Builds a WideResNet-depth-width of the layers that `networks.wide_resnet` asks for."""

  def __init__(
    self,
    is_training: bool,
    regularizer: Optional[Callable[[tf.Tensor], tf.Tensor]] = None,
    data_format: str = 'channels_last',
    pruning_method: str = 'baseline',
    droprate: float = 0.3,
    prune_first_layer: bool = True,
    prune_last_layer: bool = True,
  ):
    """Sets the options of all layers.

    Args:
      is_training: whether to use batch statistics and dropout, else the moving
        averages.
      regularizer: regularizer of every kernel.
      data_format: 'channels_last' or 'channels_first' (GPU and TPU only).
      pruning_method: 'baseline' (no masks) or 'threshold' (with masks).
      droprate: dropout rate of the activations between the convolutions of a
        block.
      prune_first_layer: whether the first convolution has a mask too.
      prune_last_layer: whether the last layer has a mask too.

    Raises:
      ValueError: an argument is not one of its options.
    """
    checks.one_of('pruning_method', pruning_method, sparse_layers.SPARSITY_TECHNIQUES)
    data_formats.check(data_format)
    checks.below_one('droprate', droprate)
    self._is_training = is_training
    self._regularizer = regularizer
    self._data_format = data_format
    self._pruning_method = pruning_method
    self._droprate = droprate
    self._prune_first_layer = prune_first_layer
    self._prune_last_layer = prune_last_layer

  def conv(
    self, x: tf.Tensor, filters: int, size: int, strides: int, name: str, is_first: bool = False
  ) -> tf.Tensor:
    """Convolution without biases, with padding 'SAME'."""
    return sparse_layers.sparse_conv2d(
      x,
      filters,
      size,
      strides=strides,
      padding='SAME',
      data_format=self._data_format,
      kernel_regularizer=self._regularizer,
      sparsity_technique=self._technique(self._prune_first_layer or not is_first),
      name=name,
    )

  def _technique(self, is_pruned: bool) -> str:
    return self._pruning_method if is_pruned else 'baseline'

  def norm(self, x: tf.Tensor) -> tf.Tensor:
    """Batch normalization."""
    return dense_layers.batch_norm(x, self._is_training, self._data_format, fused=False)

  def relu(self, x: tf.Tensor) -> tf.Tensor:
    """max(x, 0)."""
    return tf.nn.relu(x)

  def dropout(self, x: tf.Tensor, name: str) -> tf.Tensor:
    """Drops a fraction `droprate` of the activations while training.

    The layer, the graph's seed and the global step determine the dropped
    activations, so resuming does not change them. In a graph without a global
    step they differ at each run.
    """
    if not self._is_training or not self._droprate:
      return x
    user_seed = tf.get_default_graph().seed or 0
    scope = f'{tf.get_variable_scope().name}/{name}'
    seed = seeding.stable_seed(scope, 'dropout', user_seed)
    step = tf.train.get_global_step()
    if step is None:
      return tf.nn.dropout(x, rate=self._droprate, seed=seed)
    noise = tf_random.uniform(tf.shape(x), tf.stack([seed, tf.cast(step, tf.int32)]))
    kept = noise >= self._droprate
    return tf.where(kept, x / (1.0 - self._droprate), tf.zeros_like(x))

  def add(self, x: tf.Tensor, shortcut: tf.Tensor, name: str) -> tf.Tensor:
    """x + shortcut; the name is for the counter alone."""
    del name
    return x + shortcut

  def classifier(self, x: tf.Tensor, num_classes: int, name: str) -> tf.Tensor:
    """The last layer, on images averaged -> logits [batch, num_classes]."""
    return sparse_layers.sparse_fully_connected(
      dense_layers.global_average_pool(x, self._data_format),
      num_classes,
      kernel_regularizer=self._regularizer,
      sparsity_technique=self._technique(self._prune_last_layer),
      name=name,
    )

  def name_scope(self, name: str) -> ContextManager[Any]:
    """A scope of operations alone."""
    return tf.name_scope(name)

  def build(
    self, inputs: tf.Tensor, depth: int, width: int, num_classes: int, name: Optional[str] = None
  ) -> tf.Tensor:
    """Builds the network.

    Args:
      inputs: [batch, height, width, channels], or channels first.
      depth: number of convolutions on the longest path, 6n + 4: 10, 16, 22...
      width: the groups have 16, 32 and 64 times `width` channels.
      num_classes: number of logits.
      name: variable scope, `resnet_model` when None.

    Returns:
      logits [batch, num_classes].

    Raises:
      ValueError: the depth is not 6n + 4, or the width is not positive.
    """
    check_depth(depth)
    checks.positive('width', width)
    with tf.variable_scope(name or SCOPE):
      return networks.wide_resnet(self, inputs, depth, width, num_classes)

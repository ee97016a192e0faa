"""Wide residual networks (https://arxiv.org/abs/1605.07146) with masks."""

from __future__ import annotations

from typing import Any, Callable, Collection, Optional

from rigl import tf_random
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
  """Builds a WideResNet-depth-width, with pre-activation blocks."""

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

  def _technique(self, is_pruned: bool = True) -> str:
    return self._pruning_method if is_pruned else 'baseline'

  def _conv(
    self,
    x: tf.Tensor,
    filters: int,
    kernel_size: int,
    strides: int,
    name: str,
    is_pruned: bool = True,
  ) -> tf.Tensor:
    return sparse_layers.sparse_conv2d(
      x,
      filters,
      kernel_size,
      strides=strides,
      padding='SAME',
      data_format=self._data_format,
      kernel_regularizer=self._regularizer,
      sparsity_technique=self._technique(is_pruned),
      name=name,
    )

  def _batch_norm_relu(self, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(dense_layers.batch_norm(x, self._is_training, self._data_format, fused=False))

  def _dropout(self, x: tf.Tensor, name: str) -> tf.Tensor:
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

  def _block(self, x: tf.Tensor, filters: int, strides: int, group: int, index: int) -> tf.Tensor:
    """shortcut(x) + convolutions(relu(batch_norm(x))).

    The shortcut is the identity of x or, where the number of channels changes,
    a 1x1 convolution of the normalized x.
    """
    n_in = x.shape.as_list()[data_formats.channel_axis(self._data_format)]
    name = f'conv_{group}_{index}'
    with tf.name_scope(f'res_{index}'):
      shortcut = x
      x = self._batch_norm_relu(x)
      if n_in != filters:
        shortcut = self._conv(x, filters, 1, strides, f'skip_conv_{group}')
      x = self._conv(x, filters, 3, strides, f'{name}_1')
      x = self._batch_norm_relu(x)
      x = self._dropout(x, name)
      x = self._conv(x, filters, 3, 1, f'{name}_2')
      return x + shortcut

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
      x = self._conv(inputs, 16, 3, 1, 'conv_1', self._prune_first_layer)
      for group, strides in ((2, 1), (3, 2), (4, 2)):
        filters = int(16 * width * 2 ** (group - 2))
        with tf.name_scope(f'conv_{group}'):
          for i in range((depth - 4) // 6):
            x = self._block(x, filters, strides if i == 0 else 1, group, i)
      x = self._batch_norm_relu(x)
      features = dense_layers.global_average_pool(x, self._data_format)
      return sparse_layers.sparse_fully_connected(
        features,
        num_classes,
        kernel_regularizer=self._regularizer,
        sparsity_technique=self._technique(self._prune_last_layer),
        name='logits',
      )

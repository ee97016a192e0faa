"""ResNet-18 to ResNet-200 (https://arxiv.org/abs/1512.03385) with masks.

The variant trained on ImageNet: the stride of a bottleneck block is in its 3x3
convolution, and the batch normalization that ends a block starts at gamma = 0.
Every group starts with a projection shortcut, even the first of ResNet-18 and
ResNet-34, where the number of channels does not change.
"""

from __future__ import annotations

from typing import Mapping, Optional, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import blocks, initializers


def _block(
  x: tf.Tensor,
  is_training: bool,
  kind: str,
  filters: int,
  spec: blocks.LayerSpec,
  group: int,
  index: int,
) -> tf.Tensor:
  """relu(shortcut(x) + convolutions(x)) of a block; groups count from 1, their blocks from 0.

  A 'residual' block has `filters` channels, a 'bottleneck' block four times as many. The first
  block of a group has a convolution as its shortcut, and a stride, except in the first group.
  """
  strides = 2 if group > 1 and index == 0 else 1
  suffix = f'block_group{group}'
  suffix = f'{suffix}_{index}_1' if index else f'block_group_projection_{suffix}'
  # (kernel size, filters, strides)
  convolutions = [(1, filters, 1), (3, filters, strides), (1, 4 * filters, 1)]
  if kind == 'residual':
    convolutions = [(3, filters, strides), (3, filters, 1)]
  shortcut = x
  if index == 0:
    n_out = convolutions[-1][1]
    shortcut = blocks.conv2d(x, n_out, 1, strides, spec, f'{kind}_projection_{suffix}')
    shortcut = blocks.batch_norm(shortcut, is_training, spec)
  for i, (kernel_size, n_out, stride) in enumerate(convolutions, start=1):
    x = blocks.conv2d(x, n_out, kernel_size, stride, spec, f'{kind}_{i}_{suffix}')
    if i < len(convolutions):
      x = blocks.batch_norm_relu(x, is_training, spec)
  # At gamma = 0 the block starts as its shortcut (arXiv 1706.02677).
  x = blocks.batch_norm(x, is_training, spec, init_zero=True)
  return tf.nn.relu(x + shortcut)


def resnet_v1_(
  resnet_depth: int,
  num_classes: int,
  pruning_method: str = 'baseline',
  init_method: str = 'baseline',
  width: float = 1.0,
  prune_first_layer: bool = True,
  prune_last_layer: bool = True,
  data_format: str = 'channels_first',
  end_sparsity: Union[float, Mapping[str, float]] = 0.0,
  weight_decay: float = 0.0,
  name: Optional[str] = None,
) -> blocks.ModelFn:
  """Makes the function that builds a ResNet.

  Args:
    resnet_depth: 18, 34, 50, 101, 152 or 200.
    num_classes: number of logits.
    pruning_method: 'baseline' (no masks) or 'threshold' (with masks).
    init_method: 'baseline', 'sparse' or 'random_zeros'; see `initializers`.
    width: multiplies the number of channels.
    prune_first_layer: whether the first convolution has a mask too.
    prune_last_layer: whether the last layer has a mask too.
    data_format: 'channels_last' or 'channels_first' (GPU and TPU only).
    end_sparsity: what `init_method` assumes; see `blocks.LayerSpec`.
    weight_decay: L2 coefficient of the kernels.
    name: variable scope, `resnet_model` when None.

  Returns:
    fn(inputs, is_training) -> logits [batch, num_classes], where inputs is
    [batch, height, width, channels], or channels first, of any size.

  Raises:
    ValueError: an argument is not one of its options.
  """
  checks.one_of('resnet_depth', resnet_depth, network_tables.RESNETS)
  kind, group_sizes = network_tables.RESNETS[resnet_depth]
  filters = [blocks.scaled(64 * 2**i, width) for i in range(len(group_sizes))]
  spec = blocks.LayerSpec(pruning_method, init_method, data_format, end_sparsity, weight_decay)

  def model(inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
    with tf.variable_scope(name or 'resnet_model'):
      x = blocks.conv2d(
        inputs, filters[0], 7, 2, spec.unless_pruned(prune_first_layer), 'initial_conv'
      )
      x = blocks.batch_norm_relu(x, is_training, spec)
      x = blocks.max_pool(x, 3, 2, 'SAME', spec)
      for group, (n, n_blocks) in enumerate(zip(filters, group_sizes), start=1):
        with tf.name_scope(f'block_group{group}'):
          x = _block(x, is_training, kind, n, spec, group, 0)
          for i in range(1, n_blocks):
            with tf.name_scope(f'block_group_{i}'):
              x = _block(x, is_training, kind, n, spec, group, i)
      return blocks.classifier(
        x, num_classes, spec.unless_pruned(prune_last_layer), initializers.normal(0.01)
      )

  return model

"""Building blocks of the ImageNet networks.

Every builder makes one `LayerSpec` from its arguments and passes it to all its
layers; only the first and the last layer may get another one. Images are
[batch, height, width, channels], or [batch, channels, height, width] when the
spec's data_format is 'channels_first' (which TensorFlow runs on GPU and TPU
only).
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Mapping, Optional, Sequence, Union

from rigl import network_tables
from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import initializers
from rigl.model_pruning import data_formats, dense_layers, sparse_layers
from rigl.model_pruning import initializers as seeded_initializers

# Names of kernel and biases in published checkpoints with Keras names.
KERAS_NAMES = ('kernel', 'bias')

# Builds a network: (images, is_training) -> logits [batch, classes].
ModelFn = Callable[['tf.Tensor', bool], 'tf.Tensor']


@dataclasses.dataclass(frozen=True)
class LayerSpec:
  """The common options of the layers of a network.

  Attributes:
    pruning_method: 'baseline' (no masks) or 'threshold' (with masks).
    init_method: one of `initializers.INIT_METHODS`.
    data_format: 'channels_last' or 'channels_first'.
    end_sparsity: sparsity in [0, 1) that `init_method` assumes: one for all
      layers, or {layer scope: sparsity}, e.g. {'resnet_model/initial_conv':
      0.5, ...}.
    weight_decay: the loss gets weight_decay * sum(w^2) / 2 for each kernel.
  """

  pruning_method: str = 'baseline'
  init_method: str = 'baseline'
  data_format: str = 'channels_last'
  end_sparsity: Union[float, Mapping[str, float]] = 0.0
  weight_decay: float = 0.0

  def __post_init__(self):
    checks.one_of('pruning_method', self.pruning_method, sparse_layers.SPARSITY_TECHNIQUES)
    checks.one_of('init_method', self.init_method, initializers.INIT_METHODS)
    data_formats.check(self.data_format)
    sparsities = (
      self.end_sparsity
      if isinstance(self.end_sparsity, Mapping)
      else {'every layer': self.end_sparsity}
    )
    for layer, sparsity in sparsities.items():
      checks.below_one(f'end_sparsity of {layer}', sparsity)
    checks.not_negative('weight_decay', self.weight_decay)

  def unless_pruned(self, is_pruned: bool) -> LayerSpec:
    """The spec of a first or last layer; dense unless `is_pruned`."""
    if is_pruned:
      return self
    return dataclasses.replace(self, pruning_method='baseline', end_sparsity=0.0)

  @property
  def is_masked(self) -> bool:
    """Whether the layer carries a mask."""
    return self.pruning_method == 'threshold'

  @property
  def regularizer(self) -> Optional[dense_layers.TensorFn]:
    """The regularizer of kernels; None without weight decay."""
    return dense_layers.l2_regularizer(self.weight_decay)

  def kernel_initializer(
    self, name: str, family: initializers.InitializerFamily
  ) -> initializers.Initializer:
    """The initializer of layer `name` of the current variable scope.

    Raises:
      ValueError: end_sparsity is a map without this layer.
    """
    sparsity = self.end_sparsity
    if isinstance(sparsity, Mapping):
      parent = tf.get_variable_scope().name
      scope = f'{parent}/{name}' if parent else name
      if scope not in sparsity:
        raise ValueError(f'end_sparsity has no layer {scope!r}, only {sorted(sparsity)}.')
      sparsity = sparsity[scope]
    return initializers.kernel_initializer(self.init_method, family, sparsity, self.is_masked)


def conv2d(
  x: tf.Tensor,
  filters: int,
  kernel_size: int,
  strides: int,
  spec: LayerSpec,
  name: str,
  init_scale: float = 1.0,
  dense_names: Optional[tuple[str, str]] = None,
) -> tf.Tensor:
  """Convolution without biases, with fixed padding where it is strided.

  Args:
    x: [batch, height, width, n_in], or channels first.
    filters: n_out.
    kernel_size: k.
    strides: s.
    spec: of this layer.
    name: its mask is `<name>/mask`.
    init_scale: the initial weights have variance init_scale / fan_in.
    dense_names: see `sparse_layers.sparse_conv2d`.

  Returns:
    [batch, ceil(height / s), ceil(width / s), filters], or channels first.
  """
  x, padding = dense_layers.fixed_padding(x, kernel_size, strides, spec.data_format)
  family = initializers.fan_in_normal(init_scale)
  return sparse_layers.sparse_conv2d(
    x,
    filters,
    kernel_size,
    strides=strides,
    padding=padding,
    data_format=spec.data_format,
    sparsity_technique=spec.pruning_method,
    kernel_initializer=spec.kernel_initializer(name, family),
    kernel_regularizer=spec.regularizer,
    name=name,
    dense_names=dense_names,
  )


def depthwise_conv2d(
  x: tf.Tensor, kernel_size: int, strides: int, spec: LayerSpec, name: str
) -> tf.Tensor:
  """Depthwise convolution (arXiv 1704.04861): one filter for each channel.

  Neither masked nor regularized, since it has few weights. Padded as `conv2d`.
  """
  x, padding = dense_layers.fixed_padding(x, kernel_size, strides, spec.data_format)
  axis = data_formats.channel_axis(spec.data_format)
  steps = [1, strides, strides]
  steps.insert(axis, 1)
  with tf.variable_scope(name):
    kernel = dense_layers.get_parameter(
      'depthwise_weights',
      [kernel_size, kernel_size, x.shape[axis], 1],
      x.dtype,
      seeded_initializers.glorot_uniform(),
    )
    return tf.nn.depthwise_conv2d(
      x,
      kernel,
      strides=steps,
      padding=padding,
      data_format=data_formats.DATA_FORMATS[spec.data_format],
    )


def batch_norm(
  x: tf.Tensor, is_training: bool, spec: LayerSpec, init_zero: bool = False
) -> tf.Tensor:
  """Batch normalization; see `dense_layers.batch_norm`."""
  return dense_layers.batch_norm(x, is_training, spec.data_format, init_zero)


def batch_norm_relu(x: tf.Tensor, is_training: bool, spec: LayerSpec) -> tf.Tensor:
  """Batch normalization, then a ReLU."""
  return tf.nn.relu(batch_norm(x, is_training, spec))


def max_pool(
  x: tf.Tensor, pool_size: int, strides: int, padding: str, spec: LayerSpec
) -> tf.Tensor:
  """Maximum over square windows of a batch of images."""
  return tf.nn.max_pool2d(
    x, pool_size, strides, padding, data_format=data_formats.DATA_FORMATS[spec.data_format]
  )


def classifier(
  x: tf.Tensor,
  num_classes: int,
  spec: LayerSpec,
  family: initializers.InitializerFamily,
  dense_names: Optional[tuple[str, str]] = None,
) -> tf.Tensor:
  """The last layer `final_dense`, on images averaged -> logits [batch, num_classes]."""
  return sparse_layers.sparse_fully_connected(
    dense_layers.global_average_pool(x, spec.data_format),
    num_classes,
    sparsity_technique=spec.pruning_method,
    kernel_initializer=spec.kernel_initializer('final_dense', family),
    kernel_regularizer=spec.regularizer,
    name='final_dense',
    dense_names=dense_names,
  )


def mobilenet(
  table: Sequence[tuple[int, int]],
  block: Callable[..., tf.Tensor],
  spec: LayerSpec,
  num_classes: int,
  width: float,
  prune_first_layer: bool,
  prune_last_layer: bool,
  name: Optional[str],
  n_features: Optional[int] = None,
) -> ModelFn:
  """Makes the function that builds a MobileNet of a table in `network_tables`.

  A block is (x, is_training, filters, strides, spec, its number) -> x. Behind the blocks is a 1x1
  convolution to `n_features`, if given. Other arguments are those of `resnet_model.resnet_v1_`.
  """
  initial_filters, filters_and_strides = network_tables.mobilenet_filters(table, width)

  def model(inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
    with tf.variable_scope(name or 'resnet_model'):
      first_spec = spec.unless_pruned(prune_first_layer)
      x = conv2d(inputs, initial_filters, 3, 2, first_spec, 'initial_conv', dense_names=KERAS_NAMES)
      x = batch_norm_relu(x, is_training, spec)
      for i, (filters, strides) in enumerate(filters_and_strides):
        x = block(x, is_training, filters, strides, spec, i)
      if n_features is not None:
        x = conv2d(x, n_features, 1, 1, spec, 'final_1x1_conv')
        x = batch_norm_relu(x, is_training, spec)
      last_spec = spec.unless_pruned(prune_last_layer)
      return classifier(x, num_classes, last_spec, initializers.fan_in_normal(), KERAS_NAMES)

  return model


def scaled(filters: int, width: float) -> int:
  """int(filters * width), at least 1.

  Raises:
    ValueError: the width is not positive, or leaves no channel.
  """
  checks.positive('width', width)
  channels = int(filters * width)
  if not channels:
    raise ValueError(f'width {width} leaves none of {filters} channels.')
  return channels

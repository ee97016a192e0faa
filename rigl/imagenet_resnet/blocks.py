"""The layers of the ImageNet networks, which `rigl.networks` describes.

Images are [batch, height, width, channels], or [batch, channels, height, width] when the
data_format is 'channels_first' (which TensorFlow runs on GPU and TPU only).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, ContextManager, Mapping, NamedTuple, Optional, Union

from rigl.compat import tf
from rigl.core import checks
from rigl.imagenet_resnet import initializers
from rigl.model_pruning import data_formats, dense_layers, sparse_layers
from rigl.model_pruning import initializers as seeded_initializers

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


class Layers(NamedTuple):
  """The layers of which networks of `rigl.networks` are made, in the default graph."""

  spec: LayerSpec
  is_training: bool
  prune_first_layer: bool = True
  prune_last_layer: bool = True

  def conv(
    self,
    x: tf.Tensor,
    filters: int,
    size: int,
    strides: int,
    name: str,
    is_first: bool = False,
    init_scale: float = 1.0,
    keras_names: bool = False,
  ) -> tf.Tensor:
    """Convolution without biases, with fixed padding where it is strided."""
    spec = self.spec.unless_pruned(self.prune_first_layer or not is_first)
    x, padding = dense_layers.fixed_padding(x, size, strides, spec.data_format)
    return sparse_layers.sparse_conv2d(
      x,
      filters,
      size,
      strides=strides,
      padding=padding,
      data_format=spec.data_format,
      sparsity_technique=spec.pruning_method,
      kernel_initializer=spec.kernel_initializer(name, initializers.fan_in_normal(init_scale)),
      kernel_regularizer=spec.regularizer,
      name=name,
      dense_names=('kernel', 'bias') if keras_names else None,
    )

  def depthwise(self, x: tf.Tensor, size: int, strides: int, name: str) -> tf.Tensor:
    """Depthwise convolution (arXiv 1704.04861), padded as `conv`.

    Neither masked nor regularized, since it has few weights.
    """
    data_format = self.spec.data_format
    x, padding = dense_layers.fixed_padding(x, size, strides, data_format)
    axis = data_formats.channel_axis(data_format)
    steps = [1, strides, strides]
    steps.insert(axis, 1)
    with tf.variable_scope(name):
      kernel = dense_layers.get_parameter(
        'depthwise_weights',
        [size, size, x.shape[axis], 1],
        x.dtype,
        seeded_initializers.glorot_uniform(),
      )
      return tf.nn.depthwise_conv2d(
        x,
        kernel,
        strides=steps,
        padding=padding,
        data_format=data_formats.DATA_FORMATS[data_format],
      )

  def norm(self, x: tf.Tensor, init_zero: bool = False) -> tf.Tensor:
    """Batch normalization; see `dense_layers.batch_norm`."""
    return dense_layers.batch_norm(x, self.is_training, self.spec.data_format, init_zero)

  def relu(self, x: tf.Tensor) -> tf.Tensor:
    """max(x, 0)."""
    return tf.nn.relu(x)

  def max_pool(self, x: tf.Tensor, size: int, strides: int, padding: str) -> tf.Tensor:
    """Maximum over square windows."""
    data_format = data_formats.DATA_FORMATS[self.spec.data_format]
    return tf.nn.max_pool2d(x, size, strides, padding, data_format=data_format)

  def add(self, x: tf.Tensor, shortcut: tf.Tensor, name: str) -> tf.Tensor:
    """x + shortcut; the name is for the counter alone."""
    del name
    return x + shortcut

  def classifier(
    self,
    x: tf.Tensor,
    num_classes: int,
    name: str,
    stddev: Optional[float] = None,
    keras_names: bool = False,
  ) -> tf.Tensor:
    """The last layer, on images averaged -> logits [batch, num_classes]."""
    spec = self.spec.unless_pruned(self.prune_last_layer)
    family = initializers.fan_in_normal() if stddev is None else initializers.normal(stddev)
    return sparse_layers.sparse_fully_connected(
      dense_layers.global_average_pool(x, spec.data_format),
      num_classes,
      sparsity_technique=spec.pruning_method,
      kernel_initializer=spec.kernel_initializer(name, family),
      kernel_regularizer=spec.regularizer,
      name=name,
      dense_names=('kernel', 'bias') if keras_names else None,
    )

  def conv_classifier(
    self, x: tf.Tensor, num_classes: int, name: str, init_scale: float = 1.0
  ) -> tf.Tensor:
    """1x1 convolution of the average over the image -> logits [batch, num_classes].

    If the last layer is dense, it differs from the others: it has biases, Glorot-uniform weights,
    no weight decay and no doubled scope.
    """
    data_format = self.spec.data_format
    spatial = data_formats.spatial_axes(data_format)
    x = tf.reduce_mean(x, spatial, keepdims=True)
    if self.prune_last_layer:
      x = self.conv(x, num_classes, 1, 1, name, init_scale=init_scale)
    else:
      x = sparse_layers.sparse_conv2d(
        x,
        num_classes,
        1,
        use_bias=True,
        data_format=data_format,
        name=name,
        dense_names=('weights', 'biases'),
      )
    return tf.squeeze(x, spatial)

  def scope(self, name: str) -> ContextManager[Any]:
    """A scope of variables and operations."""
    return tf.variable_scope(name)

  def name_scope(self, name: str) -> ContextManager[Any]:
    """A scope of operations alone."""
    return tf.name_scope(name)


def make_model(
  network: Callable[..., tf.Tensor],
  spec: LayerSpec,
  num_classes: int,
  width: float,
  prune_first_layer: bool,
  prune_last_layer: bool,
  name: Optional[str] = None,
  min_filters: Optional[int] = None,
) -> ModelFn:
  """Makes the function that builds a network of `rigl.networks`; see `resnet_model.resnet_v1_`.

  `min_filters` are the channels of its narrowest layer at width 1; None where it rounds them up.
  """
  checks.positive('width', width)
  if min_filters and not int(min_filters * width):
    raise ValueError(f'width {width} leaves none of {min_filters} channels.')

  def model(inputs: tf.Tensor, is_training: bool) -> tf.Tensor:
    net = Layers(spec, is_training, prune_first_layer, prune_last_layer)
    with tf.variable_scope(name or 'resnet_model'):
      return network(net, inputs, width=width, num_classes=num_classes)

  return model

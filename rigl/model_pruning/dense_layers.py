"""Functions that dense layers, masked layers and networks share.

Variables are stored in float32 for half-precision inputs.
"""

from __future__ import annotations

from typing import Callable, Optional, Sequence, Union

import numpy as np

from rigl.compat import tf
from rigl.model_pruning import data_formats
from rigl.model_pruning.initializers import Initializer

TensorFn = Callable[['tf.Tensor'], 'tf.Tensor']
Size = Union[int, Sequence[int]]

BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5
# The published networks were trained on TensorFlow 1, whose fused kernel raised
# 1e-5 to this minimum of cuDNN.
FUSED_BATCH_NORM_EPSILON = 1.001e-5


def storage_dtype(dtype: tf.DType) -> tf.DType:
  """The type in which to store variables for computations in `dtype`."""
  return tf.float32 if dtype in (tf.bfloat16, tf.float16) else dtype


def get_parameter(
  name: str,
  shape: Sequence[int],
  dtype: tf.DType,
  initializer: Initializer,
  regularizer: Optional[TensorFn] = None,
) -> tf.Tensor:
  """A trainable variable as a tensor of `dtype`, stored in at least float32."""
  variable = tf.get_variable(name, shape, storage_dtype(dtype), initializer, regularizer)
  return tf.cast(variable, dtype)


def l2_regularizer(scale: float) -> Optional[TensorFn]:
  """weights -> scale * sum(weights ** 2) / 2; None for a scale of 0."""
  if not scale:
    return None
  return lambda weights: scale * tf.nn.l2_loss(weights)


def kernel_shape(x: tf.Tensor, channel_axis: int, kernel_size: Size, units: int) -> list[int]:
  """[k_h, k_w, n_in, units] of a convolution of `x`.

  Raises:
    ValueError: the number of channels is not known.
  """
  n_in = x.shape.as_list()[channel_axis]
  if n_in is None:
    raise ValueError(f'The number of channels of {x} must be known.')
  height, width = np.broadcast_to(kernel_size, 2).tolist()
  return [height, width, n_in, units]


def flattened(x: tf.Tensor) -> tf.Tensor:
  """[batch, ...] of static size -> [batch, n].

  Raises:
    ValueError: n is not known.
  """
  x = tf.convert_to_tensor(x)
  n_in = x.shape[1:].num_elements()
  if n_in is None:
    raise ValueError(f'All dimensions of {x} but the first must be known.')
  return tf.reshape(x, [-1, n_in])


def add_biases(
  x: tf.Tensor,
  data_format: str,
  name: str,
  initializer: Initializer,
  regularizer: Optional[TensorFn] = None,
  trainable: bool = True,
  dtype: Optional[tf.DType] = None,
) -> tf.Tensor:
  """Adds a variable, by default in the `storage_dtype` of `x`, to the channels of `x`.

  The data format of [batch, n] is 'NHWC' as well.
  """
  n = x.shape[-1 if data_format == 'NHWC' else 1]
  biases = tf.get_variable(
    name, [n], dtype or storage_dtype(x.dtype), initializer, regularizer, trainable
  )
  return tf.nn.bias_add(x, tf.cast(biases, x.dtype), data_format=data_format)


def fixed_padding(
  x: tf.Tensor, kernel_size: int, strides: int, data_format: str
) -> tuple[tf.Tensor, str]:
  """Pads images for a strided convolution, whatever their size.

  'SAME' pads an even-sized image only below and on the right. Here a strided
  kernel of size k always gets k - 1 zeros, (k - 1) // 2 of them first.

  Args:
    x: [batch, height, width, channels], or channels first.
    kernel_size: k.
    strides: strides of the convolution that follows.
    data_format: 'channels_last' or 'channels_first'.

  Returns:
    (images, padding) for the convolution; the same images and 'SAME' if it is
    not strided.
  """
  if strides == 1:
    return x, 'SAME'
  before = (kernel_size - 1) // 2
  spatial = [[before, kernel_size - 1 - before]] * 2
  axis = data_formats.channel_axis(data_format)
  spatial.insert(axis - 1, [0, 0])
  return tf.pad(x, [[0, 0], *spatial]), 'VALID'


def _normalize(
  x: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
  mean: tf.Tensor,
  variance: tf.Tensor,
  is_training: bool,
  data_format: str,
  fused: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Returns (normalized x, mean, variance), of the batch when training."""
  if fused:
    moving = {} if is_training else {'mean': mean, 'variance': variance}
    return tf.nn.fused_batch_norm(
      x,
      gamma,
      beta,
      epsilon=FUSED_BATCH_NORM_EPSILON,
      is_training=is_training,
      data_format=data_formats.DATA_FORMATS[data_format],
      **moving,
    )
  wide = tf.cast(x, gamma.dtype)
  axis = data_formats.channel_axis(data_format)
  if is_training:
    mean, variance = tf.nn.moments(wide, [i for i in range(4) if i != axis])
  shape = [-1 if i == axis else 1 for i in range(4)]
  outputs = tf.nn.batch_normalization(
    wide, *(tf.reshape(v, shape) for v in (mean, variance, beta, gamma)), BATCH_NORM_EPSILON
  )
  return tf.cast(outputs, x.dtype), mean, variance


def batch_norm(
  x: tf.Tensor, is_training: bool, data_format: str, init_zero: bool = False, fused: bool = True
) -> tf.Tensor:
  """Batch normalization (https://arxiv.org/abs/1502.03167) over the channels.

  Its variables are `batch_normalization`, `batch_normalization_1`, ... in the
  current scope, in the order of the calls. The updates of the moving averages
  are in the collection UPDATE_OPS; they are averaged over replicas.

  `tf.layers.batch_normalization` computes the same, but compares each new
  variable with all earlier ones, which takes most of the time to build a deep
  network.

  Args:
    x: [batch, height, width, channels], or channels first.
    is_training: use the statistics of the batch, else the moving averages.
    data_format: 'channels_last' or 'channels_first'.
    init_zero: whether gamma starts at 0 instead of 1.
    fused: whether to use the fused kernel, with FUSED_BATCH_NORM_EPSILON and
      the unbiased moving variance; else BATCH_NORM_EPSILON.

  Returns:
    tensor of the shape and type of `x`.
  """
  zeros, ones = tf.zeros_initializer(), tf.ones_initializer()
  shape = [x.shape[data_formats.channel_axis(data_format)]]
  dtype = storage_dtype(x.dtype)
  with tf.variable_scope(None, 'batch_normalization'):
    gamma = tf.get_variable('gamma', shape, dtype, zeros if init_zero else ones)
    beta = tf.get_variable('beta', shape, dtype, zeros)
    moving_mean, moving_variance = (
      tf.get_variable(
        name, shape, dtype, initializer, trainable=False, aggregation=tf.VariableAggregation.MEAN
      )
      for name, initializer in (('moving_mean', zeros), ('moving_variance', ones))
    )
    outputs, mean, variance = _normalize(
      x, gamma, beta, moving_mean, moving_variance, is_training, data_format, fused
    )
    if is_training:
      for moving, value in ((moving_mean, mean), (moving_variance, variance)):
        step = (1.0 - BATCH_NORM_MOMENTUM) * (moving - value)
        tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, tf.assign_sub(moving, step).op)
  return outputs


def global_average_pool(x: tf.Tensor, data_format: str) -> tf.Tensor:
  """[batch, height, width, channels], or channels first -> [batch, channels]."""
  return tf.reduce_mean(x, data_formats.spatial_axes(data_format))

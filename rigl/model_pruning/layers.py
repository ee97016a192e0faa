"""Fully connected and convolutional layers with a mask on the weights.

Each has `<scope>/weights`, `<scope>/mask` (ones), `<scope>/threshold` (zero)
and, where used, `<scope>/biases`, and registers them (mask_collections).
"""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, Union

from rigl.compat import tf
from rigl.core import checks, layer_names
from rigl.model_pruning import data_formats, dense_layers, initializers, mask_collections

_DATA_FORMATS: dict[Any, str] = {
  None: 'NHWC',
  'NHWC': 'NHWC',
  'NCHW': 'NCHW',
  **data_formats.DATA_FORMATS,
}


def _masked_variables(
  shape: Sequence[int],
  inputs: tf.Tensor,
  dtype: Optional[tf.DType],
  initializer: Callable[..., tf.Tensor],
  regularizer: Optional[Callable[..., tf.Tensor]],
  trainable: bool,
  mask_first: bool,
) -> tf.Tensor:
  """Creates weights, mask and threshold; returns the masked weights.

  The result has the type of `inputs`. The registered masked weights, and thus
  the dense gradients, have the type of the variables.
  """
  dtype = dtype or inputs.dtype

  def make_weights():
    return tf.get_variable('weights', shape, dtype, initializer, regularizer, trainable)

  def make_mask():
    return tf.get_variable(layer_names.MASK, shape, dtype, tf.ones_initializer(), trainable=False)

  # Created in the order of the graphs of the published checkpoints.
  if mask_first:
    mask, weights = make_mask(), make_weights()
  else:
    weights, mask = make_weights(), make_mask()
  threshold = tf.get_variable(
    layer_names.THRESHOLD, [], dtype, tf.zeros_initializer(), trainable=False
  )
  return tf.cast(mask_collections.apply_mask(weights, mask, threshold), inputs.dtype)


def _finish(
  outputs: tf.Tensor,
  data_format: str,
  activation_fn: Optional[Callable[[tf.Tensor], tf.Tensor]],
  normalizer_fn: Optional[Callable[..., tf.Tensor]],
  normalizer_params: Optional[dict[str, Any]],
  biases_initializer: Optional[Callable[..., tf.Tensor]],
  biases_regularizer: Optional[Callable[..., tf.Tensor]],
  trainable: bool,
  dtype: Optional[tf.DType],
) -> tf.Tensor:
  """Adds biases or a normalizer, then the activation."""
  if normalizer_fn is not None:
    outputs = normalizer_fn(outputs, **(normalizer_params or {}))
  elif biases_initializer is not None:
    outputs = dense_layers.add_biases(
      outputs,
      data_format,
      'biases',
      biases_initializer,
      biases_regularizer,
      trainable,
      dtype or outputs.dtype,
    )
  return outputs if activation_fn is None else activation_fn(outputs)


def masked_fully_connected(
  inputs: tf.Tensor,
  num_outputs: int,
  activation_fn: Optional[Callable[[tf.Tensor], tf.Tensor]] = tf.nn.relu,
  normalizer_fn: Optional[Callable[..., tf.Tensor]] = None,
  normalizer_params: Optional[dict[str, Any]] = None,
  weights_initializer: Optional[Callable[..., tf.Tensor]] = None,
  weights_regularizer: Optional[Callable[..., tf.Tensor]] = None,
  biases_initializer: Optional[Callable[..., tf.Tensor]] = tf.zeros_initializer(),
  biases_regularizer: Optional[Callable[..., tf.Tensor]] = None,
  reuse: Optional[bool] = None,
  trainable: bool = True,
  scope: Optional[str] = None,
  variables_dtype: Optional[tf.DType] = None,
) -> tf.Tensor:
  """Fully connected layer with a mask on its weights.

  Takes [batch, n_in], or [batch, ...] of static size, which is flattened. The arguments are those
  of `masked_conv2d`; the default scope is `fully_connected`.

  Returns:
    [batch, num_outputs].

  Raises:
    ValueError: the size of the inputs is not known.
  """
  with tf.variable_scope(scope, 'fully_connected', reuse=reuse):
    inputs = dense_layers.flattened(inputs)
    masked = _masked_variables(
      [inputs.shape[1], num_outputs],
      inputs,
      variables_dtype,
      weights_initializer or initializers.glorot_uniform(),
      weights_regularizer,
      trainable,
      mask_first=False,
    )
    return _finish(
      tf.matmul(inputs, masked),
      'NHWC',
      activation_fn,
      normalizer_fn,
      normalizer_params,
      biases_initializer,
      biases_regularizer,
      trainable,
      variables_dtype,
    )


def masked_conv2d(
  inputs: tf.Tensor,
  num_outputs: int,
  kernel_size: Union[int, Sequence[int]],
  stride: Union[int, Sequence[int]] = 1,
  padding: str = 'SAME',
  data_format: Optional[str] = None,
  rate: Union[int, Sequence[int]] = 1,
  activation_fn: Optional[Callable[[tf.Tensor], tf.Tensor]] = tf.nn.relu,
  normalizer_fn: Optional[Callable[..., tf.Tensor]] = None,
  normalizer_params: Optional[dict[str, Any]] = None,
  weights_initializer: Optional[Callable[..., tf.Tensor]] = None,
  weights_regularizer: Optional[Callable[..., tf.Tensor]] = None,
  biases_initializer: Optional[Callable[..., tf.Tensor]] = tf.zeros_initializer(),
  biases_regularizer: Optional[Callable[..., tf.Tensor]] = None,
  reuse: Optional[bool] = None,
  trainable: bool = True,
  scope: Optional[str] = None,
  variables_dtype: Optional[tf.DType] = None,
) -> tf.Tensor:
  """2-D convolution with a mask on its kernel.

  Args:
    inputs: [batch, height, width, n_in], or channels first.
    num_outputs: n_out.
    kernel_size: k or (k_h, k_w).
    stride: s or (s_h, s_w).
    padding: 'SAME' or 'VALID'.
    data_format: 'NHWC' or 'channels_last' (also when None), 'NCHW' or
      'channels_first'.
    rate: dilation, d or (d_h, d_w).
    activation_fn: applied to the result; None for a linear layer.
    normalizer_fn: called instead of adding biases.
    normalizer_params: keyword arguments of `normalizer_fn`.
    weights_initializer: Glorot uniform, seeded by scope, when None.
    weights_regularizer: regularizer of the raw kernel, inactive weights
      included.
    biases_initializer: None for no biases.
    biases_regularizer: regularizer of the biases.
    reuse: whether to use the existing variables of `scope`.
    trainable: whether kernel and biases are trained.
    scope: variable scope; `Conv`, made unique, when None.
    variables_dtype: the type of the variables; that of the inputs when None.

  Returns:
    [batch, height', width', n_out], or channels first.

  Raises:
    ValueError: unknown data format, or the number of channels is not known.
  """
  checks.one_of('data_format', data_format, _DATA_FORMATS)
  data_format = _DATA_FORMATS[data_format]
  with tf.variable_scope(scope, 'Conv', reuse=reuse):
    inputs = tf.convert_to_tensor(inputs)
    shape = dense_layers.kernel_shape(
      inputs, -1 if data_format == 'NHWC' else 1, kernel_size, num_outputs
    )
    masked = _masked_variables(
      shape,
      inputs,
      variables_dtype,
      weights_initializer or initializers.glorot_uniform(),
      weights_regularizer,
      trainable,
      mask_first=True,
    )
    outputs = tf.nn.conv2d(
      inputs,
      masked,
      strides=stride,
      padding=padding.upper(),
      data_format=data_format,
      dilations=rate,
    )
    return _finish(
      outputs,
      data_format,
      activation_fn,
      normalizer_fn,
      normalizer_params,
      biases_initializer,
      biases_regularizer,
      trainable,
      variables_dtype,
    )


masked_convolution = masked_conv2d

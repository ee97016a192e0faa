"""Layers that are masked or dense, by an argument.

`sparsity_technique` 'threshold' gives a masked layer (`layers`), 'baseline' an
ordinary one. Both have the same initial weights for the same name and seed. The
variables of an ordinary layer have a doubled scope, `<name>/<name>/weights`, as
in the published checkpoints.

Variables are stored in float32 for half-precision inputs.
"""

from __future__ import annotations

from typing import Optional

from rigl.compat import tf
from rigl.core import checks
from rigl.model_pruning import data_formats, dense_layers, initializers
from rigl.model_pruning.dense_layers import Initializer, Size, TensorFn

SPARSITY_TECHNIQUES = ('baseline', 'threshold')


def _doubled_names(scope: tf.VariableScope) -> tuple[str, str]:
  # The slash is in the name of the variable, not a second scope: initializers
  # are seeded by scope, which must be that of the masked layer.
  last = scope.name.rsplit('/', 1)[-1]
  return f'{last}/weights', f'{last}/biases'


def sparse_conv2d(
  x: tf.Tensor,
  units: int,
  kernel_size: Size,
  activation: Optional[TensorFn] = None,
  use_bias: bool = False,
  kernel_initializer: Optional[Initializer] = None,
  kernel_regularizer: Optional[TensorFn] = None,
  bias_initializer: Optional[Initializer] = None,
  biases_regularizer: Optional[TensorFn] = None,
  sparsity_technique: str = 'baseline',
  normalizer_fn: Optional[TensorFn] = None,
  strides: Size = (1, 1),
  padding: str = 'SAME',
  data_format: str = 'channels_last',
  name: Optional[str] = None,
  dense_names: Optional[tuple[str, str]] = None,
) -> tf.Tensor:
  """2-D convolution, with or without a mask on its kernel.

  Args:
    x: [batch, height, width, n_in], or channels first.
    units: n_out.
    kernel_size: k or (k_h, k_w).
    activation: applied to the result; None for a linear layer.
    use_bias: whether to add biases.
    kernel_initializer: Glorot uniform, seeded by scope, when None.
    kernel_regularizer: regularizer of the raw kernel, inactive weights
      included.
    bias_initializer: zeros when None.
    biases_regularizer: regularizer of the biases.
    sparsity_technique: 'baseline' (no mask) or 'threshold' (with mask).
    normalizer_fn: called instead of adding biases.
    strides: s or (s_h, s_w).
    padding: 'SAME' or 'VALID'.
    data_format: 'channels_last' or 'channels_first'.
    name: variable scope; `Conv`, made unique, when None.
    dense_names: names of kernel and biases in the scope of a layer without a
      mask; <name>/weights and <name>/biases when None.

  Returns:
    [batch, height', width', n_out], or channels first.

  Raises:
    ValueError: unknown technique, data format or number of channels.
  """
  checks.one_of('sparsity_technique', sparsity_technique, SPARSITY_TECHNIQUES)
  data_formats.check(data_format)
  x = tf.convert_to_tensor(x)
  kernel_initializer = kernel_initializer or initializers.glorot_uniform()
  biases = (bias_initializer or tf.zeros_initializer()) if use_bias else None
  if sparsity_technique == 'threshold':
    # Imported here: its defaults load TensorFlow, which flags do not need.
    from rigl.model_pruning import layers

    return layers.masked_conv2d(
      x,
      units,
      kernel_size,
      strides,
      padding,
      data_format,
      activation_fn=activation,
      normalizer_fn=normalizer_fn,
      weights_initializer=kernel_initializer,
      weights_regularizer=kernel_regularizer,
      biases_initializer=biases,
      biases_regularizer=biases_regularizer,
      scope=name,
      variables_dtype=dense_layers.storage_dtype(x.dtype),
    )
  with tf.variable_scope(name, 'Conv') as scope:
    kernel_name, bias_name = dense_names or _doubled_names(scope)
    axis = data_formats.channel_axis(data_format)
    shape = dense_layers.kernel_shape(x, axis, kernel_size, units)
    kernel = dense_layers.get_parameter(
      kernel_name, shape, x.dtype, kernel_initializer, kernel_regularizer
    )
    layout = data_formats.DATA_FORMATS[data_format]
    x = tf.nn.conv2d(x, kernel, strides=strides, padding=padding.upper(), data_format=layout)
    if normalizer_fn is not None:
      x = normalizer_fn(x)
    elif biases is not None:
      x = dense_layers.add_biases(x, layout, bias_name, biases, biases_regularizer)
    return x if activation is None else activation(x)


def sparse_fully_connected(
  x: tf.Tensor,
  units: int,
  activation: Optional[TensorFn] = None,
  use_bias: bool = True,
  kernel_initializer: Optional[Initializer] = None,
  kernel_regularizer: Optional[TensorFn] = None,
  bias_initializer: Optional[Initializer] = None,
  biases_regularizer: Optional[TensorFn] = None,
  sparsity_technique: str = 'baseline',
  name: Optional[str] = None,
  dense_names: Optional[tuple[str, str]] = None,
) -> tf.Tensor:
  """Fully connected layer, with or without a mask on its weights.

  Takes [batch, n_in], or [batch, ...] of static size, which is flattened. The arguments are those
  of `sparse_conv2d`; the default `name` is `fully_connected`.

  Returns:
    [batch, units].

  Raises:
    ValueError: unknown technique, or the size of the inputs is not known.
  """
  checks.one_of('sparsity_technique', sparsity_technique, SPARSITY_TECHNIQUES)
  x = tf.convert_to_tensor(x)
  kernel_initializer = kernel_initializer or initializers.glorot_uniform()
  biases = (bias_initializer or tf.zeros_initializer()) if use_bias else None
  if sparsity_technique == 'threshold':
    from rigl.model_pruning import layers

    return layers.masked_fully_connected(
      x,
      units,
      activation_fn=activation,
      weights_initializer=kernel_initializer,
      weights_regularizer=kernel_regularizer,
      biases_initializer=biases,
      biases_regularizer=biases_regularizer,
      scope=name,
      variables_dtype=dense_layers.storage_dtype(x.dtype),
    )
  with tf.variable_scope(name, 'fully_connected') as scope:
    kernel_name, bias_name = dense_names or _doubled_names(scope)
    x = dense_layers.flattened(x)
    kernel = dense_layers.get_parameter(
      kernel_name, [x.shape[1], units], x.dtype, kernel_initializer, kernel_regularizer
    )
    x = tf.matmul(x, kernel)
    if biases is not None:
      x = dense_layers.add_biases(x, 'NHWC', bias_name, biases, biases_regularizer)
    return x if activation is None else activation(x)

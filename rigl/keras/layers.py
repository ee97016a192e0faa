"""Sparsities that go by what the layers of a model do with their kernels.

An optimizer sees variables alone. It cannot tell the kernel of a depthwise
convolution from that of a convolution, nor which dimensions of an EinsumDense
kernel are inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

import keras

from rigl.keras import selection
from rigl.micronet import keras_calls, keras_layers


def check_built(model: Any, wanted: str) -> None:
  """Raises ValueError unless a model has its weights.

  Args:
    model: a model, built or not.
    wanted: what they are needed for.
  """
  if not isinstance(model, keras.layers.Layer):
    raise ValueError(f'{wanted} takes a model of Keras 3, got {model!r}.')
  if not (model.built and model.weights):
    raise ValueError(
        f'{wanted} needs the weights of {model.name!r}, which has none yet. '
        'Build the model first: give it a keras.Input, call it on a batch, or '
        'call model.build(input_shape).')


def layer_sparsities(
    model: Any,
    sparsity: selection.Sparsity = 0.9,
    distribution: str = 'erdos_renyi_kernel',
    custom_sparsities: Optional[Mapping[str, float]] = None,
    filters: selection.Filters = None,
) -> dict[str, float]:
  """{path: sparsity} of the sparse kernels, to be given to an optimizer.

      rigl.keras.RigL(
          inner_optimizer, sparsity=rigl.keras.layer_sparsities(model, 0.9))

  Differs from what the optimizer does with the same arguments in two ways:
  depthwise convolutions stay dense whatever their depth_multiplier, and a
  distribution takes the kernel [d, heads, key] of an EinsumDense layer, as in
  MultiHeadAttention, for the matrix [d, heads * key] that it is.

  Args:
    model: a built model.
    sparsity: as in `SparseOptimizer`.
    distribution: the same.
    custom_sparsities: the same.
    filters: the same. A function of the variable decides about depthwise
      convolutions too; the optimizer then needs the same `filters`.

  Raises:
    ValueError: the model is not built; two kernels have one path but not one
      sparsity; or as in `SparseOptimizer`.
  """
  check_built(model, 'layer_sparsities')
  depthwise, shapes = set(), {}
  for layer in _layers_in(model):
    kind = type(layer)
    if issubclass(kind, _DEPTHWISE):
      depthwise.add(id(layer.kernel))
    elif issubclass(kind, keras.layers.EinsumDense):
      shapes[id(layer.kernel)] = keras_layers.einsum_shape(layer)
  variables = [
      variable for variable in model.trainable_variables
      if callable(filters) or id(variable) not in depthwise]
  sparsities = selection.Sparsities(
      sparsity, distribution, custom_sparsities, filters)
  by_path: dict[str, float] = {}
  for variable, value in zip(variables, sparsities.of(
      variables, lambda v: shapes.get(id(v), tuple(v.shape)))):
    path = variable.path
    if value is not None and by_path.setdefault(path, value) != value:
      raise ValueError(
          f'Two kernels have the path {path}, but sparsities {by_path[path]:g} '
          f'and {value:g}. Give their layers names of their own, or put '
          f'{path!r} into custom_sparsities.')
  return by_path


_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


def _layers_in(layer: Any) -> Iterator[Any]:
  """A layer and all built layers inside it."""
  if layer.built:
    yield layer
  for child in keras_calls.children(layer):
    yield from _layers_in(child)

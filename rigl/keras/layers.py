"""Sparsities that depend on the types of a model's layers.

An optimizer sees only variables. It cannot distinguish the kernel of a
depthwise convolution from that of a convolution, and does not know which
dimensions of an EinsumDense kernel are inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

import keras

from rigl.keras import selection
from rigl.micronet import keras_calls, keras_rules


def check_built(model: Any, wanted: str) -> None:
  """Raises ValueError unless a model has its weights, which `wanted` needs."""
  if not isinstance(model, keras.layers.Layer):
    raise ValueError(f'{wanted} takes a model of Keras 3, got {model!r}.')
  if not (model.built and model.weights):
    raise ValueError(
      f'{wanted} needs the weights of {model.name!r}, which has none yet. Build the model first: '
      'give it a keras.Input, call it on a batch, or call model.build(input_shape).'
    )


def layer_sparsities(
  model: Any,
  sparsity: selection.Sparsity = 0.9,
  distribution: str = 'erdos_renyi_kernel',
  custom_sparsities: Optional[Mapping[str, float]] = None,
  filters: selection.Filters = None,
) -> dict[str, float]:
  """{path: sparsity} of the sparse kernels, for an optimizer.

      rigl.keras.RigL(
          inner_optimizer, sparsity=rigl.keras.layer_sparsities(model, 0.9))

  Differs in two ways from an optimizer with the same arguments: depthwise
  convolutions stay dense even if depth_multiplier > 1, and a distribution
  treats the kernel [d, heads, key] of an EinsumDense layer, as in
  MultiHeadAttention, as the matrix [d, heads * key].

  Args:
    model: a built model.
    sparsity: as in `SparseOptimizer`.
    distribution: the same.
    custom_sparsities: the same.
    filters: the same. A function of the variable also decides about depthwise
      convolutions; the optimizer then needs the same `filters`.

  Raises:
    ValueError: the model is not built; two kernels of the same path get
      different sparsities; or as in `SparseOptimizer`.
  """
  check_built(model, 'layer_sparsities')
  depthwise, shapes = set(), {}
  for layer in _layers_in(model):
    if isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
      depthwise.add(id(layer.kernel))
    elif isinstance(layer, keras.layers.EinsumDense):
      shapes[id(layer.kernel)] = keras_rules.einsum_shape(layer)
  variables = [v for v in model.trainable_variables if callable(filters) or id(v) not in depthwise]
  sparsities = selection.Sparsities(sparsity, distribution, custom_sparsities, filters)
  values = sparsities.of(variables, lambda v: shapes.get(id(v), tuple(v.shape)))
  by_path: dict[str, float] = {}
  for path, value in zip((v.path for v in variables), values):
    if value is not None and by_path.setdefault(path, value) != value:
      raise ValueError(
        f'Two kernels have the path {path}, but sparsities {by_path[path]:g} and {value:g}. Give '
        f'their layers names of their own, or put {path!r} into custom_sparsities.'
      )
  return by_path


def _layers_in(layer: Any) -> Iterator[Any]:
  """A layer and all built layers inside it."""
  if layer.built:
    yield layer
  for child in keras_calls.children(layer):
    yield from _layers_in(child)

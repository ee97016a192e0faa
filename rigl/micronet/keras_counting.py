"""Counts the FLOPs and bytes of Keras layers and models.

`get_stats` takes a list of layers and counts them as the published tables do.
`count_model` takes a whole model, counts what each layer really has, and lists
by name what it could not count. Neither imports TensorFlow: layers are
recognised by the names of their classes, which Keras 2 and Keras 3 share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rigl.core import checks, distributions
from rigl.micronet import keras_calls, keras_layers, network
from rigl.micronet.counting import (
    Arithmetic,
    Conv2D,
    DepthWiseConv2D,
    FullyConnected,
    has_kernel,
)
from rigl.micronet.keras_calls import Shapes
from rigl.micronet.keras_layers import NotCounted
from rigl.micronet.network import Layer, NetworkCount


@dataclasses.dataclass(frozen=True)
class Note:
  """A layer that adds nothing to a count, and why."""
  name: str
  kind: str
  reason: str


@dataclasses.dataclass(frozen=True)
class ModelCount:
  """The count of a Keras model.

  Attributes:
    count: count of the layers with a rule.
    not_counted: layers, or activations of counted layers, without a rule. The
      true numbers are higher by what they take.
    free: layers that take no FLOPs by the rules.
  """
  count: NetworkCount
  not_counted: tuple[Note, ...]
  free: tuple[Note, ...]


def get_stats(
    masked_layers: Sequence[Any],
    default_sparsity: float = 0.8,
    method: str = 'erdos_renyi',
    custom_sparsities: Mapping[str, float] | None = None,
    is_debug: bool = False,
    width: float = 1.,
    first_layer_name: str = 'conv1',
    last_layer_name: str = 'conv_preds',
    param_size: int = 32,
    erk_power_scale: float = 1.0,
) -> tuple[float, float, float]:
  """Counts Keras layers the way the published tables were counted.

  Each layer counts with 'same' padding, a bias and a ReLU, whatever it has, on
  the input size that Keras reports.

  Args:
    masked_layers: built Conv2D, DepthwiseConv2D and Dense layers.
    default_sparsity: for the distribution.
    method: a name in `rigl.core.distributions.DISTRIBUTIONS`.
    custom_sparsities: name of a kernel, for example 'conv1/kernel:0', ->
      sparsity.
    is_debug: prints a line for each layer.
    width: factor for the input channels of all but the first and the output
      channels of all but the last layer; a dimension of 1 stays. The sparsities
      are those of the layers as given.
    first_layer_name: name, or the beginning of the name, of the first layer.
    last_layer_name: the same for the last layer.
    param_size: bits of a stored value.
    erk_power_scale: exponent of 'erdos_renyi_kernel'.

  Returns:
    (FLOPs, stored bits, fraction of zeros over all kernels).

  Raises:
    ValueError: on another kind of layer, one that is not built or not square,
      two kernels of one name, wrong arguments of the distribution, a
      `param_size` that is not positive, or a width that is impossible, leaves a
      layer without channels, or meets no first or last layer of that name.
  """
  checks.positive('width', width)
  checks.positive('param_size', param_size)
  layers = [_published_layer(layer) for layer in masked_layers]
  sparsities = distributions.get_sparsities(
      network.kernel_shapes(layers), method, default_sparsity,
      custom_sparsities, erk_power_scale)
  if width != 1.:
    names = [layer.name for layer in layers]
    layers = network.scale_width(
        layers, width,
        _find_name(names, 'first_layer_name', first_layer_name),
        _find_name(names, 'last_layer_name', last_layer_name))
    network.check_channels(layers, f'The network at width {width:g}')
  count = network.count_network(layers, sparsities, param_size)
  if is_debug:
    for row in count.layers:
      print(f'{row.name}: shape {row.shape}, sparsity {row.sparsity:.4f}, '
            f'{row.flops:.4g} FLOPs, {row.counts.param_bits:.4g} bits')
  return count.flops, count.counts.param_bits, count.real_sparsity


def _find_name(kernel_names: Sequence[str], argument: str,
               layer_name: str) -> str:
  """Finds a kernel by its layer's name, then by the beginning of its name."""
  for beginning in (f'{layer_name}/', layer_name):
    for name in kernel_names:
      if name.startswith(beginning):
        return name
  raise ValueError(f'Another width needs {argument}, but no kernel begins with '
                   f'{layer_name!r}. There are {list(kernel_names)}.')


def _published_layer(layer: Any) -> Layer:
  """Describes a layer by the convention of `get_stats`."""
  known = ('Conv2D', 'DepthwiseConv2D', 'Dense')
  kind = keras_layers.class_name(layer, keras_layers.HANDLERS)
  if kind not in known:
    raise ValueError(
        f'get_stats counts {", ".join(known)}, not {layer.name!r} '
        f'({type(layer).__name__}). count_model knows more kinds of layers.')
  try:
    kernel = keras_layers.kernel_of(layer)
    kernel_name = keras_calls.kernel_name(layer)
    shape = tuple(int(size) for size in kernel.shape)
    if kind == 'Dense':
      return Layer(kernel_name, FullyConnected(shape, True, 'relu'))
    size = keras_layers.spatial(layer, keras_calls.input_shape(layer))
    keras_layers.known_size(size)
  except NotCounted as error:
    raise ValueError(f'Layer {layer.name!r} cannot be counted: {error}.'
                    ) from error
  if len(set(size)) != 1:
    raise ValueError(f'The rules need square images, but {layer.name!r} has an '
                     f'input of {size}. count_model takes any shape.')
  if getattr(layer, 'groups', 1) != 1:
    raise ValueError(f'{layer.name!r} is a grouped convolution, which only '
                     f'count_model counts.')
  op = Conv2D if kind == 'Conv2D' else DepthWiseConv2D
  return Layer(kernel_name,
               op(size[0], shape, tuple(layer.strides), 'same', True, 'relu'))


def count_model(
    model: Any,
    default_sparsity: float = 0.,
    method: str = 'erdos_renyi_kernel',
    custom_sparsities: Mapping[str, float] | None = None,
    param_size: int = 32,
    erk_power_scale: float = 1.0,
) -> ModelCount:
  """Counts any Keras model: functional, sequential, subclassed, or nested.

  Unlike `get_stats`, this takes padding, bias and activation as the layers have
  them, and adds what is done between the layers. Layers of nested models are
  named 'outer/inner'. A functional model counts a shared layer as often as it
  is used; in a subclassed model that cannot be seen, so each layer counts once,
  at the shape it was built with.

  Args:
    model: a built model, a layer, or a list of layers.
    default_sparsity: for the distribution, over the kernels of all layers but
      embeddings.
    method: a name in `rigl.core.distributions.DISTRIBUTIONS`.
    custom_sparsities: name of a layer -> sparsity. Names of kernels such as
      'conv1/kernel:0' are accepted for layers outside nested models.
    param_size: bits of a stored value.
    erk_power_scale: exponent of 'erdos_renyi_kernel'.

  Returns:
    The count, and what is not in it.

  Raises:
    ValueError: if two layers share a name, on wrong arguments of the
      distribution, or on a `param_size` that is not positive.
  """
  checks.positive('param_size', param_size)
  collector = _Collector()
  collector.visit_children(model, '')
  layers = list(collector.layers.values())
  custom = {
      collector.aliases.get(name, name): sparsity
      for name, sparsity in (custom_sparsities or {}).items()
  }
  shapes = {
      name: shape
      for name, shape in network.kernel_shapes(layers).items()
      if name not in collector.embeddings or name in custom
  }
  sparsities = distributions.get_sparsities(shapes, method, default_sparsity,
                                            custom, erk_power_scale)
  return ModelCount(
      network.count_network(layers, sparsities, param_size),
      tuple(dict.fromkeys(collector.not_counted)),
      tuple(dict.fromkeys(collector.free)))


class _Collector:
  """Walks a model and gathers what to count."""

  def __init__(self):
    self.layers: dict[Any, Layer] = {}
    self.embeddings: set[str] = set()
    self.aliases: dict[str, str] = {}
    self.not_counted: list[Note] = []
    self.free: list[Note] = []

  def visit_children(self, model: Any, prefix: str) -> None:
    """Visits every call of a layer inside a model, layer or list."""
    for layer, shapes in keras_calls.calls(model):
      self._visit(layer, shapes, prefix + layer.name)

  def _visit(self, layer: Any, shapes: Shapes | None, name: str) -> None:
    kind = keras_layers.class_name(
        layer, (*keras_layers.HANDLERS, *keras_layers.FREE,
                *keras_layers.OPAQUE))
    if not keras_calls.is_layer(layer):
      kind = None
    if kind in keras_layers.HANDLERS:
      self._count(layer, kind, shapes, name)
    elif kind in keras_layers.FREE:
      if kind != 'InputLayer':
        self.free.append(
            Note(name, type(layer).__name__, keras_layers.FREE[kind]))
    elif kind is None and keras_calls.children(layer):
      self._note_own_weights(layer, name)
      self.visit_children(layer, f'{name}/')
    else:
      self._skip(layer, name, 'no rule for this kind of layer')

  def _count(self, layer: Any, kind: str, shapes: Shapes | None,
             name: str) -> None:
    try:
      shapes = shapes or keras_calls.shapes_of(layer)
      parts = keras_layers.HANDLERS[kind](layer, *shapes)
    except NotCounted as error:
      self._skip(layer, name, str(error))
      return
    if kind != 'Activation':
      _, reason = keras_layers.split_activation(layer)
      if reason:
        self._skip(layer, name, reason)
    for part in parts:
      full_name = f'{name}/{part.name}' if part.name else name
      if kind == 'Embedding':
        self.embeddings.add(full_name)
      self._add((id(layer), part.name),
                part._replace(name=full_name, kind=type(layer).__name__))
      if len(parts) == 1 and has_kernel(part.op):
        self.aliases[keras_calls.kernel_name(layer)] = full_name

  def _add(self, key: tuple[int, str], layer: Layer) -> None:
    """Adds a call; the weights of a layer called again are stored once."""
    if key in self.layers:
      first = self.layers[key]
      layer = first._replace(op=_both_calls(first.op, layer.op))
    self.layers[key] = layer

  def _note_own_weights(self, layer: Any, name: str) -> None:
    inner = {
        id(weight)
        for child in keras_calls.children(layer)
        for weight in child.weights
    }
    own = [weight for weight in layer.weights if id(weight) not in inner]
    if own:
      self._skip(layer, name,
                 f'no rule for its own {len(own)} weights, {own[0].name}, ...')

  def _skip(self, layer: Any, name: str, reason: str) -> None:
    self.not_counted.append(Note(name, type(layer).__name__, reason))


def _both_calls(first: Any, second: Any) -> Any:
  """Joins two calls of one layer into a single operation."""
  if isinstance(first, Arithmetic):
    return Arithmetic(*(a + b for a, b in zip(first, second)))
  n_positions = first.n_positions + second.n_positions
  length = first.vector_length * first.n_positions
  length += second.vector_length * second.n_positions
  return first._replace(
      n_positions=n_positions,
      vector_length=length / n_positions if n_positions else 0)

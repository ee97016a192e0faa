"""Counts the FLOPs and bytes of Keras layers and models.

`get_stats` counts a list of layers like the published tables. `count_model`
counts a whole model, each layer as it is and at every call, and lists the
layers that it cannot count: each weight is either counted or listed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rigl.core import checks, distributions
from rigl.micronet import keras_calls, keras_rules, network
from rigl.micronet.counting import Arithmetic, Conv2D, DepthWiseConv2D, FullyConnected, has_kernel
from rigl.micronet.keras_calls import Call
from rigl.micronet.keras_rules import NotCounted
from rigl.micronet.network import Layer, NetworkCount

_NEVER_CALLED = 'it is never called'
_NO_RULE = 'no rule for this kind of layer'


@dataclasses.dataclass(frozen=True)
class Note:
  """A layer, or a part of it, that is not in a count.

  Attributes:
    name: name of the layer.
    kind: class of the layer.
    reason: why it is not counted.
    n_weights: number of its weights that are not counted.
  """

  name: str
  kind: str
  reason: str
  n_weights: int = 0


@dataclasses.dataclass(frozen=True)
class ModelCount:
  """The count of a Keras model.

  Attributes:
    count: count of the layers with a rule.
    not_counted: layers, or parts of layers, without a rule. They add to the
      true cost.
    free: layers that by the rules take no FLOPs and whose weights are not
      stored at inference.
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
  width: float = 1.0,
  first_layer_name: str = 'conv1',
  last_layer_name: str = 'conv_preds',
  param_size: int = 32,
  erk_power_scale: float = 1.0,
) -> tuple[float, float, float]:
  """Counts Keras layers the way the published tables were counted.

  Every layer is counted with 'same' padding, a bias and a ReLU, on the input
  size that Keras reports.

  Args:
    masked_layers: built Conv2D, DepthwiseConv2D and Dense layers.
    default_sparsity: for the distribution.
    method: a name in `rigl.core.distributions.DISTRIBUTIONS`.
    custom_sparsities: name of a kernel, for example 'conv1/kernel:0', ->
      sparsity.
    is_debug: prints a line for each layer.
    width: factor for the input channels of all but the first and the output
      channels of all but the last layer; dimensions of 1 stay. The sparsities
      are those at width 1.
    first_layer_name: name, or prefix of the name, of the first layer.
    last_layer_name: the same for the last layer.
    param_size: bits of a stored value.
    erk_power_scale: exponent of 'erdos_renyi_kernel'.

  Returns:
    (FLOPs, stored bits, fraction of zeros over all kernels).

  Raises:
    ValueError: on a layer that is of another kind, not built, not square,
      called on several sizes, or overrides the computation of its Keras class;
      on two kernels of the same name; on invalid arguments.
  """
  checks.positive('width', width)
  checks.positive('param_size', param_size)
  layers = [_published_layer(layer) for layer in masked_layers]
  sparsities = distributions.get_sparsities(
    network.kernel_shapes(layers), method, default_sparsity, custom_sparsities, erk_power_scale
  )
  if width != 1.0:
    names = [layer.name for layer in layers]
    layers = network.scale_width(
      layers,
      width,
      _find_name(names, 'first_layer_name', first_layer_name),
      _find_name(names, 'last_layer_name', last_layer_name),
    )
    network.check_channels(layers, f'The network at width {width:g}')
  count = network.count_network(layers, sparsities, param_size)
  if is_debug:
    for row in count.layers:
      print(
        f'{row.name}: shape {row.shape}, sparsity {row.sparsity:.4f}, '
        f'{row.flops:.4g} FLOPs, {row.counts.param_bits:.4g} bits'
      )
  return count.flops, count.counts.param_bits, count.real_sparsity


def _find_name(kernel_names: Sequence[str], argument: str, layer_name: str) -> str:
  """Finds a kernel by its layer's name, or else by a prefix of its name."""
  for beginning in (f'{layer_name}/', layer_name):
    for name in kernel_names:
      if name.startswith(beginning):
        return name
  raise ValueError(
    f'Another width needs {argument}, but no kernel begins with '
    f'{layer_name!r}. There are {list(kernel_names)}.'
  )


def _published_layer(layer: Any) -> Layer:
  """Describes a layer by the convention of `get_stats`."""
  known = ('Conv2D', 'DepthwiseConv2D', 'Dense')
  kind, is_changed = keras_rules.kind_of(layer)
  if kind not in known or is_changed:
    raise ValueError(
      f'get_stats counts {", ".join(known)}, not {layer.name!r} '
      f'({type(layer).__name__}). count_model takes any layer.'
    )
  try:
    kernel = keras_rules.kernel_of(layer)
    kernel_name = keras_calls.kernel_name(layer)
    shape = tuple(int(size) for size in kernel.shape)
    if kind == 'Dense':
      return Layer(kernel_name, FullyConnected(shape, True, 'relu'))
    size = keras_calls.input_shape(layer)
    is_first = layer.data_format == 'channels_first'
    size = size[2:] if is_first else size[1:-1]
    keras_rules.known_size(size)
  except NotCounted as error:
    raise ValueError(f'Layer {layer.name!r} cannot be counted: {error}.') from error
  if len(set(size)) != 1:
    raise ValueError(
      f'The rules need square images, but {layer.name!r} has an '
      f'input of {size}. count_model takes any shape.'
    )
  if getattr(layer, 'groups', 1) != 1:
    raise ValueError(f'{layer.name!r} is a grouped convolution, which only count_model counts.')
  op = Conv2D if kind == 'Conv2D' else DepthWiseConv2D
  return Layer(kernel_name, op(size[0], shape, tuple(layer.strides), 'same', True, 'relu'))


def count_model(
  model: Any,
  default_sparsity: float = 0.0,
  method: str = 'erdos_renyi_kernel',
  custom_sparsities: Mapping[str, float] | None = None,
  param_size: int = 32,
  erk_power_scale: float = 1.0,
  counts_zeros: bool = False,
) -> ModelCount:
  """Counts any Keras model: functional, sequential, subclassed, or nested.

  Unlike `get_stats`, it uses the actual padding, bias and activation, and
  counts operations between layers. It traces the model once: each layer is
  counted at every call, on the input of that call; its weights are stored once.
  Layers of nested models are named 'outer/inner'.

  A subclass of a Keras layer is counted as that layer if it does not override
  its computation. Of other custom layers the inner layers are counted, and
  their own operations are listed. The trace changes no variable, but like any
  call it replaces `model.losses`.

  Args:
    model: a model, a layer, or a list of these. A functional model is counted
      on its inputs, others at the sizes of their first call.
    default_sparsity: for the distribution, over all kernels except embeddings.
    method: a name in `rigl.core.distributions.DISTRIBUTIONS`.
    custom_sparsities: name of a layer -> sparsity. Names of kernels such as
      'conv1/kernel:0' are accepted for layers outside nested models.
    param_size: bits of a stored value.
    erk_power_scale: exponent of 'erdos_renyi_kernel'.
    counts_zeros: whether to use the zeros in each kernel instead of a
      distribution.

  Returns:
    The count, and the layers that are not in it.

  Raises:
    ValueError: on objects that are not of Keras, two layers of the same name,
      or invalid arguments; `counts_zeros` excludes those of a distribution.
  """
  checks.positive('param_size', param_size)
  if counts_zeros and (default_sparsity or custom_sparsities):
    raise ValueError(
      'counts_zeros takes the sparsities from the weights: leave out default_sparsity '
      f'({default_sparsity!r}) and custom_sparsities ({custom_sparsities!r}).'
    )
  collector = _Collector()
  collector.visit_model(model)
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
  sparsities = distributions.get_sparsities(
    shapes, method, default_sparsity, custom, erk_power_scale
  )
  n_zeros = None
  if counts_zeros:
    n_zeros = {
      name: int(np.sum(np.asarray(kernel) == 0)) for name, kernel in collector.kernels.items()
    }
  return ModelCount(
    network.count_network(layers, sparsities, param_size, n_zeros),
    tuple(collector.not_counted.values()),
    tuple(collector.free.values()),
  )


class _Collector:
  """Walks the calls of models and collects operations to count.

  Each weight has one owner, the layer with which it is counted or listed.
  """

  def __init__(self):
    self.layers: dict[Any, Layer] = {}
    self.kernels: dict[str, Any] = {}
    self.embeddings: set[str] = set()
    self.aliases: dict[str, str] = {}
    # By layer and reason, since a layer may be called again.
    self.not_counted: dict[tuple[int, str], Note] = {}
    self.free: dict[tuple[int, str], Note] = {}
    self._owners: dict[int, Any] = {}

  def visit_model(self, model: Any) -> None:
    """Visits every call in a model, layer or list, then lists the rest."""
    is_list = isinstance(model, (list, tuple))
    rest = []
    for layer in model if is_list else [model]:
      if not keras_rules.keras_classes(layer):
        raise ValueError(f'count_model takes models and layers of Keras, got {layer!r}.')
      if keras_rules.rule_of(layer) == 'InputLayer':
        continue
      prefix = f'{layer.name}/' if is_list else ''
      try:
        call = keras_calls.trace(layer)
      except NotCounted as error:
        reason = str(error)
      else:
        reason = _NEVER_CALLED
        self._visit(call, layer.name, prefix)
      rest.append((layer, layer.name, prefix, reason))
    for arguments in rest:
      self._list_rest(*arguments)

  def _visit(self, call: Call, name: str, prefix: str) -> None:
    layer = call.layer
    rule = keras_rules.rule_of(layer)
    if call.in_loop:
      self._skip(layer, name, 'in a loop or a branch, so that its calls cannot be counted')
    elif rule is None:
      self._skip(layer, name, _NO_RULE)
    elif rule in keras_rules.HANDLERS:
      self._count(call, rule, name)
    elif rule in keras_rules.FREE:
      self._skip(layer, name, keras_rules.FREE[rule], is_free=True)
    else:
      for inner in call.inner:
        inner_name = prefix + inner.layer.name
        self._visit(inner, inner_name, f'{inner_name}/')
      if call.arithmetic:
        # Its own weights are listed later.
        self._skip(layer, name, f'no rule for its own operations ({", ".join(call.arithmetic)})', 0)

  def _count(self, call: Call, rule: str, name: str) -> None:
    layer = call.layer
    try:
      parts = keras_rules.HANDLERS[rule](layer, call.inputs, call.output)
      if (id(layer), parts[0].name) not in self.layers:
        self._store(layer, name, parts)
    except NotCounted as error:
      self._skip(layer, name, str(error))
      return
    if rule != 'Activation':
      _, reason = keras_rules.split_activation(layer)
      if reason:
        self._skip(layer, name, reason)
    for part in parts:
      full_name = f'{name}/{part.name}' if part.name else name
      if rule == 'Embedding':
        self.embeddings.add(full_name)
      self._add((id(layer), part.name), part._replace(name=full_name, kind=type(layer).__name__))
      if has_kernel(part.op):
        self.kernels[full_name] = keras_rules.kernel_of(layer, part.name)
        if len(parts) == 1:
          self.aliases[keras_calls.kernel_name(layer)] = full_name

  def _add(self, key: tuple[int, str], layer: Layer) -> None:
    """Adds a call; the weights of a layer called again are stored once."""
    if key in self.layers:
      first = self.layers[key]
      layer = first._replace(op=_both_calls(first.op, layer.op))
    self.layers[key] = layer

  def _store(self, layer: Any, name: str, parts: Sequence[Layer]) -> None:
    """Compares the stored values of a rule with the layer's weights."""
    for weight in layer.weights:
      if id(weight) in self._owners:
        raise NotCounted(
          f'its weights are counted or listed with {self._owners[id(weight)].name!r}'
        )
    n_rest = sum(map(_size, layer.weights)) - sum(
      part.op.n_weights + part.op.n_biases for part in parts if has_kernel(part.op)
    )
    if n_rest < 0:
      raise NotCounted('it has fewer weights than its rule stores')
    self._claim(layer, layer.weights)
    if n_rest:
      self._skip(layer, name, 'no rule for its other weights', n_rest)

  def _list_rest(self, layer: Any, name: str, prefix: str, reason: str) -> None:
    """Lists layers that were not called, innermost first."""
    rule = keras_rules.rule_of(layer)
    is_composite = rule in keras_rules.COMPOSITE
    children = keras_calls.children(layer) if is_composite else []
    for child in children:
      child_name = prefix + child.name
      self._list_rest(child, child_name, f'{child_name}/', reason)
    n_weights = self._claim(layer, layer.weights)
    is_traced = reason == _NEVER_CALLED
    if n_weights or not (is_traced or children or rule in keras_rules.FREE):
      if rule is None:
        reason = _NO_RULE
      elif is_traced and is_composite:
        reason = 'no rule for its own weights'
      self._skip(layer, name, reason, n_weights)

  def _skip(
    self, layer: Any, name: str, reason: str, n_weights: int | None = None, is_free: bool = False
  ) -> None:
    """Lists a layer, by default with all its weights without an owner."""
    if n_weights is None:
      n_weights = self._claim(layer, getattr(layer, 'weights', ()))
    notes = self.free if is_free else self.not_counted
    notes.setdefault((id(layer), reason), Note(name, type(layer).__name__, reason, n_weights))

  def _claim(self, layer: Any, weights: Sequence[Any]) -> int:
    """Makes a layer the owner of unowned weights; returns their size."""
    new = [weight for weight in weights if id(weight) not in self._owners]
    self._owners.update((id(weight), layer) for weight in new)
    return sum(map(_size, new))


def _size(weight: Any) -> int:
  return keras_rules.known_size(tuple(weight.shape))


def _both_calls(first: Any, second: Any) -> Any:
  """Joins two calls of one layer into a single operation."""
  if isinstance(first, Arithmetic):
    return Arithmetic(*(a + b for a, b in zip(first, second)))
  n_positions = first.n_positions + second.n_positions
  length = first.vector_length * first.n_positions
  length += second.vector_length * second.n_positions
  return first._replace(
    n_positions=n_positions, vector_length=length / n_positions if n_positions else 0
  )

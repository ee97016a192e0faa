"""The registry of masked layers.

`apply_mask` registers a layer in its graph, and `masked_layers` lists the
layers. The collections of 2020, `masks`, `masked_weights`, `thresholds` and
`kernel`, are filled for programs that read them; this library does not use
them.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Optional, Sequence, Union

from rigl import replicas
from rigl.compat import tf
from rigl.core import layer_names


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLayer:
  """A masked layer of one replica.

  Attributes:
    weights: trainable variable [...].
    mask: 0/1 variable of the same shape.
    threshold: scalar variable of gradual pruning.
    masked_weights: mask * weights, of the shape and type of the weights.
    dense_gradient_source: the tensor whose gradient is the dense gradient:
      `masked_weights`, or `mask` if those were made inside a loop.
    replica: the replica, identified by the name of its copy of the weights.
  """

  weights: tf.Variable
  mask: tf.Variable
  threshold: tf.Variable
  masked_weights: tf.Tensor
  dense_gradient_source: Union[tf.Tensor, tf.Variable]
  replica: str

  @property
  def name(self) -> str:
    """The scope of the weights; '' for none."""
    return _scope_of(self.weights)

  @property
  def is_here(self) -> bool:
    """Whether it belongs to the replica being built; outside, to the first."""
    return self.replica == self.weights.op.name


def _scope_of(variable: tf.Variable) -> str:
  return replicas.name_of(variable).rpartition('/')[0]


def _registered(graph: tf.Graph) -> list[MaskedLayer]:
  """The layers of all replicas."""
  # The key is not a string, so the collection is not saved with the graph.
  return graph.get_collection_ref(MaskedLayer)


def masked_layers() -> list[MaskedLayer]:
  """The masked layers of the graph, in the order of their first use.

  Raises:
    ValueError: the collection `masks` has a mask that is not registered.
  """
  with tf.init_scope():  # Leaves the function being built, if any.
    graph = tf.get_default_graph()
  layers = [layer for layer in _registered(graph) if layer.is_here]
  known = {id(layer.mask) for layer in layers}
  for mask in graph.get_collection('masks'):
    if id(mask) not in known:
      raise ValueError(
        f"{mask.name} is in the collection 'masks' and of no masked layer. "
        'Let rigl.model_pruning.pruning.apply_mask(weights, mask, threshold) '
        'make mask * weights, which registers the layer.'
      )
  return layers


def get_masks() -> list[tf.Variable]:
  """The mask variables of the default graph, in the order of their layers."""
  return [layer.mask for layer in masked_layers()]


def get_masked_weights() -> list[tf.Tensor]:
  """The tensors mask * weights, in the order of `get_masks()`."""
  return [layer.masked_weights for layer in masked_layers()]


def get_thresholds() -> list[tf.Variable]:
  """The scalar threshold variables, in the order of `get_masks()`."""
  return [layer.threshold for layer in masked_layers()]


def get_weights() -> list[tf.Variable]:
  """The weight variables of masked layers, in the order of `get_masks()`."""
  return [layer.weights for layer in masked_layers()]


def get_weight_sparsity() -> list[tf.Tensor]:
  """Sparsity of each masked layer, float32 scalars in [0, 1]."""
  return [tf.nn.zero_fraction(mask) for mask in get_masks()]


def _variable_beside(
  weights: tf.Variable, name: str, shape: Sequence[int], initializer: Callable[..., tf.Tensor]
) -> tf.Variable:
  """A new variable in the scope of the weights."""
  scope = tf.VariableScope(reuse=False, name=_scope_of(weights))
  with tf.variable_scope(scope, auxiliary_name_scope=False):
    return tf.get_variable(name, shape, weights.dtype.base_dtype, initializer, trainable=False)


def _check_new(
  weights: tf.Variable, mask: Optional[tf.Variable], is_probe: bool, layers: Sequence[MaskedLayer]
) -> None:
  """Raises ValueError if the weights cannot have this mask."""
  for layer in layers:
    if layer.mask is mask or layer.name == _scope_of(weights):
      raise ValueError(
        f'{weights.name} needs a scope and a mask of its own: {layer.weights.name} has the scope '
        f'{layer.name!r} and the mask {layer.mask.name}.'
      )
  if is_probe and mask is not None and (mask.dtype.base_dtype != weights.dtype.base_dtype):
    raise ValueError(
      f'The mask {mask.name} is {mask.dtype.base_dtype.name}, its weights '
      f'{weights.dtype.base_dtype.name}. In a loop, a branch or a function '
      'they must have one type, or apply_mask must be called before it.'
    )


def _product(mask: tf.Variable, weights: tf.Variable, is_probe: bool) -> tf.Tensor:
  """mask * weights.

  Gradients with respect to a tensor inside a loop do not exist outside it.
  There the mask serves as a probe: it adds 0 to the product in such a way that
  its own gradient is the dense gradient, summed over all iterations of the
  loop. The loss must not depend on the mask in any other way.
  """
  name = 'masked_weight'
  with tf.name_scope(weights.op.name + '/'):
    mask = tf.cast(mask, weights.dtype.base_dtype)
    if not is_probe:
      return tf.multiply(mask, weights, name=name)
    fixed = tf.stop_gradient(mask)
    return tf.add(fixed * weights, mask - fixed, name=name)


def _can_be_used(tensor: tf.Tensor) -> bool:
  """Whether a tensor belongs to the graph being built or one around it."""
  # A loop of TensorFlow 1 is part of the graph and hard to recognize: any
  # product may be in a loop, outside of which it must not be used.
  graph = tf.get_default_graph() if tf.control_flow_v2_enabled() else None
  while graph is not None and graph is not tensor.graph:
    graph = getattr(graph, 'outer_graph', None)
  return graph is not None


def _register(
  weights: tf.Variable,
  mask: Optional[tf.Variable],
  threshold: Optional[tf.Variable],
  elsewhere: Optional[MaskedLayer],
) -> MaskedLayer:
  """A new layer; `elsewhere` is the same layer of another replica, or None."""
  graph = weights.op.graph
  layers = _registered(graph)
  is_probe = not tf.control_flow_v2_enabled() or (tf.get_default_graph() is not graph)
  if elsewhere:
    mask, threshold = elsewhere.mask, elsewhere.threshold
  else:
    _check_new(weights, mask, is_probe, layers)
    if mask is None:
      mask = _variable_beside(weights, layer_names.MASK, weights.shape, tf.ones_initializer())
    if threshold is None:
      threshold = _variable_beside(weights, layer_names.THRESHOLD, [], tf.zeros_initializer())
  masked = _product(mask, weights, is_probe)
  layers.append(
    MaskedLayer(weights, mask, threshold, masked, mask if is_probe else masked, weights.op.name)
  )
  if not elsewhere:  # For programs of 2020.
    for collection, entry in (
      ('masks', mask),
      ('masked_weights', masked),
      ('thresholds', threshold),
      ('kernel', weights),
    ):
      graph.add_to_collection(collection, entry)
  return layers[-1]


def apply_mask(
  weights: tf.Variable, mask: Optional[tf.Variable] = None, threshold: Optional[tf.Variable] = None
) -> tf.Tensor:
  """Returns mask * weights and registers the layer unless it already is.

  Given only the weights, it adds a mask to any variable, such as the kernel of
  a recurrent cell or a projection of attention.

  The product is built once per graph and computed once per step. If the first
  call is inside a loop, a branch or a function, as in `tf.nn.dynamic_rnn`, each
  call builds a product, which each iteration computes.

  Args:
    weights: trainable variable [...].
    mask: 0/1 variable of the same shape, of any type. None to create one of
      ones in the scope of the weights.
    threshold: scalar variable of gradual pruning. None to create one of zero in
      the scope of the weights.

  Returns:
    tensor of the shape and type of `weights`. The forward pass must use only
    this tensor: its gradient is the dense gradient.

  Raises:
    ValueError: the weights have another mask, other weights have their scope or
      the mask, the weights are not an ordinary variable of a graph, or a mask
      of another type is first used inside a loop.
  """
  if tf.executing_eagerly() or not hasattr(weights, 'op'):
    raise ValueError(
      f'Masks are for ordinary variables of a graph, not for {weights.name}. Build the layer in '
      '`with tf.Graph().as_default():`, outside of a scope with a partitioner.'
    )
  known = [layer for layer in _registered(weights.op.graph) if layer.weights is weights]
  for layer in known:
    if mask is not None and mask is not layer.mask:
      raise ValueError(
        f'{weights.name} has the mask {layer.mask.name} already and cannot have {mask.name} too.'
      )
    if layer.is_here:
      if _can_be_used(layer.masked_weights):
        return layer.masked_weights
      return _product(layer.mask, weights, layer.dense_gradient_source is layer.mask)
  return _register(weights, mask, threshold, known[0] if known else None).masked_weights

"""The registry of masked layers.

`apply_mask` registers a layer in its graph, and `masked_layers` finds it again.
The collections of 2020, `masks`, `masked_weights`, `thresholds` and `kernel`,
are filled for programs that read them; nothing here pairs their entries.
"""

from __future__ import annotations

import dataclasses
from typing import Callable, Optional, Sequence, Union

from rigl import replicas
from rigl.compat import tf
from rigl.core import layer_names


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLayer:
  """One masked layer, as one replica computes it if there are several.

  Attributes:
    weights: trainable variable [...].
    mask: 0/1 variable of the same shape.
    threshold: scalar variable of gradual pruning.
    masked_weights: mask * weights, of the shape and type of the weights.
    dense_gradient_source: what to differentiate a loss by to get the dense
      gradient: `masked_weights`, or `mask` if those were made inside of a loop.
    replica: which one, told by the name of its copy of the weights.
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
    """Whether it is of the replica being built, or outside of all the first."""
    return self.replica == self.weights.op.name


def _scope_of(variable: tf.Variable) -> str:
  return replicas.name_of(variable).rpartition('/')[0]


def _registered(graph: tf.Graph) -> list[MaskedLayer]:
  """The layers of all replicas."""
  # A graph is saved with the collections whose key is a string. Layers have no
  # format to be saved in.
  return graph.get_collection_ref(MaskedLayer)


def masked_layers() -> list[MaskedLayer]:
  """The masked layers of the graph, in the order of their first use.

  Raises:
    ValueError: the collection `masks` has a mask that is not registered.
  """
  with tf.init_scope():  # Out of the function being built, if any.
    graph = tf.get_default_graph()
  layers = [layer for layer in _registered(graph) if layer.is_here]
  known = {id(layer.mask) for layer in layers}
  for mask in graph.get_collection('masks'):
    if id(mask) not in known:
      raise ValueError(
          f"{mask.name} is in the collection 'masks' and of no masked layer. "
          'Let rigl.model_pruning.pruning.apply_mask(weights, mask, threshold) '
          'make mask * weights, which registers the layer.')
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


def _variable_beside(weights: tf.Variable, name: str, shape: Sequence[int],
                     initializer: Callable[..., tf.Tensor]) -> tf.Variable:
  """A new variable in the scope of the weights."""
  scope = tf.VariableScope(reuse=False, name=_scope_of(weights))
  with tf.variable_scope(scope, auxiliary_name_scope=False):
    return tf.get_variable(
        name, shape, weights.dtype.base_dtype, initializer, trainable=False)


def _check_new(weights: tf.Variable, mask: Optional[tf.Variable],
               is_probe: bool, layers: Sequence[MaskedLayer]) -> None:
  """Raises ValueError if the weights cannot have this mask."""
  for layer in layers:
    if layer.mask is mask or layer.name == _scope_of(weights):
      raise ValueError(
          f'{weights.name} needs a scope and a mask of its own: '
          f'{layer.weights.name} has the scope {layer.name!r} and the mask '
          f'{layer.mask.name}.')
  if is_probe and mask is not None and (
      mask.dtype.base_dtype != weights.dtype.base_dtype):
    raise ValueError(
        f'The mask {mask.name} is {mask.dtype.base_dtype.name}, its weights '
        f'{weights.dtype.base_dtype.name}. In a loop, a branch or a function '
        'they must have one type, or apply_mask must be called before it.')


def _product(mask: tf.Variable, weights: tf.Variable,
             is_probe: bool) -> tf.Tensor:
  """mask * weights.

  A product inside of a loop cannot be differentiated by, so there the mask
  takes its place: as a probe it adds 0 to the product, through which its own
  gradient becomes the dense gradient, summed over all rounds. The loss must
  not depend on such a mask in another way.
  """
  name = 'masked_weight'
  with tf.name_scope(weights.op.name + '/'):
    mask = tf.cast(mask, weights.dtype.base_dtype)
    if not is_probe:
      return tf.multiply(mask, weights, name=name)
    fixed = tf.stop_gradient(mask)
    return tf.add(fixed * weights, mask - fixed, name=name)


def _can_be_used(tensor: tf.Tensor) -> bool:
  """Whether a tensor is of the graph being built or of one around it."""
  # A loop of TensorFlow 1 is part of the graph and hard to tell from it: there
  # each product may be in a loop, and outside of its loop it must not be used.
  graph = tf.get_default_graph() if tf.control_flow_v2_enabled() else None
  while graph is not None and graph is not tensor.graph:
    graph = getattr(graph, 'outer_graph', None)
  return graph is not None


def _register(weights: tf.Variable, mask: Optional[tf.Variable],
              threshold: Optional[tf.Variable],
              elsewhere: Optional[MaskedLayer]) -> MaskedLayer:
  """A new layer; `elsewhere` is the same one on another replica, if any."""
  graph = weights.op.graph
  layers = _registered(graph)
  is_probe = not tf.control_flow_v2_enabled() or (
      tf.get_default_graph() is not graph)
  if elsewhere:
    mask, threshold = elsewhere.mask, elsewhere.threshold
  else:
    _check_new(weights, mask, is_probe, layers)
    if mask is None:
      mask = _variable_beside(
          weights, layer_names.MASK, weights.shape, tf.ones_initializer())
    if threshold is None:
      threshold = _variable_beside(
          weights, layer_names.THRESHOLD, [], tf.zeros_initializer())
  masked = _product(mask, weights, is_probe)
  layers.append(MaskedLayer(
      weights, mask, threshold, masked, mask if is_probe else masked,
      weights.op.name))
  if not elsewhere:  # For programs of 2020.
    for collection, entry in (('masks', mask), ('masked_weights', masked),
                              ('thresholds', threshold), ('kernel', weights)):
      graph.add_to_collection(collection, entry)
  return layers[-1]


def apply_mask(weights: tf.Variable, mask: Optional[tf.Variable] = None,
               threshold: Optional[tf.Variable] = None) -> tf.Tensor:
  """Returns mask * weights and registers the layer unless it already is.

  With the weights alone it gives any variable a mask: the kernel of a recurrent
  cell, say, or a projection of attention.

  The product is made once in a graph and computed once in a step. If this is
  first called inside of a loop, a branch or a function, as in
  `tf.nn.dynamic_rnn`, each call makes a product, to be computed each time
  round.

  Args:
    weights: trainable variable [...].
    mask: 0/1 variable of the same shape; its type may differ. None makes one of
      ones beside the weights.
    threshold: scalar variable of gradual pruning. None makes one of zero beside
      the weights.

  Returns:
    tensor of the shape and type of `weights`, the only thing a forward pass
    should use: its gradient is the dense gradient.

  Raises:
    ValueError: the weights have another mask, or their scope or the mask is
      that of other weights; they are no ordinary variable of a graph; or a
      mask of another type is first used inside of a loop.
  """
  if tf.executing_eagerly() or not hasattr(weights, 'op'):
    raise ValueError(
        f'Masks are for ordinary variables of a graph, not for {weights.name}. '
        'Build the layer in `with tf.Graph().as_default():`, outside of a '
        'scope with a partitioner.')
  known = [layer for layer in _registered(weights.op.graph)
           if layer.weights is weights]
  for layer in known:
    if mask is not None and mask is not layer.mask:
      raise ValueError(
          f'{weights.name} has the mask {layer.mask.name} already and cannot '
          f'have {mask.name} too.')
    if layer.is_here:
      if _can_be_used(layer.masked_weights):
        return layer.masked_weights
      return _product(
          layer.mask, weights, layer.dense_gradient_source is layer.mask)
  return _register(
      weights, mask, threshold, known[0] if known else None).masked_weights

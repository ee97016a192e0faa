"""The registry of masked layers: graph collections, and the only reader of
them.

A masked layer is a triple (weights, mask, masked weights) that belongs
together by scope: `<scope>/weights`, `<scope>/mask` and the tensor
`<scope>/weights/masked_weight`. A layer that is used again, by reuse of its
variables, uses that tensor again.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

from rigl import replicas
from rigl.compat import tf

MASKS = 'masks'
MASKED_WEIGHTS = 'masked_weights'
THRESHOLDS = 'thresholds'
KERNEL = 'kernel'

# The masks whose own gradient is the dense gradient of their layer.
_PROBES = 'rigl/dense_gradient_probes'

_MASKED_WEIGHT_OP = 'masked_weight'


class MaskedTriple(NamedTuple):
  """What belongs to one masked layer; all tensors have the weights' shape."""

  weights: tf.Variable
  mask: tf.Variable
  masked_weights: tf.Tensor


def get_masks() -> list[tf.Variable]:
  """The mask variables of the default graph, in the order of their layers."""
  return tf.get_collection(MASKS)


def get_masked_weights() -> list[tf.Tensor]:
  """The tensors mask * weights, in the order of `get_masks()`."""
  return tf.get_collection(MASKED_WEIGHTS)


def get_thresholds() -> list[tf.Variable]:
  """The scalar threshold variables, in the order of `get_masks()`."""
  return tf.get_collection(THRESHOLDS)


def get_weights() -> list[tf.Variable]:
  """The weight variables of masked layers, in the order of `get_masks()`."""
  return tf.get_collection(KERNEL)


def scope_of(variable: tf.Variable) -> str:
  """The scope of the layer that the variable belongs to; '' for none.

  Args:
    variable: mask, weights or threshold.
  """
  return replicas.name_of(variable).rpartition('/')[0]


def _find_tensor(name: str) -> Optional[tf.Tensor]:
  """The tensor of the default graph or of one around it, or None."""
  graph = tf.get_default_graph()
  while graph is not None:
    try:
      return graph.get_tensor_by_name(name)
    except KeyError:
      graph = getattr(graph, 'outer_graph', None)
  return None


def _mask_beside(weights: tf.Variable) -> tuple[tf.Variable, tf.Variable]:
  """Mask (ones) and threshold (zero) in the scope of weights, made once."""
  for known, mask, threshold in zip(
      get_weights(), get_masks(), get_thresholds()):
    if replicas.name_of(known) == replicas.name_of(weights):
      return mask, threshold
    if scope_of(known) == scope_of(weights):
      raise ValueError(
          f'{known.name} and {weights.name} lie in one scope, '
          f'{scope_of(weights)!r}; each masked layer needs a scope of its own.')
  scope = tf.VariableScope(
      reuse=replicas.reuses_variables(), name=scope_of(weights))
  dtype = weights.dtype.base_dtype
  with tf.variable_scope(scope, auxiliary_name_scope=False):
    return (
        tf.get_variable('mask', weights.shape, dtype, tf.ones_initializer(),
                        trainable=False),
        tf.get_variable('threshold', [], dtype, tf.zeros_initializer(),
                        trainable=False))


def _product(mask: tf.Variable, weights: tf.Variable,
             is_probe: bool) -> tf.Tensor:
  """mask * weights.

  A product inside of a loop cannot be differentiated by, so there the mask
  takes its place: as a probe it adds 0 to the product, through which its own
  gradient becomes the dense gradient, summed over all rounds. The loss must
  not depend on such a mask in another way.
  """
  with tf.name_scope(weights.op.name + '/'):
    mask = tf.cast(mask, weights.dtype.base_dtype)
    if not is_probe:
      return tf.multiply(mask, weights, name=_MASKED_WEIGHT_OP)
    fixed = tf.stop_gradient(mask)
    return tf.add(fixed * weights, mask - fixed, name=_MASKED_WEIGHT_OP)


def _register(weights: tf.Variable, mask: tf.Variable,
              threshold: Optional[tf.Variable], masked: tf.Tensor,
              is_probe: bool) -> None:
  """Adds a layer to the registry, unless it is there."""
  # A function that the layer is used in has collections of its own.
  for graph in (tf.get_default_graph(), weights.op.graph):
    entries = {MASKS: mask, MASKED_WEIGHTS: masked, THRESHOLDS: threshold,
               KERNEL: weights}
    if not any(known is mask for known in graph.get_collection(MASKS)):
      for name, entry in entries.items():
        graph.add_to_collection(name, entry)
      if is_probe:
        graph.add_to_collection(_PROBES, mask)


def _is_probe(mask: tf.Variable) -> bool:
  return any(known is mask for known in tf.get_collection(_PROBES))


def apply_mask(weights: tf.Variable, mask: Optional[tf.Variable] = None,
               threshold: Optional[tf.Variable] = None) -> tf.Tensor:
  """Returns mask * weights and registers the layer unless it already is.

  With the weights alone it gives any variable a mask: the kernel of a recurrent
  cell, say, or a projection of attention.

  The product is made once in a graph and computed once in a step. Inside a
  loop or a branch, as in `tf.nn.dynamic_rnn`, it is computed each time round
  unless this was called before the loop.

  Args:
    weights: trainable variable [...].
    mask: 0/1 variable of the same shape; its type may differ. None makes one of
      ones beside the weights, with a threshold.
    threshold: scalar variable of gradual pruning; None with `mask`.

  Returns:
    tensor of the shape and type of `weights`, the only thing a forward pass
    should use: its gradient is the dense gradient.

  Raises:
    ValueError: the scope of the weights has a mask that is not theirs; they are
      no ordinary variable of a graph; or a mask of another type is first used
      inside of a loop.
  """
  if tf.executing_eagerly() or not hasattr(weights, 'op'):
    raise ValueError(
        f'Masks are for ordinary variables of a graph, not for {weights.name}. '
        'Build the layer in `with tf.Graph().as_default():`, outside of a '
        'scope with a partitioner.')
  if mask is None:
    mask, threshold = _mask_beside(weights)
  # A loop of TensorFlow 2 is a function. One of TensorFlow 1 is part of the
  # graph and hard to tell from it: there each product may be in a loop, and
  # outside of its loop it must not be used.
  in_graph = tf.control_flow_v2_enabled()
  masked = in_graph and _find_tensor(
      f'{weights.op.name}/{_MASKED_WEIGHT_OP}:0')
  if masked in (False, None):
    is_probe = _is_probe(mask) or not in_graph or (
        tf.get_default_graph() is not weights.op.graph)
    if is_probe and mask.dtype.base_dtype != weights.dtype.base_dtype:
      raise ValueError(
          f'The mask {mask.name} is {mask.dtype.base_dtype.name}, its weights '
          f'{weights.dtype.base_dtype.name}. In a loop, a branch or a function '
          'they must have one type, or apply_mask must be called before it.')
    masked = _product(mask, weights, is_probe)
    _register(weights, mask, threshold, masked, is_probe)
  return masked


def _by_scope(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
  """{scope: its variable}, in their order; they may be listed repeatedly."""
  found: dict[str, tf.Variable] = {}
  for variable in variables:
    scope = scope_of(variable)
    known = found.setdefault(scope, variable)
    if replicas.name_of(known) != replicas.name_of(variable):
      raise ValueError(
          f'{known.name} and {variable.name} lie in one scope, {scope!r}; '
          'each masked layer needs a scope of its own.')
  return found


def masked_triples() -> list[MaskedTriple]:
  """The masked layers of the default graph, paired by scope.

  Raises:
    ValueError: a mask has no weights or no masked weights, or a scope has two
      of them; names the variables.
  """
  weights_of = _by_scope(get_weights())
  masked_of = {
      m.op.name.rsplit('/' + _MASKED_WEIGHT_OP, 1)[0]: m
      for m in reversed(get_masked_weights())
  }
  triples = []
  for scope, mask in _by_scope(get_masks()).items():
    weights = weights_of.get(scope)
    masked = None
    if weights is not None:
      masked = masked_of.get(replicas.name_of(weights))
    if masked is None:
      raise ValueError(
          f'The mask {mask.name} has no weights registered under its scope '
          f'{scope!r}. Registered scopes: {sorted(weights_of)}.')
    triples.append(MaskedTriple(weights, mask, masked))
  return triples


def dense_gradient_source(layer: MaskedTriple) -> tf.Variable | tf.Tensor:
  """What to differentiate a loss by to get the layer's dense gradient.

  Args:
    layer: one of `masked_triples()`.
  """
  if _is_probe(layer.mask):
    return layer.mask
  return replicas.counterpart(layer.masked_weights, layer.weights)


def get_weight_sparsity() -> list[tf.Tensor]:
  """Sparsity of each masked layer, float32 scalars in [0, 1]."""
  return [tf.nn.zero_fraction(mask) for mask in get_masks()]

"""The registry of masked layers: graph collections, and the only reader of
them.

A masked layer is a triple (weights, mask, masked weights) that belongs
together by scope: `<scope>/weights`, `<scope>/mask` and the tensor
`<scope>/weights/masked_weight`. A layer that is used again, by reuse of its
variables, uses that tensor again.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

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


@tf.custom_gradient
def _product(mask: tf.Tensor, weights: tf.Tensor) -> Any:
  """mask * weights, which hands the dense gradient on to the mask.

  The gradient of the product is what growth ranks. A mask is a variable, so
  its gradient sums over all uses of the layer, inside of loops too, where the
  product itself cannot be differentiated by.
  """
  return mask * weights, lambda dense: (dense, mask * dense)


def apply_mask(weights: tf.Variable, mask: Optional[tf.Variable] = None,
               threshold: Optional[tf.Variable] = None) -> tf.Tensor:
  """Returns mask * weights and registers the layer unless it already is.

  With the weights alone it gives any variable a mask: the kernel of a recurrent
  cell, say, or a projection of attention.

  The product is made once in a graph and computed once in a step. Inside a
  loop or a branch, as in `tf.nn.dynamic_rnn`, it belongs to that loop and is
  computed each time round; call this before the loop to compute it once.

  Args:
    weights: trainable variable [...].
    mask: 0/1 variable of the same shape; its type may differ. None makes one of
      ones beside the weights, with a threshold.
    threshold: scalar variable of gradual pruning; None with `mask`.

  Returns:
    tensor of the shape and type of `weights`, the only thing a forward pass
    should use: its gradient is the dense gradient.

  Raises:
    ValueError: the scope of the weights has a mask that is not theirs; or they
      are no ordinary variable of a graph.
  """
  if tf.executing_eagerly() or not hasattr(weights, 'op'):
    raise ValueError(
        f'Masks are for ordinary variables of a graph, not for {weights.name}. '
        'Build the layer in `with tf.Graph().as_default():`, outside of a '
        'scope with a partitioner.')
  if mask is None:
    mask, threshold = _mask_beside(weights)
  masked = _find_tensor(f'{weights.op.name}/{_MASKED_WEIGHT_OP}:0')
  if masked is None:
    dtype = weights.dtype.base_dtype
    # A mask of another type would round the gradient, or have none.
    is_probe = mask.dtype.base_dtype == dtype
    with tf.name_scope(weights.op.name + '/'):
      if is_probe:
        masked = tf.identity(
            _product(mask, weights), name=_MASKED_WEIGHT_OP)
        tf.add_to_collection(_PROBES, mask)
      else:
        masked = tf.multiply(
            tf.cast(mask, dtype), weights, name=_MASKED_WEIGHT_OP)
  if not any(known is mask for known in get_masks()):
    tf.add_to_collection(MASKS, mask)
    tf.add_to_collection(MASKED_WEIGHTS, masked)
    tf.add_to_collection(THRESHOLDS, threshold)
    tf.add_to_collection(KERNEL, weights)
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
  if any(mask is layer.mask for mask in tf.get_collection(_PROBES)):
    return layer.mask
  # Of another type than the weights, or multiplied by another library.
  return replicas.counterpart(layer.masked_weights, layer.weights)


def get_weight_sparsity() -> list[tf.Tensor]:
  """Sparsity of each masked layer, float32 scalars in [0, 1]."""
  return [tf.nn.zero_fraction(mask) for mask in get_masks()]

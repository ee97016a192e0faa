"""Which layers a Keras model calls, and on which shapes.

For Keras 2, which comes with TensorFlow 2.15, and Keras 3, which comes with
TensorFlow 2.16 and later. What differs between them stands at the end of this
module. They are told apart by what an object has, not by a version, since both
may be installed; neither is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rigl.micronet import keras_layers
from rigl.micronet.keras_layers import NotCounted

# The input shape, or one for each input, and the output shape of a call.
Shapes = tuple[Any, Any]


def calls(model: Any) -> Iterator[tuple[Any, Shapes | None]]:
  """Yields (layer, shapes) for each call inside a model.

  Only a functional model knows the shapes of its calls; None stands for others.

  Args:
    model: a Keras model, a layer, or a list of layers.
  """
  if isinstance(model, (list, tuple)):
    yield from ((layer, None) for layer in model)
  elif _is_functional(model):
    yield from _functional_calls(model)
  elif children(model):
    yield from ((layer, None) for layer in children(model))
  else:
    yield model, None


def children(layer: Any) -> list[Any]:
  """Returns the layers directly inside a layer or model.

  Args:
    layer: a Keras layer or model.
  """
  if getattr(layer, 'layers', None):
    return list(layer.layers)
  return _layers_inside(layer)


def input_shape(layer: Any) -> Any:
  """Returns the shape a layer was called or built with.

  Args:
    layer: a Keras layer.

  Raises:
    NotCounted: it was neither, or Keras has not kept it.
  """
  shape = _symbolic_input_shape(layer)
  if shape is None:
    # Layers called eagerly keep the shape for saving only.
    config = getattr(layer, 'get_build_config', lambda: None)() or {}
    shape = config.get('input_shape')
  if shape is None:
    raise NotCounted(f'its input size is not known; {_hint(layer)}')
  return shape


def shapes_of(layer: Any) -> Shapes:
  """Returns the shapes of a layer by itself.

  Args:
    layer: a Keras layer.

  Raises:
    NotCounted: they are not known.
  """
  shape = input_shape(layer)
  try:
    return shape, tuple(layer.compute_output_shape(shape))
  # A layer of one's own may raise anything there.
  except Exception as error:
    message = ' '.join(str(error).split())
    raise NotCounted(f'its output size is not known: {message}') from error


def _is_functional(model: Any) -> bool:
  """Tells whether the outputs of a model come from layers inside it.

  In graph mode those of a subclassed model may come from the model itself.
  """
  outputs = getattr(model, 'outputs', None) or []
  histories = [getattr(output, '_keras_history', None) for output in outputs]
  inside = {id(layer) for layer in _operations(model)} if outputs else ()
  return bool(outputs) and all(
      history is not None and id(history[0]) in inside
      for history in histories)


def _functional_calls(model: Any) -> Iterator[tuple[Any, Shapes]]:
  """Follows the calls from the outputs back, yields them in layer order.

  A layer may also have been called outside this model, so the list of its calls
  is not enough.
  """
  inside = set()
  pending = []
  for output in model.outputs:
    layer, index = output._keras_history[:2]
    pending.append(layer._inbound_nodes[index])
  while pending:
    node = pending.pop()
    if node not in inside:
      inside.add(node)
      pending.extend(node.parent_nodes)
  for layer in _operations(model):
    for node in layer._inbound_nodes:
      if node in inside:
        yield layer, _node_shapes(node)


# From here on, what differs between Keras 2 and Keras 3. Public names are used
# where there are any. There are none in Keras 3 for the calls of a layer but
# the first, and for the layers inside one that is no model; `_keras_history`,
# `_inbound_nodes`, `parent_nodes` and `_flatten_layers` are in both.


def is_layer(operation: Any) -> bool:
  """Tells layers from the functions that a functional model may consist of.

  Keras 2 wraps these, such as the addition of `x + y`, in layers; in Keras 3
  they are objects without weights whose classes share names with layers.

  Args:
    operation: from `calls`.
  """
  return hasattr(operation, 'weights')


def kernel_name(layer: Any) -> str:
  """Returns the name of a layer's kernel, for example 'conv1/kernel:0'.

  That of Keras 2. There it stands in `name`, which in Keras 3 is only 'kernel';
  `path` has the scopes. They include the name of a sequential model, which
  Keras 2 leaves out, so only those of layers in subclassed models are taken:
  the others are called on symbolic tensors.

  Args:
    layer: a Keras layer with a kernel.

  Raises:
    NotCounted: it is not built.
  """
  kernel = keras_layers.kernel_of(layer)
  path = getattr(kernel, 'path', None)
  if path is None:
    return kernel.name
  scope, _, name = path.rpartition('/')
  if _symbolic_input_shape(layer) is not None:
    scope = layer.name
  if keras_layers.class_name(layer, ('DepthwiseConv1D', 'DepthwiseConv2D')):
    name = 'depthwise_kernel'
  return f'{scope}/{name}:0'


def _operations(model: Any) -> list[Any]:
  """Everything that a functional model calls; in Keras 2 these are layers."""
  # A model of one's own may have an attribute of that name with Keras 2.
  if isinstance(getattr(type(model), 'operations', None), property):
    return model.operations
  return list(getattr(model, 'layers', ()))


def _layers_inside(layer: Any) -> list[Any]:
  """The layers directly inside a layer that is no model."""
  if not hasattr(layer, 'submodules'):  # Keras 3
    flatten = getattr(layer, '_flatten_layers', lambda **_: ())
    return list(flatten(include_self=False, recursive=False))
  inside = [
      module for module in layer.submodules
      if hasattr(module, 'weights') and not hasattr(module, 'update_state')
  ]
  deeper = {id(inner) for module in inside for inner in module.submodules}
  return [module for module in inside if id(module) not in deeper]


def _symbolic_input_shape(layer: Any) -> Any:
  """The shape of the symbolic tensors a layer was called on, None for none."""
  try:
    if not hasattr(type(layer), 'input_shape'):  # Keras 3
      return _shapes(layer.input)
    return layer.input_shape
  except (AttributeError, RuntimeError):
    return None


def _hint(layer: Any) -> str:
  """What to do where the input size of a layer is not known."""
  keeps_none = (  # Keras 3
      not hasattr(type(layer), 'input_shape') and layer.built
      and not layer.weights)
  if keeps_none:
    return ('Keras 3 keeps none of a layer without weights in a subclassed '
            'model, so call this layer once on a keras.Input')
  return 'call the model once on an input'


def _node_shapes(node: Any) -> Shapes:
  """The shapes of one call."""
  if hasattr(node, 'input_shapes'):  # Keras 2
    return node.input_shapes, node.output_shapes
  # The first argument, as in Keras 2. The call of an input layer has none.
  inputs = node.arguments.args[0] if node.arguments.args else node.input_tensors
  return _shapes(inputs), _shapes(node.output_tensors)


def _shapes(tensors: Any) -> Any:
  """The shape of a tensor, or a list of them if there are several."""
  if isinstance(tensors, dict):
    tensors = list(tensors.values())
  if not isinstance(tensors, (list, tuple)):
    return tuple(getattr(tensors, 'shape', None) or ())  # () of a number.
  shapes = [_shapes(tensor) for tensor in tensors]
  return shapes[0] if len(shapes) == 1 else shapes

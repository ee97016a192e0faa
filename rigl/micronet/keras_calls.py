"""Records which layers a Keras model calls, and on which shapes.

Keras has no hooks, and subclassed or nested models do not store their calls. So
`trace` runs the model once, symbolically on one example, and records every call
of a layer; see `keras_tracers`.

For Keras 2, which comes with TensorFlow 2.15, and Keras 3, which comes with
TensorFlow 2.16 and later and also runs on JAX. Both may be installed, so
objects are distinguished by their attributes, not by a version. Neither is
imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from rigl.micronet import keras_rules, keras_tracers
from rigl.micronet.keras_rules import NotCounted, Shape

# Models that store the layers they call.
_GRAPHS = ('Functional', 'Sequential')


@dataclasses.dataclass
class Call:
  """One call of a layer.

  Attributes:
    layer: the Keras layer, model or function that was called.
    inner: the calls that it made, in order.
    inputs: the shape of each tensor in its first argument.
    output: the shape of its first output.
    arithmetic: kinds of operations with FLOPs in it, outside inner calls.
    in_loop: whether it is inside a loop or a branch of the graph.
  """

  layer: Any
  inner: list[Call] = dataclasses.field(default_factory=list)
  inputs: tuple[Shape, ...] = ()
  output: Shape = ()
  arithmetic: tuple[str, ...] = ()
  in_loop: bool = False


def trace(layer: Any) -> Call:
  """Returns the call of a layer or model on one example.

  Sizes come from the inputs of a functional model, otherwise from the first
  call or from building the layer.

  Raises:
    NotCounted: its inputs are not known, or the backend cannot trace it.
  """
  tracer, root = keras_tracers.of(layer), Call(None)

  def call_layer(arguments: Any) -> None:
    args, kwargs = arguments
    with _recording(root, layer, tracer):
      layer(*args, **kwargs)

  arguments = _arguments(layer)
  try:
    tracer.run(layer, arguments, call_layer)
  except NotCounted:
    raise
  # A layer may raise any error.
  except Exception as error:
    message = textwrap.shorten(str(error), 200, placeholder=' ...')
    raise NotCounted(f'{tracer.name} cannot trace it: {message}') from error
  return root.inner[0]


@contextlib.contextmanager
def _recording(root: Call, layer: Any, tracer: Any) -> Iterator[None]:
  """Adds the calls of layers, in the Keras of `layer`, to `root`."""
  stack = [root]

  def recorded(layer: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
    if stack[-1].layer is layer:  # A layer of Keras 3 calls its base class.
      return original(layer, *args, **kwargs)
    call = Call(layer)
    stack[-1].inner.append(call)
    stack.append(call)
    with tracer.scope(call):
      if keras_rules.kind_of(layer)[0] in _GRAPHS:
        # Keras 2 allows a model around one of another size, with a warning,
        # but its `__call__` fails.
        outputs = layer.call(*args, **kwargs)
      else:
        outputs = original(layer, *args, **kwargs)
    stack.pop()
    call.inputs = _shapes(tracer, args[0] if args else list(kwargs.values())[:1])
    call.output = next(iter(_shapes(tracer, outputs)), ())
    return outputs

  bases: dict[str, Any] = {cls.__name__: cls for cls in reversed(keras_rules.keras_classes(layer))}
  # In Keras 3 functions inside a model are operations, like layers.
  originals = {
    bases[name]: bases[name].__call__ for name in ('Layer', 'Operation') if name in bases
  }
  for base, original in originals.items():
    base.__call__ = functools.partialmethod(recorded, original)
  try:
    yield
  finally:
    for base, original in originals.items():
      base.__call__ = original


def _shapes(tracer: Any, tensors: Any) -> tuple[Shape, ...]:
  """The shape of each tensor in a structure; () for other objects."""
  return tuple(map(keras_tracers.dimensions, tracer.flatten(tensors)))


def _arguments(layer: Any) -> tuple[Any, Any]:
  """The (args, kwargs) of the call of a layer, as stored by Keras.

  Objects with a shape stand for tensors.

  Raises:
    NotCounted: Keras stores no call, or several of different sizes.
  """
  kind, _ = keras_rules.kind_of(layer)
  if kind == 'Functional':
    return (layer.input,), {}
  if kind == 'Sequential' and getattr(layer, 'inputs', None):
    return (layer.inputs[0],), {}
  # Only the first call of a layer has a public name.
  calls = [_node_arguments(node) for node in layer._inbound_nodes]
  tracer = keras_tracers.of(layer)
  sizes = {tuple(shape[1:] for shape in _shapes(tracer, call)) for call in calls}
  if len(sizes) > 1:
    raise NotCounted(f'it is called on inputs of {len(sizes)} sizes; count a model that calls it')
  if calls:
    return calls[0]
  spec = getattr(layer, 'save_spec', lambda: None)()  # Models of Keras 2.
  if spec is not None:
    return spec
  # Layers called on values store shapes only for saving.
  config = getattr(layer, 'get_build_config', lambda: None)() or {}
  if config.get('input_shape') is not None:
    return (_stand_ins(config['input_shape']),), {}
  if config.get('shapes_dict'):  # Keras 3
    return (), {
      name[: -len('_shape')]: _stand_ins(shape) for name, shape in config['shapes_dict'].items()
    }
  raise NotCounted(
    'its input size is not known; call the model once on an '
    'input, or a layer by itself once on a keras.Input'
  )


def _node_arguments(node: Any) -> tuple[Any, Any]:
  if hasattr(node, 'arguments'):  # Keras 3
    return node.arguments.args, node.arguments.kwargs
  return node.call_args, node.call_kwargs


def _stand_ins(shapes: Any) -> Any:
  """Replaces each shape in a structure by an object that has it."""
  if isinstance(shapes, dict):
    return {name: _stand_ins(shape) for name, shape in shapes.items()}
  if any(isinstance(shape, (list, tuple, dict)) for shape in shapes):
    return [_stand_ins(shape) for shape in shapes]
  return types.SimpleNamespace(shape=shapes)


def input_shape(layer: Any) -> Shape:
  """Returns the shape of the input that a layer was called on or built for.

  Raises:
    NotCounted: it is not known, or the layer has inputs of several sizes.
  """
  return _shapes(keras_tracers.of(layer), _arguments(layer))[0]


def children(layer: Any) -> list[Any]:
  """Returns the layers directly inside a layer or model."""
  # Keras 3 has no public name for layers inside a layer.
  return list(
    getattr(layer, 'layers', None) or layer._flatten_layers(include_self=False, recursive=False)
  )


def kernel_name(layer: Any) -> str:
  """Returns the name of a layer's kernel, for example 'conv1/kernel:0'.

  The name in Keras 2. In Keras 3 `name` is only 'kernel', and `path` has the
  scopes, including the name of a sequential model, which Keras 2 leaves out. So
  scopes are used only in subclassed models, whose layers are not called on
  symbolic tensors.

  Raises:
    NotCounted: it is not built.
  """
  kernel = keras_rules.kernel_of(layer)
  path = getattr(kernel, 'path', None)
  if path is None:
    return kernel.name
  scope, _, name = path.rpartition('/')
  if layer._inbound_nodes:
    scope = layer.name
  if keras_rules.kind_of(layer)[0] in ('DepthwiseConv1D', 'DepthwiseConv2D'):
    name = 'depthwise_kernel'
  return f'{scope}/{name}:0'

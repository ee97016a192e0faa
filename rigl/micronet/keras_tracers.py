"""Runs a Keras layer symbolically, on each backend.

Keras 3 runs on TensorFlow or JAX, Keras 2 on TensorFlow. A layer has already
loaded its backend, so this module imports neither that nor Keras.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rigl.micronet.keras_rules import NotCounted, Shape, keras_classes

# Operations that are free by the rules: they move, select or compare values.
_FREE_OPERATIONS = frozenset(
  """
    BroadcastTo Cast ConcatV2 Const DepthToSpace EnsureShape ExpandDims Fill GatherNd
    GatherV2 Identity IdentityN Max MaxPool Maximum Min Minimum MirrorPad OneHot OnesLike
    Pack Pad PadV2 Placeholder PlaceholderWithDefault PreventGradient ReadVariableOp Reshape
    ResourceGather ReverseV2 SelectV2 Slice SpaceToDepth Split SplitV Squeeze StopGradient
    StridedSlice Tile Transpose Unpack ZerosLike
  """.split()
)
_FREE_PRIMITIVES = frozenset(
  """
    argmax argmin broadcast_in_dim concatenate convert_element_type copy dynamic_slice
    dynamic_update_slice gather iota max min pad reduce_max reduce_min reduce_window_max
    reduce_window_min reshape rev select_n slice split squeeze stop_gradient transpose
  """.split()
)
_LOOPS = ('cond', 'scan', 'while')


def of(layer: Any) -> TensorFlow | Jax:
  """The tracer for the backend that a layer or model runs on.

  Raises:
    NotCounted: the backend is not supported.
  """
  package = keras_classes(layer)[-1].__module__.partition('.')[0]
  # Keras 2 and tf.keras may lack this name; they have only one backend.
  backend = getattr(sys.modules.get(package), 'backend', None)
  name = getattr(backend, 'backend', lambda: 'tensorflow')()
  known: dict[str, type[TensorFlow | Jax]] = {'tensorflow': TensorFlow, 'jax': Jax}
  if name not in known:
    raise NotCounted(f'the Keras backend {name!r} cannot be traced, only {" and ".join(known)}')
  return known[name]()


class TensorFlow:
  """Traces in a temporary graph."""

  name = 'TensorFlow'

  def __init__(self):
    from rigl.compat import tf, tf2

    self._tf, self._tf2 = tf, tf2
    self.flatten: Callable[[Any], list[Any]] = tf.nest.flatten
    self._graph: Any = None
    self._seen: set[Any] = set()

  def run(self, layer: Any, arguments: Any, function: Callable[[Any], None]) -> None:
    """Runs function(arguments), which calls the layer, on one example of each tensor.

    In the structure of arguments, objects with a shape stand for tensors.
    """
    tf = self._tf

    def one_example(value: Any) -> Any:
      if not hasattr(value, 'shape'):
        return value
      return tf.placeholder(_dtype(value), _one_example(value))

    def build() -> None:
      examples = tf.nest.map_structure(one_example, arguments)
      # Keras 3 names a class _Block __block, which is allowed only as the name
      # of an inner scope.
      with tf.name_scope('example'):
        self._graph = tf.get_default_graph()
        function(examples)

    # In graph mode the variables may not belong to the default graph.
    graph = getattr(next(iter(layer.weights), None), 'graph', None)
    # A tf.function that was traced before would not call its layers.
    config = self._tf2.config
    were_eager = config.functions_run_eagerly()
    config.run_functions_eagerly(True)
    try:
      with graph.as_default() if graph else contextlib.nullcontext():
        tf.wrap_function(build, [])
    finally:
      config.run_functions_eagerly(were_eager)

  @contextlib.contextmanager
  def scope(self, call: Any) -> Iterator[None]:
    """A context that sets `arithmetic` and `in_loop` of a call; inner scopes are left out."""
    call.in_loop = self._tf.get_default_graph() is not self._graph
    n_before = len(self._graph.get_operations())
    yield
    own = set(self._graph.get_operations()[n_before:]) - self._seen
    self._seen.update(own)
    kinds = {
      operation.type
      for operation in own
      if any(_is_number(output.dtype.name, output.shape.rank or 0) for output in operation.outputs)
    }
    call.arithmetic = tuple(sorted(kinds - _FREE_OPERATIONS))


class Jax:
  """Traces a jaxpr, in which named scopes tell the calls apart."""

  name = 'JAX'

  def __init__(self):
    self._keras, self._jax = sys.modules['keras'], sys.modules['jax']
    self.flatten: Callable[[Any], list[Any]] = self._keras.tree.flatten
    self._calls: list[Any] = []
    self._names: list[set[str]] = []

  def run(self, layer: Any, arguments: Any, function: Callable[[Any], None]) -> None:
    """See TensorFlow.run.

    Raises:
      NotCounted: a size is not known, which JAX cannot trace.
    """
    del layer
    tree = self._keras.tree
    leaves = tree.flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if hasattr(leaf, 'shape')]

    def build(*examples: Any) -> None:
      for place, example in zip(places, examples):
        leaves[place] = example
      function(tree.pack_sequence_as(arguments, leaves))

    shapes = [_one_example(leaves[place]) for place in places]
    if any(None in shape for shape in shapes):
      raise NotCounted('its input size is not known')
    examples = [
      self._jax.ShapeDtypeStruct(shape, _dtype(leaves[place]))
      for place, shape in zip(places, shapes)
    ]
    # In this scope a call does not assign variables.
    with self._keras.StatelessScope():
      jaxpr = self._jax.make_jaxpr(build)(*examples)
    self._visit(jaxpr.jaxpr, None, in_loop=False)
    for call, names in zip(self._calls, self._names):
      call.arithmetic = tuple(sorted(names))

  @contextlib.contextmanager
  def scope(self, call: Any) -> Iterator[None]:
    """See TensorFlow.scope; the call gets its values at the end of `run`."""
    self._calls.append(call)
    self._names.append(set())
    with self._jax.named_scope(f'rigl_call_{len(self._calls) - 1}_'):
      yield

  def _visit(self, jaxpr: Any, outer: int | None, in_loop: bool) -> None:
    """Reads the scopes of equations; inner jaxprs start new scopes."""
    for equation in jaxpr.eqns:
      stack = str(equation.source_info.name_stack)
      scopes = [int(n) for n in re.findall(r'rigl_call_(\d+)_', stack)]
      for scope in scopes:
        self._calls[scope].in_loop |= in_loop
      number = scopes[-1] if scopes else outer
      name = equation.primitive.name
      inner = [body for value in equation.params.values() for body in _jaxprs(value)]
      is_loop = name in _LOOPS
      for body in inner:
        self._visit(body, number, in_loop or is_loop)
      computes = is_loop or not inner and name not in _FREE_PRIMITIVES
      if (
        number is not None
        and computes
        and any(_is_number(output.aval.dtype.name, output.aval.ndim) for output in equation.outvars)
      ):
        self._names[number].add(name)


def _jaxprs(value: Any) -> list[Any]:
  """The functions among the parameters of a primitive."""
  values = value if isinstance(value, (list, tuple)) else [value]
  bodies = [getattr(one, 'jaxpr', one) for one in values]
  return [body for body in bodies if hasattr(body, 'eqns')]


def _is_number(dtype: str, rank: int) -> bool:
  """Whether a result takes FLOPs.

  An integer, or a vector of them, is a shape.
  """
  if dtype.startswith(('bool', 'string', 'resource', 'key')):
    return False
  return rank > 1 or not dtype.startswith(('int', 'uint'))


def _dtype(value: Any) -> Any:
  return getattr(value, 'dtype', 'float32')


def _one_example(value: Any) -> Any:
  shape = dimensions(value)
  return (1, *shape[1:]) if shape else shape


def dimensions(tensor: Any) -> Shape:
  """The shape of a tensor, with None where it is not known; () for other objects."""
  shape: Any = getattr(tensor, 'shape', ())
  if hasattr(shape, 'as_list'):
    return (None,) if shape.rank is None else tuple(shape.as_list())
  return tuple(shape)

"""Gets the network from a model, a file or the folder of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from rigl import checkpoint_files
from rigl.compat import tf2
from rigl.core import messages
from rigl.inference import saved_models

_HALVES = ('float16', 'bfloat16')
_OPTIONS = (
  'a Keras model, a .keras file, a .tflite file, the folder of a SavedModel or the folder of a run'
)


def concrete_function(source: Any) -> tuple[Any, dict[str, str]]:
  """The network of a model or a path as a function of one example, batch of 1, to its logits.

  Returns:
    (concrete function of TensorFlow with one input, {scope of a layer in it: name of the layer}).
    The second has the scopes of Keras models only, whose scopes have other numbers than layers.

  Raises:
    ValueError: the source is not one of these, or has several inputs or
      outputs; names them.
  """
  if not isinstance(source, (str, os.PathLike)):
    return _of_keras(source)
  path = os.path.expanduser(os.fspath(source))
  if path.endswith('.keras'):
    return _of_keras(_read_keras(path))
  if not os.path.isdir(path):
    what = 'is another file' if os.path.exists(path) else 'does not exist'
    raise ValueError(f'{path} {what}. export takes {_OPTIONS}.')
  if saved_models.is_one(path):
    return saved_models.concrete_function(path), {}
  return _of_run(path), {}


def _read_keras(path: str) -> Any:
  if not os.path.exists(path):
    raise ValueError(f'{path} does not exist.')
  # Load TensorFlow without its log, before Keras loads it.
  _ = tf2.__version__
  import keras

  try:
    return keras.models.load_model(path, compile=False)
  except Exception as error:
    raise ValueError(f'Cannot read {path}: {error}') from error


@contextlib.contextmanager
def _in_float32(model: Any) -> Iterator[None]:
  """A context in which layers of mixed precision compute in float32, as LiteRT does."""
  policies = {
    layer: layer.dtype_policy for layer in model._flatten_layers() if layer.compute_dtype in _HALVES
  }
  try:
    for layer in policies:
      layer.dtype_policy = 'float32'
    yield
  finally:
    for layer, policy in policies.items():
      layer.dtype_policy = policy


def _check_exportable(model: Any) -> None:
  """Raises ValueError for a Keras model that TensorFlow's converter cannot read; says why."""
  import keras

  if keras.backend.backend() != 'tensorflow':
    raise ValueError(
      f'export needs Keras on TensorFlow, but it runs on {keras.backend.backend()}. Save the model '
      'and run: python -m rigl.inference export model.keras --output=model.tflite'
    )
  halves = [v.path for v in model.variables if v.dtype in _HALVES]
  if halves:
    raise ValueError(
      f'{messages.first_few(halves, 3)} are stored in 16 bits. Build the model with a policy that '
      'stores float32, such as mixed_bfloat16, and give it these weights by set_weights.'
    )
  quantized = [
    layer.name for layer in model._flatten_layers() if getattr(layer, 'quantization_mode', None)
  ]
  if quantized:
    raise ValueError(
      f'model.quantize has changed {messages.first_few(quantized, 3)}, whose weights the converter '
      "cannot read. Export the model before; quantize='int8' of export rounds its weights."
    )


def _of_keras(model: Any) -> tuple[Any, dict[str, str]]:
  inputs = getattr(model, 'inputs', None)
  if not callable(model) or not inputs:
    raise ValueError(
      f'export takes {_OPTIONS}, got {model!r:.200}. A Keras model needs a '
      'keras.Input, so that its input shape is known.'
    )
  if len(inputs) != 1 or len(model.outputs) != 1:
    raise ValueError(
      f'{model.name!r} has {len(inputs)} inputs and '
      f'{len(model.outputs)} outputs; export takes one each.'
    )
  _check_exportable(model)
  with _in_float32(model):
    function = saved_models.of_fixed_size(
      lambda batch: model(batch, training=False), inputs[0].shape[1:], inputs[0].dtype, model.name
    )
  # A layer reads 'kernel' of its path in an operation of its scope.
  paths = {id(variable.value.handle): variable.path.split('/') for variable in model.variables}
  layers = {
    tensor.op.name.split('/')[-4]: paths[id(handle)][-2]
    for handle, tensor in function.graph.captures
    if len(paths.get(id(handle), ())) > 1 and tensor.op.name.count('/') > 2
  }
  return function, layers


def _of_run(path: str) -> Any:
  """The newest export in the folder of a run, or its newest checkpoint."""
  exports = os.path.join(path, 'export')
  names = os.listdir(exports) if os.path.isdir(exports) else []
  for step in sorted((int(name) for name in names if name.isdigit()), reverse=True):
    if saved_models.is_one(os.path.join(exports, str(step))):
      return saved_models.concrete_function(os.path.join(exports, str(step)))
  if checkpoint_files.latest(path) is None:
    raise ValueError(
      f'{path} holds neither a SavedModel nor a run: there is no checkpoint in '
      f'it.{checkpoint_files.runs_below(path)} export takes {_OPTIONS}.'
    )
  from rigl.inference import runs

  return runs.concrete_function(path)

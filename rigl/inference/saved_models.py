"""Gets the network from a SavedModel."""

from __future__ import annotations

import os
from typing import Any

from rigl.compat import tf2

_FILES = ('saved_model.pb', 'saved_model.pbtxt')
# Name of the logits among the outputs of a signature.
_LOGITS = 'logits'


def is_one(path: str) -> bool:
  """Whether a folder holds a SavedModel."""
  return any(os.path.exists(os.path.join(path, name)) for name in _FILES)


def concrete_function(path: str) -> Any:
  """The network of the SavedModel in a folder as a function of one example.

  Raises:
    ValueError: it does not have one input and one output, or logits.
  """
  loaded = tf2.saved_model.load(path)
  signatures = loaded.signatures
  if 'serving_default' not in signatures:
    raise ValueError(
      f'{path} has no signature serving_default, but {sorted(signatures) or "none"}.'
    )
  signature = signatures['serving_default']
  inputs = signature.structured_input_signature[1]
  outputs = signature.structured_outputs
  if _LOGITS in outputs:
    output = _LOGITS
  elif len(outputs) == 1:
    (output,) = outputs
  else:
    raise ValueError(
      f'serving_default of {path} has the outputs {sorted(outputs)}, none of which is {_LOGITS}.'
    )
  if len(inputs) != 1:
    raise ValueError(
      f'serving_default of {path} has the inputs {sorted(inputs)}; export takes one.'
    )
  ((name, spec),) = inputs.items()

  def network(batch):
    return signature(**{name: batch})[output]

  function = of_fixed_size(network, spec.shape[1:], spec.dtype, path)
  # Keeps the loaded object, and thus the variables, alive.
  function.loaded = loaded
  return function


def of_fixed_size(network: Any, shape: Any, dtype: Any, name: str) -> Any:
  """A function of a batch as a concrete function of one example of this shape.

  Raises:
    ValueError: a size of the shape is not known.
  """
  if any(size is None for size in shape):
    raise ValueError(
      f'{name} takes inputs of the shape {list(shape)}. Give it an input of a fixed size to '
      'export it.'
    )
  spec = tf2.TensorSpec([1, *shape], tf2.as_dtype(dtype), name='inputs')
  function = tf2.function(network, autograph=False).get_concrete_function(spec)
  # A SavedModel of TensorFlow 1 has collections of variables, whose
  # initializers the converter would look for.
  for collection in list(function.graph.collections):
    function.graph.clear_collection(collection)
  return function

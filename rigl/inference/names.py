"""Short names of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Parts of TensorFlow's names of operations with weights.
_OPERATIONS = ('onv', 'MatMul', 'BiasAdd', 'depthwise')


def short_names(names: Sequence[str], layers: Mapping[str, str]) -> list[str]:
  """Names of layers, from the converter's names of their outputs.

  The converter joins the names of all fused operations with their scopes:
  'model/relu/Relu;model/conv1/convolution'. `layers` are those of `sources.concrete_function`.
  """
  short, seen = [], set()
  for i, name in enumerate(names):
    scopes = [part.split('/') for part in name.split(';')]
    known = [
      scope[-2]
      for scope in scopes
      if len(scope) > 1 and any(word in scope[-1] for word in _OPERATIONS)
    ]
    choice = layers.get(known[0], known[0]) if known else f'layer_{i}'
    if choice in seen:
      choice = f'{choice}_{i}'
    seen.add(choice)
    short.append(choice)
  return short

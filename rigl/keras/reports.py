"""The sparsity of a model, and what it saves."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from rigl import console
from rigl.keras import kernel_variables, selection
from rigl.keras.layers import check_built
from rigl.micronet import formatting, keras_counting, network


def sparsity_of(model: Any) -> float:
  """The share of zeros in the kernels that are sparse by default.

  Counts zeros in the weights, so any trained or loaded model will do.

  Raises:
    ValueError: the model is not built, or has no such kernel.
  """
  check_built(model, 'sparsity_of')
  values = [kernel_variables.read(v) for v in model.weights if selection.is_kernel(v)]
  if not values:
    raise ValueError(
      f'{model.name!r} has no kernel that is sparse by default, only '
      f'{", ".join(v.path for v in model.weights)}.'
    )
  n_zeros = sum(int(np.sum(value == 0)) for value in values)
  return n_zeros / sum(value.size for value in values)


def summary(
  model: Any, param_size: int = 32, print_fn: Callable[[str], Any] = console.show
) -> None:
  """Prints the cost of each layer, given the zeros in its weights.

  FLOPs and bytes are counted as in rigl.micronet, for inference on one example.
  Zeros are neither multiplied nor stored, but a bit per weight tells where they
  are.

  Args:
    model: a built model.
    param_size: bits of a stored value.
    print_fn: called with the text, as in `model.summary`.

  Raises:
    ValueError: the model is not built.
  """
  check_built(model, 'summary')
  sparse = keras_counting.count_model(model, counts_zeros=True, param_size=param_size)
  dense = keras_counting.count_model(model, param_size=param_size)
  rows = [_row(layer.name, layer) for layer in sparse.count.layers]
  lacks_weights = any(note.n_weights for note in sparse.not_counted)
  total = 'total of these' if lacks_weights else 'total'
  rows += [_row(total, sparse.count), _row(f'{total} if dense', dense.count)]
  lines = [
    f'Model: "{model.name}"',
    formatting.text_table(('layer', 'shape', 'density', 'FLOPs', 'bytes'), rows, n_left=2),
  ]
  if sparse.not_counted:
    lines.append('Not in these numbers:')
  for note in sparse.not_counted:
    lines.append(f'  {note.name} ({note.kind}), {note.n_weights:,} weights: {note.reason}')
  print_fn('\n'.join(lines))


def _row(name: str, count: network.LayerCount | network.NetworkCount) -> list[str]:
  density = f'{count.n_kept / count.n_weights:.4f}' if count.n_weights else '-'
  return [
    name,
    formatting.shape_text(getattr(count, 'shape', ())),
    density,
    f'{count.flops:,.0f}',
    f'{count.n_bytes:,.0f}',
  ]

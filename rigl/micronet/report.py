"""Presents the count of a network: layers, totals, training cost."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

from rigl.micronet import formatting, training_flops
from rigl.micronet.network import LayerCount, NetworkCount


@dataclasses.dataclass(frozen=True)
class Report:
  """The content of a report.

  Attributes:
    title: name of the counted network.
    count: count of the sparse network.
    dense: the same network without masks.
    training: method -> FLOPs of training as a multiple of the dense training.
    delta_t: steps between mask updates, for `training`.
    length: length of the training, for `training`.
  """

  title: str
  count: NetworkCount
  dense: NetworkCount
  training: Mapping[str, float]
  delta_t: float
  length: float


def training_multiples(
  count: NetworkCount,
  dense: NetworkCount,
  delta_t: float,
  length: float,
  schedule: training_flops.PruningSchedule,
) -> dict[str, float]:
  """Returns the cost of training for every method.

  Gradual pruning ends at these masks. Until then the sparsities of all layers
  are scaled by the same factor, and FLOPs are linear in the sparsity.

  Returns:
    method -> multiple of the cost of training the dense network.
  """
  multiples = {
    method: training_flops.training_multiple(method, count.flops, dense.flops, delta_t, length)
    for method in training_flops.METHODS
    if method != 'prune'
  }
  saved = dense.flops - count.flops
  multiples['prune'] = training_flops.pruning_multiple(
    lambda progress: dense.flops - progress * saved, 1.0, schedule, length
  )
  return multiples


def render(report: Report, output_format: str, max_width: int | None = None) -> str:
  """Renders a report.

  Args:
    report: what to show.
    output_format: one of `formatting.FORMATS`. JSON holds everything, CSV the
      layers only.
    max_width: greatest width of lines in a table; longer layer names go on in
      the next line.

  Returns:
    The text, ending in a line break.
  """
  if output_format == 'json':
    return formatting.json_text(_as_json(report))
  if output_format == 'csv':
    records = [_layer_record(layer) for layer in report.count.layers]
    for record in records:
      record['shape'] = formatting.shape_text(record['shape'])
    return formatting.csv_table(records)
  tables = (
    (('network', 'inference', 'size', 'weights'), _summary_rows(report)),
    (('training', f'length {report.length:g}'), _training_rows(report)),
  )
  if output_format == 'markdown':
    parts = [
      f'### {report.title}\n',
      formatting.markdown_table(*_layer_table(report, ''), n_left=2),
      *(formatting.markdown_table(*table) for table in tables),
    ]
  else:
    prefix = _common_scope([layer.name for layer in report.count.layers])
    scope = f' (names without {prefix})' if prefix else ''
    parts = [
      f'{report.title}{scope}\n',
      formatting.text_table(
        *_layer_table(report, prefix), n_left=2, max_width=max_width, has_total=True
      ),
      *(formatting.text_table(*table) for table in tables),
    ]
  note = (
    f'Training in multiples of one dense training, with '
    f'{report.delta_t:g} steps between mask updates.\n'
  )
  return '\n'.join([*parts, note])


def _common_scope(names: list[str]) -> str:
  """Returns the common scopes of all names, such as 'resnet_model/'."""
  scope, slash, _ = os.path.commonprefix(names).rpartition('/')
  return scope + slash


def _layer_table(report: Report, prefix: str) -> tuple[list[str], list[list[str]]]:
  """Returns the header and a row for each layer and for the total."""
  total = report.count
  unit, factor = ('MFLOPs', 1e6) if total.flops >= 1e7 else ('kFLOPs', 1e3)
  header = ['layer', 'shape', 'sparsity', 'density', 'weights', 'kept', unit, 'share', 'kB']

  def row(name: str, shape: str, sparsity: float, part: LayerCount | NetworkCount) -> list[str]:
    weights = ['-'] * 4
    if part.n_weights:
      weights = [f'{sparsity:.4f}', f'{1 - sparsity:.4f}']
      weights += [f'{part.n_weights:,}', f'{part.n_kept:,}']
    share = part.flops / total.flops if total.flops else 0.0
    cost = f'{part.flops / factor:,.3f}', f'{share:.1%}', f'{part.n_bytes / 1e3:,.2f}'
    return [name, shape, *weights, *cost]

  rows = [
    row(layer.name[len(prefix) :], formatting.shape_text(layer.shape), layer.sparsity, layer)
    for layer in total.layers
  ]
  rows.append(row('total', '', total.real_sparsity, total))
  return header, rows


def _summary_rows(report: Report) -> list[list[str]]:
  counts = {'sparse': report.count, 'dense': report.dense}
  rows = [
    [
      name,
      formatting.quantity(count.flops, 'FLOPs'),
      f'{count.megabytes:.3f} MB',
      f'{count.n_kept:,}',
    ]
    for name, count in counts.items()
  ]
  sparse, dense = counts.values()
  ratios = (
    sparse.flops / dense.flops,
    sparse.megabytes / dense.megabytes,
    sparse.n_kept / dense.n_kept,
  )
  rows.append(['ratio', *map(formatting.multiple, ratios)])
  return rows


def _training_rows(report: Report) -> list[list[str]]:
  """Returns rows of training costs; methods of equal cost share a row."""
  methods: dict[str, list[str]] = {}
  for method, value in report.training.items():
    methods.setdefault(formatting.multiple(value), []).append(method)
  return [[', '.join(names), value] for value, names in methods.items()]


def _layer_record(layer: LayerCount) -> dict[str, Any]:
  return {
    'name': layer.name,
    'kind': layer.kind,
    'shape': list(layer.shape),
    'sparsity': layer.sparsity,
    'density': 1 - layer.sparsity,
    'weights': layer.n_weights,
    'kept': layer.n_kept,
    'mults': layer.counts.n_mults,
    'adds': layer.counts.n_adds,
    'flops': layer.flops,
    'bytes': layer.n_bytes,
  }


def _as_json(report: Report) -> dict[str, Any]:
  count, dense = report.count, report.dense
  return {
    'title': report.title,
    'flops': count.flops,
    'bytes': count.n_bytes,
    'sparsity': count.real_sparsity,
    'weights': count.n_weights,
    'kept': count.n_kept,
    'dense_flops': dense.flops,
    'dense_bytes': dense.n_bytes,
    'inference_multiple': count.flops / dense.flops,
    'length': report.length,
    # JSON has no infinity.
    'delta_t': report.delta_t if math.isfinite(report.delta_t) else None,
    'training_multiples': dict(report.training),
    'layers': [_layer_record(layer) for layer in count.layers],
  }

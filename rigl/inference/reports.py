"""Reports of an export: bytes, FLOPs and zeros of each layer."""

from __future__ import annotations

import gzip
import math
from typing import Any, Optional

import numpy as np

from rigl.inference import graph as graphs
from rigl.inference import names, reading, tflite_files
from rigl.inference.exporting import Exported
from rigl.micronet import counting, formatting, network


def sizes(exported: Exported) -> dict[str, int]:
  """Bytes of the files, uncompressed and compressed."""
  return {
    'dense': len(exported.dense),
    'sparse': len(exported.sparse),
    'dense_gzip': len(gzip.compress(exported.dense, mtime=0)),
    'sparse_gzip': len(gzip.compress(exported.sparse, mtime=0)),
  }


def layers(exported: Exported) -> Optional[list[dict[str, Any]]]:
  """A record of each layer with weights; None if their operators are unknown.

  FLOPs are counted by the rules of the MicroNet Challenge, see `rigl.micronet.counting`.
  """
  try:
    return _records(exported)
  except (graphs.UnknownOperation, graphs.NotFloat32):
    return None


def _records(exported: Exported) -> list[dict[str, Any]]:
  dense, sparse = (
    reading.read_graph(tflite_files.read(data, exported.path), exported.path)
    for data in (exported.dense, exported.sparse)
  )
  before, after = _weighted(dense), _weighted(sparse)
  titles = names.short_names([node.name for node in before], exported.layers)
  full = network.count_network([_layer(name, node, dense) for name, node in zip(titles, before)])
  kept = network.count_network(
    [_layer(name, node, sparse) for name, node in zip(titles, after)],
    n_zeros={
      name: node.weights.size - np.count_nonzero(node.weights) for name, node in zip(titles, after)
    },
  )
  return [
    {
      'layer': name,
      'kind': a.kind,
      'shape': list(a.shape),
      'zeros': 1 - np.count_nonzero(node.weights) / node.weights.size,
      'stored_shape': list(b.shape),
      'dense_flops': a.flops,
      'sparse_flops': b.flops,
    }
    for name, node, a, b in zip(titles, before, full.layers, kept.layers)
  ]


def _weighted(graph: graphs.Graph) -> list[graphs.Node]:
  return [node for node in graph.nodes if node.weights is not None and node.name]


def _layer(name: str, node: graphs.Node, graph: graphs.Graph) -> network.Layer:
  height, width, n_outputs = graph.shapes[node.output]
  n_inputs = node.weights.shape[3] if node.kind == 'conv' else 1
  op = counting.DotProducts(
    n_weights=node.weights.size,
    vector_length=math.prod(node.kernel) * n_inputs,
    n_positions=height * width,
    n_channels=n_outputs,
    n_biases=n_outputs,
    activation=None if math.isinf(node.limits[0]) else 'relu',
  )
  if node.kind != 'conv':
    return network.Layer(name, op, (*node.kernel, n_outputs, 1), 'DepthwiseConv2D')
  if node.kernel == (1, 1) and height * width == 1:
    return network.Layer(name, op, (n_inputs, n_outputs), 'Dense')
  return network.Layer(name, op, (*node.kernel, n_inputs, n_outputs), 'Conv2D')


def as_record(exported: Exported) -> dict[str, Any]:
  """The report as a tree for JSON."""
  return {
    'path': exported.path,
    'bytes': sizes(exported),
    'removed_units': exported.n_removed,
    'layers': layers(exported),
  }


def render(exported: Exported) -> str:
  """The report as text."""
  try:
    table = _layer_table(_records(exported))
  except graphs.UnknownOperation as error:
    table = f'No layers are listed: there is no rule for {error}.\n'
  except graphs.NotFloat32 as error:
    table = f'No layers are listed: {error}\n'
  return (
    f'Wrote {exported.path}\n\n{table}\n{_size_table(sizes(exported))}\n'
    f'Units removed, which changed nothing: {exported.n_removed}\n'
  )


def _layer_table(records: list[dict[str, Any]]) -> str:
  """The records of `layers` as a table."""

  def flops(rows):
    keys = ('dense_flops', 'sparse_flops')
    return [formatting.quantity(sum(row[key] for row in rows), '') for key in keys]

  rows = [
    [row['layer'], row['kind'], formatting.shape_text(row['shape']), f'{row["zeros"]:.2%}']
    + flops([row])
    for row in records
  ]
  weights = [math.prod(row['shape']) for row in records]
  zeros = sum(row['zeros'] * n for row, n in zip(records, weights)) / (sum(weights) or 1)
  rows.append(['all', '', '', f'{zeros:.2%}', *flops(records)])
  header = ['layer', 'kind', 'shape', 'zeros', 'FLOPs dense', 'FLOPs sparse']
  return formatting.text_table(header, rows, n_left=2, has_total=True)


def _size_table(n_bytes: dict[str, int]) -> str:
  rows = [
    [
      title,
      f'{n_bytes["dense" + end]:,}',
      f'{n_bytes["sparse" + end]:,}',
      f'{n_bytes["dense"] / n_bytes["sparse" + end]:.2f}x',
    ]
    for title, end in (('as it is', ''), ('gzipped', '_gzip'))
  ]
  return formatting.text_table(['bytes of the file', 'dense', 'sparse', 'smaller than dense'], rows)

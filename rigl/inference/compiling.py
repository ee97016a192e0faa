"""Compiles a graph to steps for the kernels."""

from __future__ import annotations

import numpy as np

from rigl.inference import kernels, simplifying
from rigl.inference.graph import Graph, Node
from rigl.inference.layouts import GROUP, Layout, is_vector
from rigl.inference.programs import Program
from rigl.inference.steps import Steps


def make_program(graph: Graph, n_threads: int) -> Program:
  """Compiles a graph.

  Raises:
    ValueError: its activations exceed 2**31 values.
  """
  graph = simplifying.simplified(graph)
  return _Compiler(graph, n_threads).compile(graph)


class _Compiler(Steps):
  """Visits the nodes of a graph."""

  def compile(self, graph: Graph) -> Program:
    height, width, n = self.shapes[graph.input]
    start = self.arena.vector(height * width * n).base
    self.layouts[graph.input] = Layout(start, 1, width * n, n)
    last_uses = _last_uses(graph)
    for i, node in enumerate(graph.nodes):
      getattr(self, f'_compile_{node.kind}')(node)
      while self.temporary:
        self.arena.give_back(self.temporary.pop())
      for index, last in last_uses.items():
        if last == i and index in self.layouts:
          self.arena.give_back(self.layouts[index])
    return self.program(slice(start, start + height * width * n), graph.output)

  def _compile_conv(self, node: Node) -> None:
    if is_vector(self.shapes[node.output]):
      self._compile_vector(node)
      return
    places, plane = self.places_of_taps(node)
    n, n_inputs = len(node.weights), node.weights.shape[3]
    # Ordered by input channel, so that consecutive taps are close in memory.
    weights = node.weights.reshape(n, -1, n_inputs).transpose(0, 2, 1).reshape(n, -1)
    all_places = (np.arange(n_inputs)[:, None] * plane + places).ravel()
    residual = self.in_planes(node.inputs[1]) if len(node.inputs) > 1 else None
    if simplifying.shares_loads(node):
      self.add_shared(node, weights, all_places, residual)
      return
    kept, columns = np.nonzero(weights)
    values, offsets = weights[kept, columns], all_places[columns]
    if residual is not None:
      kept = np.concatenate([kept, np.arange(n)])
      order = np.argsort(kept, kind='stable')
      kept = kept[order]
      values = np.concatenate([values, np.ones(n)])[order]
      offsets = np.concatenate([offsets, residual.base + np.arange(n) * residual.channel])[order]
    self.add_sparse(node, kept, values, offsets)

  def _compile_depthwise(self, node: Node) -> None:
    if is_vector(self.shapes[node.output]):
      self._compile_vector(node)
      return
    places, plane = self.places_of_taps(node)
    n = self.shapes[node.output][2]
    multiplier = n // self.shapes[node.inputs[0]][2]
    weights = node.weights.reshape(-1, n).T
    kept, taps = np.nonzero(weights)
    offsets = places[taps] + kept // multiplier * plane
    self.add_sparse(node, kept, weights[kept, taps], offsets, is_channelwise=True)

  def _compile_add(self, node: Node) -> None:
    n = self.shapes[node.output][2]
    node.biases = np.zeros(n, np.float32)
    kept, ones = np.repeat(np.arange(n), 2), np.ones(2 * n)
    if is_vector(self.shapes[node.output]):
      offsets = np.stack([self.places(i).ravel() for i in node.inputs], 1)
      self.add_vector(node, kept, ones, offsets.ravel())
      return
    sources = [self.in_planes(index) for index in node.inputs]
    offsets = np.stack([layout.base + np.arange(n) * layout.channel for layout in sources], 1)
    self.add_sparse(node, kept, ones, offsets.ravel(), is_channelwise=True)

  def _compile_vector(self, node: Node) -> None:
    """Compiles a layer whose output has a single position."""
    shape = self.shapes[node.inputs[0]]
    places = self.places(node.inputs[0])
    n = self.shapes[node.output][2]
    ys, xs = (np.arange(node.kernel[i]) * node.dilations[i] - node.pads[i] for i in range(2))
    ys_in, xs_in = (
      np.nonzero((at >= 0) & (at < size))[0] for at, size in ((ys, shape[0]), (xs, shape[1]))
    )
    window = places[np.ix_(ys[ys_in], xs[xs_in])]
    if node.kind == 'conv':
      weights = node.weights[:, ys_in][:, :, xs_in].reshape(n, -1)
      kept, columns = np.nonzero(weights)
      offsets = window.ravel()[columns]
    else:
      weights = node.weights[ys_in][:, xs_in].reshape(-1, n).T
      kept, columns = np.nonzero(weights)
      multiplier = n // shape[2]
      offsets = window.reshape(-1, shape[2])[columns, kept // multiplier]
    self.add_vector(node, kept, weights[kept, columns], offsets)

  def _compile_pool(self, node: Node) -> None:
    shape, output = (self.shapes[i] for i in (node.inputs[0], node.output))
    size = output[:2]
    limits = node.limits
    if is_vector(output):
      source = self.layout_of(node.inputs[0])
      plane = source.channel
      places = np.array(
        [
          source.base + y * source.row + x * source.column
          for y in np.arange(node.kernel[0]) - node.pads[0]
          for x in np.arange(node.kernel[1]) - node.pads[1]
          if 0 <= y < shape[0] and 0 <= x < shape[1]
        ]
      )
      n_groups, row_stride = 0, 1
      if node.pads_count and node.kind == 'max_pool' and len(places) < np.prod(node.kernel):
        # Padding is one of the values.
        limits = (max(limits[0], 0.0), max(limits[1], 0.0))
    else:
      places, plane = self.places_of_taps(node)
      n_groups = self.planes.n_groups(size)
      row_stride = self.planes.row_stride(size)
    factor = -1
    if node.kind == 'average_pool':
      counts = np.ones((size[0], row_stride))
      counts[:, : size[1]] = np.outer(*(_n_inside(node, i, shape[i], size[i]) for i in range(2)))
      factors = np.ones(max(counts.size, n_groups * GROUP))
      factors[: counts.size] = 1 / counts.ravel()
      factor = self.factors.add(factors)
    layout = self.new_output(node)
    arguments = [self.add_taps([], places), n_groups, layout.base, layout.channel, plane]
    arguments += [*self.geometry(node), len(places), factor]
    self.add(kernels.POOL, arguments, np.ones(output[2]), limits)

  _compile_max_pool = _compile_average_pool = _compile_pool

  def _compile_mean(self, node: Node) -> None:
    height, width, n = self.shapes[node.inputs[0]]
    source = self.layout_of(node.inputs[0])
    target = self.new_output(node).base
    self.add(kernels.MEAN, [*source, height, width, target], np.ones(n))

  def _compile_flatten(self, node: Node) -> None:
    self.flat[node.output] = self.places(node.inputs[0]).reshape(1, 1, -1)

  def _compile_softmax(self, node: Node) -> None:
    source, n = self.layout_of(node.inputs[0]).base, self.shapes[node.output][2]
    self.add(kernels.SOFTMAX, [source, n, self.new_output(node).base], [1])


def _last_uses(graph: Graph) -> dict[int, int]:
  """{activation: number of the last node that reads it}."""
  last = {graph.output: len(graph.nodes)}
  for i, node in reversed(list(enumerate(graph.nodes))):
    use = last.get(node.output, i) if node.kind == 'flatten' else i
    for index in node.inputs:
      last[index] = max(last.get(index, 0), use)
  return last


def _n_inside(node: Node, axis: int, size: int, n_outputs: int) -> np.ndarray:
  """The number of rows (or columns) of each window inside the image."""
  if node.pads_count:
    return np.full(n_outputs, node.kernel[axis])
  starts = np.arange(n_outputs) * node.strides[axis] - node.pads[axis]
  return np.minimum(starts + node.kernel[axis], size) - np.maximum(starts, 0)

"""Compiles a graph to steps for the kernels."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from rigl.inference import blocks, kernels, layouts, simplifying
from rigl.inference.graph import Graph, Node
from rigl.inference.layouts import GROUP, Layout, Taps, is_vector
from rigl.inference.programs import Numbers, Program

_MAX_ARENA = 2**31 - 2**16
# Minimum number of groups of positions per thread.
_MIN_GROUPS = 6


def make_program(graph: Graph, n_threads: int) -> Program:
  """Compiles a graph.

  Raises:
    ValueError: its activations exceed 2**31 values.
  """
  return _Compiler(simplifying.simplified(graph), n_threads).compile()


class _Compiler:
  """Visits the nodes, allocates memory and writes steps."""

  def __init__(self, graph: Graph, n_threads: int) -> None:
    self._graph, self._n_threads = graph, n_threads
    self._shapes = graph.shapes
    self._planes = layouts.Planes(graph)
    self._arena = layouts.Arena()
    self._layouts: dict[int, Layout] = {}
    # Flattened images stay in place: {activation: offsets of its values}.
    self._flat: dict[int, np.ndarray] = {}
    self._steps: list[list[int]] = []
    self._limits: list[tuple[float, float]] = []
    self._cuts: list[np.ndarray] = []
    self._values, self._offsets = Numbers(np.float32), Numbers(np.int32)
    self._rows, self._biases = Numbers(np.int64), Numbers(np.float32)
    self._tables, self._factors = Numbers(np.int64), Numbers(np.float32)
    self._last_use = self._last_uses()

  def _last_uses(self) -> dict[int, int]:
    last = {self._graph.output: len(self._graph.nodes)}
    for i, node in reversed(list(enumerate(self._graph.nodes))):
      use = last.get(node.output, i) if node.kind == 'flatten' else i
      for index in node.inputs:
        last[index] = max(last.get(index, 0), use)
    return last

  def compile(self) -> Program:
    graph = self._graph
    height, width, n = self._shapes[graph.input]
    start = self._arena.vector(height * width * n).base
    self._layouts[graph.input] = Layout(start, 1, width * n, n)
    for i, node in enumerate(graph.nodes):
      getattr(self, f'_compile_{node.kind}')(node)
      for index, last in self._last_use.items():
        if last == i and index in self._layouts:
          self._arena.give_back(self._layouts[index])
    if self._arena.size > _MAX_ARENA:
      raise ValueError('The images are too large for this engine: use '
                       "engine='litert'.")
    return Program(
        np.array(self._steps, np.int64), np.array(self._limits, np.float32),
        np.array(self._cuts, np.int64), self._arena.make(),
        self._values.all(), self._offsets.all(), self._rows.all(),
        self._biases.all(), self._tables.all(), self._factors.all(),
        slice(start, start + height * width * n),
        self._places(graph.output).ravel().astype(np.int64))

  def _places(self, index: int) -> np.ndarray:
    if index in self._flat:
      return self._flat[index]
    return self._layouts[index].offsets(self._shapes[index])

  def _step(self, kind: int, arguments: list[int], work: Any,
            limits: tuple[float, float] = (0., 0.)) -> None:
    """Adds a step with the given amounts of work of its parts."""
    padding = [0] * (kernels.N_COLUMNS - 1 - len(arguments))
    self._steps.append([kind, *map(int, arguments), *padding])
    self._limits.append(limits)
    done = np.concatenate([[0], np.cumsum(np.asarray(work, np.float64))])
    wanted = done[-1] * np.arange(self._n_threads + 1) / self._n_threads
    cuts = np.searchsorted(done, wanted * (1 - 1e-12))
    cuts[-1] = len(done) - 1
    self._cuts.append(cuts)

  def _output(self, node: Node) -> Layout:
    """Memory for the output of a node."""
    shape = self._shapes[node.output]
    if is_vector(shape):
      layout = self._arena.vector(shape[2])
    else:
      size = shape[:2]
      is_bordered = node.output in self._planes.bordered
      layout = self._arena.planes(
          layouts.round_up(shape[2], kernels.SHARED_CHANNELS),
          self._planes.n_groups(size) * GROUP,
          self._planes.row_stride(size),
          self._planes.margin(size) if is_bordered else 0)
    self._layouts[node.output] = layout
    return layout

  def _copy(self, index: int, taps: Taps, output: tuple[int, int, int],
            fill: float, strides: tuple[int, int]
            ) -> tuple[Layout, dict[tuple[int, int], int]]:
    """Copies phases of an image; returns their layout and numbers."""
    source = self._layout(index)
    phases = sorted(taps.sizes)
    n = self._shapes[index][2]
    row_stride = self._planes.row_stride(output[:2])
    up, left, down, right = taps.margins
    rows = max(size[0] for size in taps.sizes.values())
    n_positions = max(
        layouts.round_up(rows * row_stride),
        self._planes.n_groups(output[:2]) * GROUP)
    layout = self._arena.planes(
        n * len(phases), n_positions, row_stride,
        max(up * row_stride + left, down * row_stride + right), fill,
        (n, tuple(sorted(taps.sizes.items()))))
    table = self._tables.add([
        (*phase, *strides, *taps.sizes[phase]) for phase in phases])
    work = np.repeat([np.prod(taps.sizes[phase]) + 1 for phase in phases], n)
    self._step(kernels.COPY, [
        source.base, source.channel, source.row, source.column, n, layout.base,
        layout.channel, row_stride, table], work)
    return layout, {phase: i for i, phase in enumerate(phases)}

  def _layout(self, index: int) -> Layout:
    """The strides of an activation; copies it if it was flattened."""
    if index not in self._layouts:
      places = self._flat[index].ravel()
      layout = self._arena.vector(places.size)
      self._vector_step(
          np.arange(places.size + 1), np.ones(places.size), places,
          np.zeros(places.size), layout, (-np.inf, np.inf))
      self._layouts[index] = layout
    return self._layouts[index]

  def _in_planes(self, index: int) -> tuple[Layout, Optional[Layout]]:
    """(layout of an image as planes, layout to free after use)."""
    layout = self._layout(index)
    if layout.column == 1 and layout.row == self._planes.row_stride(
        self._shapes[index][:2]):
      return layout, None
    shape = self._shapes[index]
    taps = Taps([(0, 0)], [(0, 0)], {(0, 0): shape[:2]})
    layout, _ = self._copy(index, taps, shape, 0., (1, 1))
    return layout, layout

  def _taps(self, node: Node) -> tuple[np.ndarray, int, Optional[Layout]]:
    """Offsets of the taps of a window for its first position and channel 0.

    Returns:
      (offset of each tap, distance of channels, layout to free after use).
    """
    index, output = node.inputs[0], self._shapes[node.output]
    shape = self._shapes[index]
    taps = Taps.of(node, shape, output)
    layout = self._layout(index)
    row_stride = self._planes.row_stride(output[:2])
    numbers, temporary = {(0, 0): 0}, None
    if not (taps.is_direct(node, shape, output) and layout.column == 1
            and layout.row == row_stride):
      layout, numbers = self._copy(
          index, taps, output, layouts.fill_of(node), node.strides)
      temporary = layout
    places = [
        layout.base + numbers[phase] * shape[2] * layout.channel
        + shift[0] * row_stride + shift[1]
        for phase, shift in zip(taps.phases, taps.shifts)]
    return np.array(places), layout.channel, temporary

  def _geometry(self, node: Node) -> list[int]:
    """height, width, row stride and whether there is a border to clear."""
    height, width, _ = self._shapes[node.output]
    return [height, width, self._planes.row_stride((height, width)),
            node.output in self._planes.bordered]

  def _compile_conv(self, node: Node) -> None:
    if is_vector(self._shapes[node.output]):
      self._compile_vector(node)
      return
    places, plane, temporary = self._taps(node)
    n, n_inputs = len(node.weights), node.weights.shape[3]
    # Ordered by input channel, so that consecutive taps are close in memory.
    weights = node.weights.reshape(n, -1, n_inputs).transpose(0, 2, 1)
    all_places = (np.arange(n_inputs)[:, None] * plane + places).ravel()
    weights = weights.reshape(n, -1)
    residual = copied = None
    if len(node.inputs) > 1:
      residual, copied = self._in_planes(node.inputs[1])
    layout = self._output(node)
    if simplifying.shares_loads(node):
      self._shared_step(node, layout, weights, all_places, residual)
    else:
      kept, columns = np.nonzero(weights)
      values, offsets = weights[kept, columns], all_places[columns]
      if residual is not None:
        kept = np.concatenate([kept, np.arange(n)])
        order = np.argsort(kept, kind='stable')
        kept = kept[order]
        values = np.concatenate([values, np.ones(n)])[order]
        offsets = np.concatenate([
            offsets, residual.base + np.arange(n) * residual.channel])[order]
      self._sparse_step(node, layout, kept, values, offsets)
    for used in (copied, temporary):
      if used is not None:
        self._arena.give_back(used)

  def _shared_step(self, node: Node, layout: Layout, weights: np.ndarray,
                   places: np.ndarray, residual: Optional[Layout]) -> None:
    """Adds a step that computes blocks of channels."""
    n = kernels.SHARED_CHANNELS
    # The last block is padded with channels that are not read.
    n_more = -len(weights) % n
    weights = np.pad(weights, ((0, n_more), (0, 0)))
    own = None
    if residual is not None:
      last = len(node.weights) - 1
      own = residual.base + residual.channel * np.minimum(
          np.arange(len(weights)), last)
    packed = blocks.Blocks.of(weights, places, n, own)
    start = self._add_taps(packed.values, packed.offsets)
    self._image_step(
        kernels.SHARED, node, self._rows.add(start + packed.rows), layout,
        np.pad(node.biases, (0, n_more)), packed.n_values + 2 * n)

  def _sparse_step(self, node: Node, layout: Layout, kept: np.ndarray,
                   values: np.ndarray, offsets: np.ndarray,
                   is_channelwise: bool = False) -> None:
    """Adds a step that computes taps; `kept` has the output of each."""
    n = self._shapes[node.output][2]
    counts = np.bincount(kept, minlength=n)
    start = self._add_taps(values, offsets)
    rows = self._rows.add(start + np.concatenate([[0], np.cumsum(counts)]))
    self._image_step(kernels.SPARSE, node, rows, layout, node.biases,
                     counts + 2, is_channelwise)

  def _image_step(self, kind: int, node: Node, rows: int, layout: Layout,
                  biases: np.ndarray, work: np.ndarray,
                  is_channelwise: bool = False) -> None:
    """Adds a step SPARSE or SHARED, given the work of its units."""
    n_groups = self._planes.n_groups(self._shapes[node.output][:2])
    # Processed sequentially if a plane is longer than two tiles.
    is_stream = is_channelwise and n_groups > 2 * kernels.TILE_GROUPS
    # Then each thread mostly reads its own outputs.
    by_position = not is_stream and n_groups >= _MIN_GROUPS * self._n_threads
    self._step(kind, [
        rows, n_groups, layout.base, layout.channel, self._biases.add(biases),
        len(work), by_position, *self._geometry(node), is_stream],
        np.ones(n_groups) if by_position else work, node.limits)

  def _compile_depthwise(self, node: Node) -> None:
    if is_vector(self._shapes[node.output]):
      self._compile_vector(node)
      return
    places, plane, temporary = self._taps(node)
    layout = self._output(node)
    n = self._shapes[node.output][2]
    multiplier = n // self._shapes[node.inputs[0]][2]
    weights = node.weights.reshape(-1, n).T
    kept, taps = np.nonzero(weights)
    self._sparse_step(node, layout, kept, weights[kept, taps],
                      places[taps] + kept // multiplier * plane,
                      is_channelwise=True)
    if temporary is not None:
      self._arena.give_back(temporary)

  def _compile_add(self, node: Node) -> None:
    n = self._shapes[node.output][2]
    node.biases = np.zeros(n, np.float32)
    if is_vector(self._shapes[node.output]):
      places = np.stack([self._places(i).ravel() for i in node.inputs], 1)
      self._vector_step(2 * np.arange(n + 1), np.ones(2 * n), places,
                        node.biases, self._output(node), node.limits)
      return
    sources = [self._in_planes(index) for index in node.inputs]
    places = np.stack(
        [layout.base + np.arange(n) * layout.channel for layout, _ in sources],
        1)
    self._sparse_step(node, self._output(node), np.repeat(np.arange(n), 2),
                      np.ones(2 * n), places.ravel(), is_channelwise=True)
    for _, copied in sources:
      if copied is not None:
        self._arena.give_back(copied)

  def _compile_vector(self, node: Node) -> None:
    """Compiles a layer whose output has a single position."""
    shape = self._shapes[node.inputs[0]]
    places = self._places(node.inputs[0])
    n = self._shapes[node.output][2]
    ys, xs = (np.arange(node.kernel[i]) * node.dilations[i] - node.pads[i]
              for i in range(2))
    ys_in, xs_in = (np.nonzero((at >= 0) & (at < size))[0]
                    for at, size in ((ys, shape[0]), (xs, shape[1])))
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
    values = weights[kept, columns]
    counts = np.bincount(kept, minlength=n)
    self._vector_step(np.concatenate([[0], np.cumsum(counts)]), values, offsets,
                      node.biases, self._output(node), node.limits)

  def _vector_step(self, rows: np.ndarray, values: np.ndarray,
                   offsets: np.ndarray, biases: np.ndarray, layout: Layout,
                   limits: tuple[float, float]) -> None:
    start = self._add_taps(values, offsets)
    self._step(kernels.VECTOR, [
        self._rows.add(start + rows), layout.base, self._biases.add(biases)],
        np.diff(rows) + 2, limits)

  def _add_taps(self, values: Any, offsets: Any) -> int:
    """Appends weights and offsets; both have the same first index."""
    start = self._values.add(values)
    self._offsets.add(offsets)
    size = max(self._values.size, self._offsets.size)
    for numbers in (self._values, self._offsets):
      numbers.add(np.zeros(size - numbers.size))
    return start

  def _compile_max_pool(self, node: Node) -> None:
    self._compile_pool(node)

  def _compile_average_pool(self, node: Node) -> None:
    self._compile_pool(node)

  def _compile_pool(self, node: Node) -> None:
    shape, output = (self._shapes[i] for i in (node.inputs[0], node.output))
    size, temporary = output[:2], None
    if is_vector(output):
      source = self._layout(node.inputs[0])
      plane = source.channel
      places = np.array([
          source.base + y * source.row + x * source.column
          for y in np.arange(node.kernel[0]) - node.pads[0]
          for x in np.arange(node.kernel[1]) - node.pads[1]
          if 0 <= y < shape[0] and 0 <= x < shape[1]])
      n_groups, row_stride = 0, 1
    else:
      places, plane, temporary = self._taps(node)
      n_groups = self._planes.n_groups(size)
      row_stride = self._planes.row_stride(size)
    factor = -1
    if node.kind == 'average_pool':
      counts = np.ones((size[0], row_stride))
      counts[:, :size[1]] = np.outer(*(
          _n_inside(node, i, shape[i], size[i]) for i in range(2)))
      factors = np.ones(max(counts.size, n_groups * GROUP))
      factors[:counts.size] = 1 / counts.ravel()
      factor = self._factors.add(factors)
    layout = self._output(node)
    self._step(kernels.POOL, [
        self._add_taps([], places), n_groups, layout.base, layout.channel,
        plane, *self._geometry(node), len(places), factor],
        np.ones(output[2]), node.limits)
    if temporary is not None:
      self._arena.give_back(temporary)

  def _compile_mean(self, node: Node) -> None:
    height, width, n = self._shapes[node.inputs[0]]
    source = self._layout(node.inputs[0])
    self._step(kernels.MEAN, [
        source.base, source.channel, source.row, source.column, height, width,
        self._output(node).base], np.ones(n))

  def _compile_flatten(self, node: Node) -> None:
    self._flat[node.output] = self._places(node.inputs[0]).reshape(1, 1, -1)

  def _compile_softmax(self, node: Node) -> None:
    source = self._layout(node.inputs[0])
    self._step(kernels.SOFTMAX, [
        source.base, self._shapes[node.output][2], self._output(node).base],
        [1])


def _n_inside(node: Node, axis: int, size: int, n_outputs: int) -> np.ndarray:
  """The number of rows (or columns) of each window inside the image."""
  if node.pads_count:
    return np.full(n_outputs, node.kernel[axis])
  starts = np.arange(n_outputs) * node.strides[axis] - node.pads[axis]
  return (np.minimum(starts + node.kernel[axis], size)
          - np.maximum(starts, 0))

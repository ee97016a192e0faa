"""The steps of a compiled graph and the memory of its activations."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np

from rigl.inference import blocks, kernels, layouts
from rigl.inference.graph import Graph, Node, UnknownOperation
from rigl.inference.layouts import GROUP, Layout, Taps, is_vector
from rigl.inference.programs import Numbers, Program

_MAX_ARENA = 2**31 - 2**16
# Minimum number of groups of positions per thread.
_MIN_GROUPS = 6


class Steps:
  """Writes steps and allocates memory.

  Attributes:
    shapes: of each activation, (height, width, channels).
    arena: the memory of all activations.
    planes: the shapes of images in memory.
    layouts: {activation: where its values are}.
    flat: flattened images stay in place: {activation: offsets of its values}.
    temporary: copies of images, to be freed after the node that reads them.
    factors: numbers that averages are multiplied by.
  """

  def __init__(self, graph: Graph, n_threads: int) -> None:
    self.shapes = graph.shapes
    self.arena = layouts.Arena()
    self.layouts: dict[int, Layout] = {}
    self.flat: dict[int, np.ndarray] = {}
    self.temporary: list[Layout] = []
    self.factors = Numbers(np.float32)
    self._n_threads = n_threads
    self.planes = layouts.Planes(graph)
    self._steps: list[list[int]] = []
    self._limits: list[tuple[float, float]] = []
    self._cuts: list[np.ndarray] = []
    self._values, self._offsets = Numbers(np.float32), Numbers(np.int32)
    self._rows, self._biases = Numbers(np.int64), Numbers(np.float32)
    self._tables = Numbers(np.int64)

  def program(self, inputs: slice, output: int) -> Program:
    """The program of all steps so far.

    Args:
      inputs: where the values of the image are.
      output: the activation that is its result.

    Raises:
      UnknownOperation: the activations exceed 2**31 values.
    """
    if self.arena.size > _MAX_ARENA:
      raise UnknownOperation('images as large as these')
    steps, cuts = (np.array(rows, np.int64) for rows in (self._steps, self._cuts))
    limits = np.array(self._limits, np.float32)
    arena = self.arena.make()
    numbers = (self._values, self._offsets, self._rows, self._biases, self._tables, self.factors)
    arrays: tuple[np.ndarray, ...] = (steps, limits, cuts, arena, *(one.all() for one in numbers))
    return Program(arrays, arena, inputs, self.places(output).ravel().astype(np.int64))

  def add(
    self, kind: int, arguments: list[int], work: Any, limits: tuple[float, float] = (0.0, 0.0)
  ) -> None:
    """Adds a step with the given amounts of work of its parts."""
    padding = [0] * (kernels.N_COLUMNS - 1 - len(arguments))
    self._steps.append([kind, *map(int, arguments), *padding])
    self._limits.append(limits)
    done = np.concatenate([[0], np.cumsum(np.asarray(work, np.float64))])
    wanted = done[-1] * np.arange(self._n_threads + 1) / self._n_threads
    cuts = np.searchsorted(done, wanted * (1 - 1e-12))
    cuts[-1] = len(done) - 1
    self._cuts.append(cuts)

  def places(self, index: int) -> np.ndarray:
    if index in self.flat:
      return self.flat[index]
    return self.layouts[index].offsets(self.shapes[index])

  def new_output(self, node: Node) -> Layout:
    """Memory for the output of a node."""
    shape = self.shapes[node.output]
    if is_vector(shape):
      layout = self.arena.vector(shape[2])
    else:
      size = shape[:2]
      layout = self.arena.planes(
        layouts.round_up(shape[2], kernels.SHARED_CHANNELS),
        self.planes.n_groups(size) * GROUP,
        self.planes.row_stride(size),
        self.planes.margin(size) if node.output in self.planes.bordered else 0,
      )
    self.layouts[node.output] = layout
    return layout

  def _copy(
    self,
    index: int,
    taps: Taps,
    output: tuple[int, int, int],
    fill: float,
    strides: tuple[int, int],
  ) -> tuple[Layout, dict[tuple[int, int], int]]:
    """Copies phases of an image for this node; returns their layout and numbers."""
    source = self.layout_of(index)
    phases = sorted(taps.sizes)
    n = self.shapes[index][2]
    row_stride = self.planes.row_stride(output[:2])
    up, left, down, right = taps.margins
    rows = max(size[0] for size in taps.sizes.values())
    n_positions = max(layouts.round_up(rows * row_stride), self.planes.n_groups(output[:2]) * GROUP)
    layout = self.arena.planes(
      n * len(phases),
      n_positions,
      row_stride,
      max(up * row_stride + left, down * row_stride + right),
      fill,
      (n, tuple(sorted(taps.sizes.items()))),
    )
    table = self._tables.add([(*phase, *strides, *taps.sizes[phase]) for phase in phases])
    work = np.repeat([np.prod(taps.sizes[phase]) + 1 for phase in phases], n)
    self.add(kernels.COPY, [*source, n, layout.base, layout.channel, row_stride, table], work)
    self.temporary.append(layout)
    return layout, {phase: i for i, phase in enumerate(phases)}

  def layout_of(self, index: int) -> Layout:
    """The strides of an activation; copies it if it was flattened."""
    if index not in self.layouts:
      places = self.flat[index].ravel()
      n = places.size
      copy = Node('copy', [], index, biases=np.zeros(n))
      self.add_vector(copy, np.arange(n), np.ones(n), places)
    return self.layouts[index]

  def in_planes(self, index: int) -> Layout:
    """The layout of an image as planes; copies it if it is another."""
    layout, shape = self.layout_of(index), self.shapes[index]
    if layout.column == 1 and layout.row == self.planes.row_stride(shape[:2]):
      return layout
    taps = Taps([(0, 0)], [(0, 0)], {(0, 0): shape[:2]})
    return self._copy(index, taps, shape, 0.0, (1, 1))[0]

  def places_of_taps(self, node: Node) -> tuple[np.ndarray, int]:
    """Offsets of the taps of a window for its first position and channel 0.

    Returns:
      (offset of each tap, distance of channels).
    """
    index, output = node.inputs[0], self.shapes[node.output]
    shape = self.shapes[index]
    taps = Taps.of(node, shape, output)
    layout = self.layout_of(index)
    row_stride = self.planes.row_stride(output[:2])
    numbers = {(0, 0): 0}
    is_in_planes = layout.column == 1 and layout.row == row_stride
    if not (is_in_planes and taps.is_direct(node, shape, output)):
      layout, numbers = self._copy(index, taps, output, layouts.fill_of(node), node.strides)
    places = [
      layout.base + numbers[phase] * shape[2] * layout.channel + shift[0] * row_stride + shift[1]
      for phase, shift in zip(taps.phases, taps.shifts)
    ]
    return np.array(places), layout.channel

  def geometry(self, node: Node) -> list[int]:
    """height, width, row stride and whether there is a border to clear."""
    size = self.shapes[node.output][:2]
    return [*size, self.planes.row_stride(size), node.output in self.planes.bordered]

  def add_shared(
    self, node: Node, weights: np.ndarray, places: np.ndarray, residual: Optional[Layout]
  ) -> None:
    """Adds a step that computes blocks of channels."""
    n = kernels.SHARED_CHANNELS
    # The last block is padded with channels that are not read.
    n_more = -len(weights) % n
    weights = np.pad(weights, ((0, n_more), (0, 0)))
    biases = np.pad(node.biases, (0, n_more))
    own = None
    if residual is not None:
      last = len(node.weights) - 1
      own = residual.base + residual.channel * np.minimum(np.arange(len(weights)), last)
    packed = blocks.Blocks.of(weights, places, n, own)
    start = self.add_taps(packed.values, packed.offsets)
    rows = self._rows.add(start + packed.rows)
    self._add_image(kernels.SHARED, node, rows, biases, packed.n_values + 2 * n)

  def add_sparse(
    self,
    node: Node,
    kept: np.ndarray,
    values: np.ndarray,
    offsets: np.ndarray,
    is_channelwise: bool = False,
  ) -> None:
    """Adds a step that computes taps; `kept` has the output of each, in order."""
    rows, work = self._add_rows(node, kept, values, offsets)
    self._add_image(kernels.SPARSE, node, rows, node.biases, work, is_channelwise)

  def add_vector(
    self, node: Node, kept: np.ndarray, values: np.ndarray, offsets: np.ndarray
  ) -> None:
    """As `add_sparse`, for an output of one position."""
    rows, work = self._add_rows(node, kept, values, offsets)
    biases = self._biases.add(node.biases)
    self.add(kernels.VECTOR, [rows, self.new_output(node).base, biases], work, node.limits)

  def _add_rows(
    self, node: Node, kept: np.ndarray, values: np.ndarray, offsets: np.ndarray
  ) -> tuple[int, np.ndarray]:
    """Appends taps, sorted by output; returns the index of their rows, and the work of each."""
    counts = np.bincount(kept, minlength=len(node.biases))
    start = self.add_taps(values, offsets)
    return self._rows.add(start + np.concatenate([[0], np.cumsum(counts)])), counts + 2

  def _add_image(
    self,
    kind: int,
    node: Node,
    rows: int,
    biases: np.ndarray,
    work: np.ndarray,
    is_channelwise: bool = False,
  ) -> None:
    """Adds a step SPARSE or SHARED, given the work of its units."""
    n_groups = self.planes.n_groups(self.shapes[node.output][:2])
    # Processed sequentially if a plane is longer than two tiles.
    is_stream = is_channelwise and n_groups > 2 * kernels.TILE_GROUPS
    # Then each thread mostly reads its own outputs.
    by_position = not is_stream and n_groups >= _MIN_GROUPS * self._n_threads
    layout = self.new_output(node)
    bias = self._biases.add(biases)
    arguments = [rows, n_groups, layout.base, layout.channel, bias, len(work), by_position]
    self.add(
      kind,
      [*arguments, *self.geometry(node), is_stream],
      np.ones(n_groups) if by_position else work,
      node.limits,
    )

  def add_taps(self, values: Any, offsets: Any) -> int:
    """Appends weights and offsets; both have the same first index."""
    start = self._values.add(values)
    self._offsets.add(offsets)
    size = max(self._values.size, self._offsets.size)
    for numbers in (self._values, self._offsets):
      numbers.add(np.zeros(size - numbers.size))
    return start

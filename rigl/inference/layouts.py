"""Memory layouts of activations in the arena of the engine.

A plane is one channel of an image, row by row. Rows have some more columns than
the image; these columns are zero, and so are rows above and below. So the
neighbour (dy, dx) of every position is at a fixed distance, dy * row stride +
dx, and a tap of a kernel reads the plane shifted by it. All images of the same
size have the same row stride, so that their positions match.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from rigl.inference.graph import Graph, Node

# Positions are computed in groups of this many floats, one cache line.
GROUP = 16
# Planes at multiples of this distance would share few cache sets.
_BAD_STRIDE = 1024


def round_up(n: int, step: int = GROUP) -> int:
  """The smallest multiple of `step` that is at least n."""
  return -(-n // step) * step


class Layout(NamedTuple):
  """Strides of an activation [height, width, channels].

  Attributes:
    base: offset of its first value.
    channel: distance of channels.
    row: distance of rows.
    column: distance of columns.
  """

  base: int
  channel: int
  row: int
  column: int = 1

  def offsets(self, shape: tuple[int, int, int]) -> np.ndarray:
    """Offsets of all values, [height, width, channels]."""
    y, x, c = np.ogrid[: shape[0], : shape[1], : shape[2]]
    return self.base + y * self.row + x * self.column + c * self.channel


@dataclasses.dataclass
class Taps:
  """The positions that a window reads, relative to the output position.

  A stride of n reads every n-th row. Rows with the same remainder modulo n form
  a phase, a smaller image in which neighbours are at distance 1.

  Attributes:
    phases: for each tap (row, column) of the window: the remainders.
    shifts: for each tap: its position in the phase minus the output position.
    sizes: remainders -> number of rows and columns of the phase that are read.
  """

  phases: list[tuple[int, int]]
  shifts: list[tuple[int, int]]
  sizes: dict[tuple[int, int], tuple[int, int]]

  @classmethod
  def of(cls, node: Node, shape: tuple[int, int, int], output: tuple[int, int, int]) -> Taps:
    """The taps of a node."""
    rows, columns = (
      [
        divmod(tap * node.dilations[i] - node.pads[i], node.strides[i])
        for tap in range(node.kernel[i])
      ]
      for i in range(2)
    )
    shifts = [(row[0], column[0]) for row in rows for column in columns]
    phases = [(row[1], column[1]) for row in rows for column in columns]

    def size(phase, axis):
      there = -(-(shape[axis] - phase[axis]) // node.strides[axis])
      read = output[axis] + max(shift[axis] for shift in shifts)
      return max(0, min(there, read))

    sizes = {phase: (size(phase, 0), size(phase, 1)) for phase in set(phases)}
    return cls(phases, shifts, sizes)

  @property
  def margins(self) -> tuple[int, int, int, int]:
    """Largest shifts up, left, down and right."""
    rows, columns = zip(*self.shifts)
    return (max(0, -min(rows)), max(0, -min(columns)), max(0, max(rows)), max(0, max(columns)))

  def is_direct(
    self, node: Node, shape: tuple[int, int, int], output: tuple[int, int, int]
  ) -> bool:
    """Whether the window can read the input directly, without a copy."""
    return node.strides == (1, 1) and shape[:2] == output[:2] and not fill_of(node)

  def row_stride(self, output: tuple[int, int, int]) -> int:
    """The smallest row stride at which no shift reaches another row."""
    _, left, _, right = self.margins
    widest = max(size[1] for size in self.sizes.values())
    return max(output[1] + right, widest + left)


WINDOWED = ('conv', 'depthwise', 'max_pool', 'average_pool')


def is_vector(shape: tuple[int, int, int]) -> bool:
  """Whether an activation has one position."""
  return shape[0] * shape[1] == 1


class Planes:
  """The row strides and margins that each image size of a network needs."""

  def __init__(self, graph: Graph) -> None:
    """Collects the needs of all nodes."""
    self._row_strides: dict[tuple[int, int], int] = {}
    self._margins: dict[tuple[int, int], tuple[int, int]] = {}
    self.bordered: set[int] = set()
    for node in graph.nodes:
      output = graph.shapes[node.output]
      if node.kind not in WINDOWED or is_vector(output):
        continue
      shape, size = graph.shapes[node.inputs[0]], output[:2]
      taps = Taps.of(node, shape, output)
      self._row_strides[size] = max(self._row_strides.get(size, size[1]), taps.row_stride(output))
      if taps.is_direct(node, shape, output) and any(taps.margins):
        self.bordered.add(node.inputs[0])
        rows, columns = self._margins.get(size, (0, 0))
        up, left, down, right = taps.margins
        self._margins[size] = max(rows, up, down), max(columns, left, right)

  def row_stride(self, size: tuple[int, int]) -> int:
    """Distance of rows of the images of a size."""
    return self._row_strides.get(size, size[1])

  def n_groups(self, size: tuple[int, int]) -> int:
    """Groups of positions that cover an image."""
    return round_up((size[0] - 1) * self.row_stride(size) + size[1]) // GROUP

  def margin(self, size: tuple[int, int]) -> int:
    """Zeros that a bordered image needs on either side of its positions."""
    rows, columns = self._margins.get(size, (0, 0))
    return rows * self.row_stride(size) + columns


class Arena:
  """Allocates and frees memory for planes.

  Freed planes are reused only for the same geometry, since their borders must
  keep their values.
  """

  def __init__(self) -> None:
    self.size = GROUP * GROUP
    self._free: dict[tuple, list[tuple[int, int]]] = {}
    self._taken: dict[int, tuple[tuple, int]] = {}
    # (begin, end, value) of parts that do not start at zero.
    self.filled: list[tuple[int, int, float]] = []

  def vector(self, n: int) -> Layout:
    """Memory for consecutive values; never freed."""
    base = self.size
    self.size += round_up(n + GROUP)
    return Layout(base, 1, n, n)

  def planes(
    self,
    n: int,
    n_positions: int,
    row_stride: int,
    margin: int,
    fill: float = 0.0,
    content: Any = None,
  ) -> Layout:
    """Memory for planes.

    Args:
      n: number of planes.
      n_positions: positions of an image, a multiple of GROUP.
      row_stride: distance of rows.
      margin: positions around them with the value `fill`.
      fill: 0 or minus infinity.
      content: further key that must be equal to reuse memory.
    """
    plane = round_up(n_positions + margin)
    if plane % _BAD_STRIDE == 0:
      plane += GROUP
    key = (n_positions, plane, row_stride, margin, fill, content)
    fitting = [slot for slot in self._free.get(key, []) if slot[1] >= n]
    if fitting:
      base, size = min(fitting, key=lambda slot: slot[1])
      self._free[key].remove((base, size))
    else:
      base, size = self.size + round_up(margin), n
      end = base + n * plane + round_up(margin) + GROUP
      if fill:
        self.filled.append((self.size, end, fill))
      self.size = round_up(end)
    self._taken[base] = (key, size)
    return Layout(base, plane, row_stride)

  def give_back(self, layout: Layout) -> None:
    """Frees the planes of a layout; does nothing for a vector."""
    if layout.base in self._taken:
      key, size = self._taken.pop(layout.base)
      self._free.setdefault(key, []).append((layout.base, size))

  def make(self) -> np.ndarray:
    """The arena, float32, aligned to a cache line."""
    # A little larger, since tiles read beyond their end.
    memory = np.zeros(self.size + 64 * GROUP, np.float32)
    start = (-memory.ctypes.data // 4) % GROUP
    arena = memory[start : start + self.size + 32 * GROUP]
    for begin, end, value in self.filled:
      arena[begin:end] = value
    return arena


def fill_of(node: Node) -> float:
  """The value of padding."""
  is_outside = node.kind == 'max_pool' and not node.pads_count
  return -math.inf if is_outside and any(node.pads) else 0.0

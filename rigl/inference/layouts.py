"""Where activations lie in the arena of the engine.

A plane is one channel of an image, row by row. Rows are some columns longer
than the image, and these columns are zero, as are rows above and below. So the
neighbour (dy, dx) of every position is found at a fixed distance, dy * row
stride + dx, and a tap of a kernel is the plane shifted by it. All images of one
size have one row stride, so that their positions match.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from rigl.inference.graph import Graph, Node

# Positions are computed in groups of this many floats, one cache line.
GROUP = 16
# Planes at this distance, or multiples of it, would share few cache sets.
_BAD_STRIDE = 1024


def round_up(n: int, step: int = GROUP) -> int:
  """The first multiple of a step that is not below n."""
  return -(-n // step) * step


@dataclasses.dataclass(frozen=True)
class Layout:
  """Strides of an activation [height, width, channels].

  Attributes:
    base: where its first value lies.
    channel: distance of channels.
    row: distance of rows.
    column: distance of columns.
  """
  base: int
  channel: int
  row: int
  column: int = 1

  def offsets(self, shape: tuple[int, int, int]) -> np.ndarray:
    """Where all values lie, in the order [height, width, channels]."""
    y, x, c = np.ogrid[:shape[0], :shape[1], :shape[2]]
    return self.base + y * self.row + x * self.column + c * self.channel


@dataclasses.dataclass
class Taps:
  """What a window reads of its input, seen from an output position.

  A stride of n reads every n-th row. Rows with the same remainder form a phase,
  which is an image of its own; within it neighbours are at distance 1 again.

  Attributes:
    phases: for each tap (row, column) of the window: the remainders.
    shifts: rows and columns of the phase from the output's position.
    sizes: remainders -> rows and columns of the phase that are read.
  """
  phases: list[tuple[int, int]]
  shifts: list[tuple[int, int]]
  sizes: dict[tuple[int, int], tuple[int, int]]

  @classmethod
  def of(cls, node: Node, shape: tuple[int, int, int],
         output: tuple[int, int, int]) -> Taps:
    """The taps of a node."""
    rows, columns = (
        [divmod(tap * node.dilations[i] - node.pads[i], node.strides[i])
         for tap in range(node.kernel[i])] for i in range(2))
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
    """How far the shifts reach: up, left, down, right."""
    rows, columns = zip(*self.shifts)
    return (max(0, -min(rows)), max(0, -min(columns)), max(0, max(rows)),
            max(0, max(columns)))

  def is_direct(self, node: Node, shape: tuple[int, int, int],
                output: tuple[int, int, int]) -> bool:
    """Whether the input itself, in the layout of its size, can be read."""
    return (node.strides == (1, 1) and shape[:2] == output[:2]
            and not fill_of(node))

  def row_stride(self, output: tuple[int, int, int]) -> int:
    """The smallest row stride at which no shift meets another row's image."""
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
    """Looks at all nodes."""
    self._row_strides: dict[tuple[int, int], int] = {}
    self._margins: dict[tuple[int, int], tuple[int, int]] = {}
    self.bordered: set[int] = set()
    for node in graph.nodes:
      output = graph.shapes[node.output]
      if node.kind not in WINDOWED or is_vector(output):
        continue
      shape, size = graph.shapes[node.inputs[0]], output[:2]
      taps = Taps.of(node, shape, output)
      self._row_strides[size] = max(
          self._row_strides.get(size, size[1]), taps.row_stride(output))
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
  """Hands out memory for planes and takes it back.

  Planes are given back to those of the same geometry alone, since what lies
  around them has to stay as it is.
  """

  def __init__(self) -> None:
    self.size = GROUP * GROUP
    self._free: dict[tuple, list[tuple[int, int]]] = {}
    self._taken: dict[int, tuple[tuple, int]] = {}
    # (begin, end) of what is not to be zero at first, and its value.
    self.filled: list[tuple[int, int, float]] = []

  def vector(self, n: int) -> Layout:
    """Memory for values side by side, which are not given back."""
    base = self.size
    self.size += round_up(n + GROUP)
    return Layout(base, 1, n, n)

  def planes(self, n: int, n_positions: int, row_stride: int, margin: int,
             fill: float = 0., content: Any = None) -> Layout:
    """Memory for planes.

    Args:
      n: how many.
      n_positions: positions of an image, a multiple of GROUP.
      row_stride: distance of rows.
      margin: positions around them that have the value `fill`.
      fill: 0 or minus infinity.
      content: what else has to be equal for memory to be used again.
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
    """Lets the planes of a layout be used again.

    Args:
      layout: strides of planes, or of a vector, which stays.
    """
    if layout.base in self._taken:
      key, size = self._taken.pop(layout.base)
      self._free.setdefault(key, []).append((layout.base, size))

  def make(self) -> np.ndarray:
    """The arena itself, float32, aligned to a cache line."""
    # A little more, since tiles read beyond what they need.
    memory = np.zeros(self.size + 64 * GROUP, np.float32)
    start = (-memory.ctypes.data // 4) % GROUP
    arena = memory[start:start + self.size + 32 * GROUP]
    for begin, end, value in self.filled:
      arena[begin:end] = value
    return arena


def fill_of(node: Node) -> float:
  """What padding counts as."""
  is_outside = node.kind == 'max_pool' and not node.pads_count
  return -math.inf if is_outside and any(node.pads) else 0.

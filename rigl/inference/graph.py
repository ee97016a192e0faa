"""A network as a list of a few kinds of nodes, all in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

from rigl.inference import codes

INFINITY = codes.INFINITY


class UnknownOperation(Exception):
  """The network has an operation that the engine of this library lacks."""


class NotFloat32(ValueError):
  """The network computes with other numbers than the engine."""


@dataclasses.dataclass
class Node:
  """An operation on activations [height, width, channels].

  Attributes:
    kind: conv, depthwise, add, max_pool, average_pool, mean, flatten, softmax.
    inputs: activations that it reads.
    output: activation that it computes.
    weights: array, of conv: [outputs, rows, columns, inputs]; of depthwise:
      [rows, columns, outputs].
    biases: array, one for each output channel.
    kernel: rows and columns of a window.
    strides: vertical and horizontal.
    dilations: vertical and horizontal.
    pads: rows above, columns to the left, rows below, columns to the right.
    pads_count: whether an average counts padding, which is zero.
    limits: smallest and largest output.
    name: what the network calls the output, and the weights.
  """
  kind: str
  inputs: list[int]
  output: int
  weights: Any = None
  biases: Any = None
  kernel: tuple[int, int] = (1, 1)
  strides: tuple[int, int] = (1, 1)
  dilations: tuple[int, int] = (1, 1)
  pads: tuple[int, int, int, int] = (0, 0, 0, 0)
  pads_count: bool = False
  limits: tuple[float, float] = (-INFINITY, INFINITY)
  name: str = ''

  @property
  def is_pointwise_scale(self) -> bool:
    """Whether it scales and shifts channels, and does nothing else."""
    return (self.kind == 'depthwise' and self.kernel == (1, 1)
            and self.strides == (1, 1) and not any(self.pads))


@dataclasses.dataclass
class Graph:
  """A network: nodes in the order of their execution.

  Attributes:
    nodes: its operations.
    shapes: activation -> [height, width, channels].
    input: the activation that it is given.
    output: the activation that is its result.
    input_shape: shape of an example as the caller has it.
    output_shape: the same of the result.
  """
  nodes: list[Node]
  shapes: dict[int, tuple[int, int, int]]
  input: int
  output: int
  input_shape: tuple[int, ...]
  output_shape: tuple[int, ...]

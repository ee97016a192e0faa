"""A network as a list of nodes of a few kinds, in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

from rigl.inference import codes

INFINITY = codes.INFINITY


class UnknownOperation(Exception):
  """The network has an operation that the engine of this library lacks."""


class NotFloat32(ValueError):
  """The network does not compute in float32, as the engine does."""


@dataclasses.dataclass
class Node:
  """An operation on activations [height, width, channels].

  Attributes:
    kind: conv, depthwise, add, max_pool, average_pool, mean, flatten, softmax.
    inputs: activations that it reads.
    output: activation that it computes.
    weights: array; [outputs, rows, columns, inputs] for conv, [rows, columns,
      outputs] for depthwise.
    biases: array, one value per output channel.
    kernel: rows and columns of a window.
    strides: vertical and horizontal.
    dilations: vertical and horizontal.
    pads: rows above, columns to the left, rows below, columns to the right.
    pads_count: whether an average counts padding, which is zero.
    limits: smallest and largest output.
    name: name of the output and the weights in the network.
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
    """Whether it only scales and shifts channels."""
    return (
      self.kind == 'depthwise'
      and self.kernel == (1, 1)
      and self.strides == (1, 1)
      and not any(self.pads)
    )


@dataclasses.dataclass
class Graph:
  """A network: nodes in the order of their execution.

  Attributes:
    nodes: its operations.
    shapes: activation -> [height, width, channels].
    input: the activation of the input.
    output: the activation of the result.
    input_shape: shape of an example for the caller.
    output_shape: shape of a result for the caller.
  """

  nodes: list[Node]
  shapes: dict[int, tuple[int, int, int]]
  input: int
  output: int
  input_shape: tuple[int, ...]
  output_shape: tuple[int, ...]

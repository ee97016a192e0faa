"""Merges nodes of a graph that the engine can compute as one."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from rigl.inference.graph import INFINITY, Graph, Node
from rigl.inference.layouts import is_vector

# From this density on, channels share enough inputs that loading them once for
# several channels is faster.
SHARED_DENSITY = 0.12
_NO_LIMITS = (-INFINITY, INFINITY)


def shares_loads(node: Node) -> bool:
  """Whether a convolution computes several channels together."""
  return np.count_nonzero(node.weights) > SHARED_DENSITY * node.weights.size


def simplified(graph: Graph) -> Graph:
  """The graph with merged scales, and sums merged into convolutions."""
  nodes = _join_scales(graph, list(graph.nodes))
  return dataclasses.replace(graph, nodes=_join_sums(graph, nodes))


def _n_readers(graph: Graph, nodes: list[Node]) -> Counter[int]:
  readers = Counter(index for node in nodes for index in node.inputs)
  readers[graph.output] += 1
  return readers


def _join_scales(graph: Graph, nodes: list[Node]) -> list[Node]:
  """Merges consecutive scales, such as batch normalization before a ReLU."""
  readers = _n_readers(graph, nodes)
  joined: list[Node] = []
  makers: dict[int, Node] = {}
  for node in nodes:
    maker = makers.get(node.inputs[0])
    if (
      maker is not None
      and maker.is_pointwise_scale
      and node.is_pointwise_scale
      and maker.limits == _NO_LIMITS
      and readers[maker.output] == 1
      and maker.weights.shape == node.weights.shape
    ):
      joined = [one for one in joined if one is not maker]
      node = dataclasses.replace(
        node,
        inputs=maker.inputs,
        weights=maker.weights * node.weights,
        biases=maker.biases * node.weights[0, 0] + node.biases,
      )
    makers[node.output] = node
    joined.append(node)
  return joined


def _join_sums(graph: Graph, nodes: list[Node]) -> list[Node]:
  """Merges the sum of a residual block into its last convolution."""
  readers = _n_readers(graph, nodes)
  joined: list[Node] = []
  for node in nodes:
    if node.kind == 'add' and not is_vector(graph.shapes[node.output]):
      # The later of two convolutions, whose other input is then available.
      for maker in reversed(joined):
        if (
          maker.output in node.inputs
          and maker.kind == 'conv'
          and maker.limits == _NO_LIMITS
          and readers[maker.output] == 1
          and len(maker.inputs) == 1
        ):
          (other,) = [i for i in node.inputs if i != maker.output]
          joined = [one for one in joined if one is not maker]
          node = dataclasses.replace(
            maker, inputs=[*maker.inputs, other], output=node.output, limits=node.limits
          )
          break
    joined.append(node)
  return joined

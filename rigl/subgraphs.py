"""Copies the subgraph that computes a tensor.

A branch of tf.cond captures tensors from outside, and these are computed at
every step, whether or not the branch is taken. A copy of their subgraph inside
the branch is computed only when the branch is taken.
"""

from __future__ import annotations

from rigl.compat import tf


def ancestors(tensor: tf.Tensor) -> list[tf.Operation]:
  """All operations that `tensor` depends on, including its own."""
  found = {tensor.op.name: tensor.op}
  waiting = [tensor.op]
  while waiting:
    op = waiting.pop()
    for source in (*(t.op for t in op.inputs), *op.control_inputs):
      if source.name not in found:
        found[source.name] = source
        waiting.append(source)
  return list(found.values())


def copy_here(tensor: tf.Tensor) -> tf.Tensor:
  """The value of a tensor of this graph or one around it, by copies of its operations here.

  XLA turns random bits into floats in its own way, so there the copy of a
  random op gives other numbers of the same distribution.
  """
  definition = tf.GraphDef()
  definition.versions.CopyFrom(tensor.graph.graph_def_versions)
  for op in ancestors(tensor):
    node = definition.node.add()
    node.CopyFrom(op.node_def)
    # Device and colocation belong to the original op.
    node.device = ''
    node.attr.pop('_class', None)
  return tf.import_graph_def(definition, return_elements=[tensor.name], name='copy')[0]

"""Copies of the operations behind a tensor, to run where they are needed.

Tensors that a branch captures from outside are computed at every step, whether
it is taken or not. Copying their operations into the branch defers that.
"""

from __future__ import annotations

from rigl.compat import tf


def ancestors(tensor: tf.Tensor) -> list[tf.Operation]:
  """All operations that `tensor` depends on, its own included."""
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
  """The value of `tensor`, by copies of its operations in the default graph.

  Under XLA, which turns random bits into floats in another way, a copy of a
  draw is another draw from the same distribution.

  Args:
    tensor: tensor of the default graph or one around it.
  """
  definition = tf.GraphDef()
  definition.versions.CopyFrom(tensor.graph.graph_def_versions)
  for op in ancestors(tensor):
    node = definition.node.add()
    node.CopyFrom(op.node_def)
    # They stand for the place of the original.
    node.device = ''
    node.attr.pop('_class', None)
  return tf.import_graph_def(
      definition, return_elements=[tensor.name], name='copy')[0]

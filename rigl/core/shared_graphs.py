"""Functions whose graph is built once and shared by all layers."""

from __future__ import annotations

from typing import Any, Callable

from rigl.compat import tf, tf2


def shared_graph(
  *dtypes_and_ranks: tuple[tf.DType, int],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Decorates a pure function of tensors: its graph is built only once.

  Otherwise the search for the n-th largest score alone would add a few hundred
  nodes per layer, which cost memory and start-up time.

  Args:
    *dtypes_and_ranks: (type, rank) of each argument; dimensions are free.
  """

  def decorate(function):
    return tf2.function(
      function,
      autograph=False,
      input_signature=[tf.TensorSpec([None] * rank, dtype) for dtype, rank in dtypes_and_ranks],
      experimental_attributes={'_noinline': True},
    )

  return decorate


def noinline_call(build: Callable[[], tf.Tensor]) -> tf.Tensor:
  """Builds a graph inside a function that is not inlined, and calls it.

  The executor visits all nodes of a branch, thousands of them, even if the
  branch is not taken. A call of a function is a single node.
  """
  return tf2.function(build, autograph=False, experimental_attributes={'_noinline': True})()

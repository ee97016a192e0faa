"""Functions whose graph a network of many layers holds once."""

from __future__ import annotations

from typing import Any, Callable

from rigl.compat import tf, tf2


def shared_graph(*dtypes_and_ranks: tuple[tf.DType, int]
                ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Decorates a pure function of tensors: it is built once and then called.

  Built anew for each layer, the search of the n-th largest score alone would
  be a few hundred nodes a layer, which cost memory and start-up time.

  Args:
    *dtypes_and_ranks: (type, rank) of each argument; dimensions are free.
  """

  def decorate(function):
    return tf2.function(
        function, autograph=False,
        input_signature=[tf.TensorSpec([None] * rank, dtype)
                         for dtype, rank in dtypes_and_ranks],
        experimental_attributes={'_noinline': True})

  return decorate


def called_apart(build: Callable[[], tf.Tensor]) -> tf.Tensor:
  """Builds in a function of its own, which costs nothing while not called.

  A branch that is not taken is not free: the executor visits all its nodes,
  thousands of them, at each step.
  """
  return tf2.function(
      build, autograph=False, experimental_attributes={'_noinline': True})()

"""Tests of rigl.core.shared_graphs."""

import numpy as np
import pytest

from rigl.compat import tf
from rigl.core import tf_selection
from rigl.core.shared_graphs import shared_graph
from tests import execution_modes

calls = []


@shared_graph((tf.float32, 1), (tf.int32, 0))
def _scaled(values, factor):
  calls.append(values.shape)
  return values * tf.cast(factor, tf.float32)


@pytest.mark.parametrize('mode', execution_modes.MODES)
def test_it_is_the_function_in_all_modes(mode):
  got = execution_modes.run(
    mode, lambda v, f: [_scaled(v, f)], np.asarray([1.0, -2.0], np.float32), np.asarray(3, np.int32)
  )[0]
  np.testing.assert_array_equal(got, [3.0, -6.0])


def test_it_is_built_once_for_all_sizes():
  with tf.Graph().as_default() as graph:
    _scaled(tf.zeros([2]), 1)
    n_calls = len(calls)
    for size in (3, 4, 5):
      _scaled(tf.zeros([size]), size)
    functions = graph.as_graph_def().library.function
  assert len(calls) == n_calls
  assert len(functions) == 1
  # If inlined, each call would copy the nodes.
  assert functions[0].attr['_noinline'].b


def test_a_saved_graph_can_be_imported_beside_another():
  """Graphs are saved with shapes, which differ in functions of the same name."""
  graphs = []
  for _ in range(2):
    with tf.Graph().as_default() as graph:
      tf_selection.top_k_mask(tf.zeros([4]), tf.constant(2))
      graphs.append(graph)
  with graphs[1].as_default():
    tf.import_graph_def(graphs[0].as_graph_def(add_shapes=True), name='other')


def test_other_types_are_rejected():
  with tf.Graph().as_default(), pytest.raises((TypeError, ValueError)):
    _scaled(tf.zeros([2], tf.int32), 1)

"""Functions that work in eager mode, and errors of those that need a graph."""

from __future__ import annotations

import numpy as np
import pytest

from rigl import sparse_utils
from rigl.compat import tf, tf2
from rigl.model_pruning import layers


@pytest.fixture(autouse=True)
def _is_eager():
  assert tf.executing_eagerly()


def test_masks_follow_the_seed():
  mask = tf2.Variable(np.ones([20, 20]), name='layer/mask')

  def draw(seed):
    tf2.random.set_seed(seed)
    sparse_utils.get_mask_init_fn([mask], 'random', 0.5, {})
    return mask.numpy()

  one, again, other = draw(1), draw(1), draw(2)
  assert (one == 0).sum() == 200
  np.testing.assert_array_equal(one, again)
  assert (one != other).any()


def test_masked_layers_need_a_graph():
  with pytest.raises(ValueError, match='ordinary variables of a graph'):
    layers.masked_fully_connected(tf.ones([2, 3]), 4)

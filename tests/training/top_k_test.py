"""Accuracies, against ranks in numpy."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.training import top_k


def in_top_k(labels, logits, k):
  with tf.Graph().as_default(), tf.Session() as session:
    outputs = top_k.in_top_k(tf.constant(labels, tf.int32), tf.constant(logits, tf.float32), k)
    assert outputs.dtype == tf.float32
    assert outputs.shape.as_list() == [len(labels)]
    return session.run(outputs)


@pytest.mark.parametrize('k', [1, 5])
def test_label_is_among_the_k_largest(k):
  rng = np.random.RandomState(0)
  # Of few values, so that many of them are equal.
  logits = rng.randint(0, 8, [200, 10])
  labels = rng.randint(0, 10, 200)
  ranks = np.argsort(np.argsort(-logits, axis=1, kind='stable'), axis=1)
  expected = ranks[np.arange(200), labels] < k
  assert 0 < expected.mean() < 1
  np.testing.assert_array_equal(in_top_k(labels, logits, k), expected)


def test_logits_that_are_all_equal_are_right_by_chance():
  labels = np.arange(10)
  assert in_top_k(labels, np.ones([10, 10]), 1).sum() == 1
  assert in_top_k(labels, np.ones([10, 10]), 5).sum() == 5


def test_the_largest_logit_is_that_of_argmax():
  logits = np.random.RandomState(0).randint(0, 3, [100, 10])
  np.testing.assert_array_equal(in_top_k(logits.argmax(1), logits, 1), 1.0)


def test_padding_is_never_right():
  assert not in_top_k([-1, -1], [[0.0, 1.0], [1.0, 0.0]], 2).any()


def test_fewer_classes_than_k():
  np.testing.assert_array_equal(in_top_k([0, 1, 2], np.eye(3), 5), 1.0)

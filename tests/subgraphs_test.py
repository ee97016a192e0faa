"""Tests of rigl.core.subgraphs."""

import numpy as np
import pytest

from rigl import subgraphs
from rigl.compat import tf, tf2

pytestmark = pytest.mark.usefixtures('graph')


def _value():
  """Depends on two operations, one of them by a control dependency."""
  with tf.control_dependencies([tf.constant(0.0, name='control')]):
    drawn = tf.random.stateless_uniform([3, 4], [1, 2])
  return tf.add(drawn, 1.0, name='sum')


def test_operations_behind():
  value = _value()
  tf.add(value, 1.0, name='after')
  names = {op.name for op in subgraphs.ancestors(value)}
  assert {'control', 'sum', 'sum/y'} < names
  assert 'after' not in names
  assert len(names) == len(subgraphs.ancestors(value))


def _inside(value, how):
  if how == 'here':
    return subgraphs.copy_here(value)
  if how == 'function':
    return tf2.function(lambda: subgraphs.copy_here(value), autograph=False)()
  return tf.cond(
    tf.placeholder_with_default(True, []),
    lambda: subgraphs.copy_here(value),
    lambda: tf.zeros([3, 4]),
  )


@pytest.mark.parametrize('how', ['here', 'function', 'branch'])
def test_a_copy_has_the_same_value(how):
  value = _value()
  with tf.Session() as session:
    expected, got = session.run([value, _inside(value, how)])
  np.testing.assert_array_equal(got, expected)
  assert expected.std() > 0.0


@pytest.mark.parametrize('how', ['function', 'branch'])
def test_a_copy_takes_nothing_from_outside(how):
  value = _value()
  outside = subgraphs.ancestors(_inside(value, how))
  assert value.op.name not in {op.name for op in outside}


def test_copies_stay_where_they_are_made():
  """The original may lie beside a variable on another device."""
  variable = tf.get_variable('v', [2], use_resource=True)
  with tf.device('/cpu:0'):
    value = tf.constant(1.0)
  with tf.colocate_with(variable.op):
    value = value + 1.0
  assert value.op.inputs[0].op.device
  assert '_class' in value.op.node_def.attr
  for op in subgraphs.ancestors(subgraphs.copy_here(value)):
    assert not op.device
    assert '_class' not in op.node_def.attr


def test_values_of_functions_can_be_copied():
  value = tf2.function(lambda: tf.range(3.0) + 1.0, autograph=False)()
  with tf.Session() as session:
    np.testing.assert_array_equal(session.run(_inside(value, 'function')), [1.0, 2.0, 3.0])

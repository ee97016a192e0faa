"""What is written for TensorBoard, by hand."""

from __future__ import annotations

import glob
import os
import shutil

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.model_pruning import layers, pruning
from rigl.training import summaries


def _layer():
  return layers.masked_fully_connected(
    tf.constant([[1.0, 2.0]]),
    2,
    activation_fn=None,
    scope='fc',
    weights_initializer=tf.constant_initializer([[3.0, -1.0], [0.0, 2.0]]),
    biases_initializer=None,
  )


def test_norms_by_hand(graph):
  loss = tf.reduce_sum(_layer())
  variables = tf.trainable_variables()
  gradients = list(zip(tf.gradients(loss, variables), variables))
  found = summaries.norm_summaries(gradients + [(None, variables[0])])
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    pruning.get_masks()[0].load([[1.0, 1.0], [1.0, 0.0]], session)
    values = session.run(found)
  assert values.pop('active_connections') == 3
  assert values.pop('nonzero_weights') == 2
  assert values.pop('l1_norm') == 4
  # d loss / d weights = [[1, 1], [2, 2 * 0]].
  assert values.pop('grad_norm') == pytest.approx(6**0.5)
  assert values.pop('var_norm') == pytest.approx(28**0.5)
  assert not values


def test_norms_without_masks(graph):
  variable = tf.get_variable('v', initializer=[3.0, 4.0])
  found = summaries.norm_summaries([(tf.constant([1.0, 0.0]), variable)])
  assert set(found) == {'grad_norm', 'var_norm'}


@pytest.mark.parametrize('shape, picture', [([2, 3], [1, 2, 3, 1]), ([3, 3, 4, 5], [1, 36, 5, 1])])
def test_mask_summaries(shape, picture, graph):
  values = np.zeros(shape, np.float32)
  values.flat[:3] = 1.0
  masks = [tf.get_variable(f'{layer}/mask', initializer=values) for layer in ('a', 'b/c')]
  tags = {'density/a', 'density/b/c', 'mask/a', 'global_sparsity'}
  assert set(summaries.mask_summaries(masks)) == tags
  found = summaries.mask_summaries(masks, with_img=True)
  assert set(found) == {*tags, 'mask/b/c'}
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    found = session.run(found)
  for layer in ('a', 'b/c'):
    assert found[f'density/{layer}'] == pytest.approx(3 / values.size)
    np.testing.assert_array_equal(found[f'mask/{layer}'], values.reshape(picture))
  assert found['global_sparsity'] == pytest.approx(1 - 3 / values.size)
  assert summaries.mask_summaries([]) == {}


def test_a_picture_of_a_wide_layer_is_its_first_corner(graph):
  most = summaries.MAX_PIXELS
  mask = np.zeros([most + 1, most + 2], np.float32)
  mask[most - 1, 2] = mask[most, 3] = mask[4, most] = 1.0
  with tf.Session() as session:
    picture = session.run(summaries.picture_of(tf.constant(mask)))
  assert picture.shape == (1, most, most, 1)
  assert np.argwhere(picture[0, :, :, 0]).tolist() == [[most - 1, 2]]


def test_formatted_tensors_have_a_dimension(graph):
  found = summaries.format_tensors(
    {'rate': 0.5, 'none': None},
    {'step': tf.constant(3, tf.int64)},
    {'image': tf.zeros([1, 2, 2, 1])},
  )
  assert {name: t.shape.as_list() for name, t in found.items()} == {
    'rate': [1],
    'step': [1],
    'image': [1, 2, 2, 1],
  }
  with tf.Session() as session:
    assert session.run(found['rate'])[0] == 0.5


def test_host_call_writes_means_over_replicas_when_due(tmp_path):
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.placeholder(tf.int64, [2])
    trained = tf.placeholder(tf.bool, [2])
    op = summaries.host_call_fn(
      str(tmp_path),
      step,
      steps_per_summary=2,
      trained=trained,
      rate=tf.constant([1.0, 2.0]),
      image=tf.zeros([2, 4, 4, 1]),
    )
    # As the hooks of TPUEstimator do.
    session.run(tf.get_collection('_SUMMARY_WRITER_V2'))
    for value, trains in ((0, True), (1, True), (2, False), (2, True)):
      session.run(op, {step: [value] * 2, trained: [trains] * 2})
    # A kill would lose what is only written at the end of the session.
    written = tmp_path / 'written'
    shutil.copytree(tmp_path, written)
  events = [
    (event.step, value.tag, value.tensor)
    for path in glob.glob(os.path.join(written, '*'))
    for record in tf2.data.TFRecordDataset(path).as_numpy_iterator()
    for event in [tf.Event.FromString(record)]
    for value in event.summary.value
  ]
  assert sorted((s, tag) for s, tag, _ in events) == [
    (0, 'image'),
    (0, 'rate'),
    (2, 'image'),
    (2, 'rate'),
  ]
  assert {float(tf2.make_ndarray(tensor)) for _, tag, tensor in events if tag == 'rate'} == {1.5}

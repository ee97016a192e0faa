"""Both loops train and evaluate to the same bits, on one device."""

from __future__ import annotations

import itertools

import pytest

from rigl.compat import tf, tf2
from rigl.core import methods
from rigl.training import config, tpu_estimator
from tests.faults import scripts

pytestmark = pytest.mark.skipif(
  not tpu_estimator.is_available(), reason='TensorFlow 2.16 removed Estimator'
)

QUICK = [
  ('mnist', 'rigl'),
  ('mnist', 'prune'),
  ('mnist', 'snip'),
  ('cifar', 'baseline'),
  ('imagenet', 'rigl'),
]


def arguments(script, data, folder, method, loop, **values):
  if script != 'mnist':
    values = {'mode': 'train_and_eval', **values}
  if script == 'imagenet':
    values = {'steps_per_eval': 6, 'export_model_freq': 6, **values}
  flags = scripts.MNIST_METHODS.get(method, {}) if script == 'mnist' else {}
  return scripts.arguments(script, data, folder, method, loop=loop, **{**flags, **values})


def summaries(folder):
  """{(folder, step, tag): value} of what TensorBoard shows."""
  found = {}
  for path in folder.rglob('events.*'):
    for record in tf2.data.TFRecordDataset(str(path)).as_numpy_iterator():
      event = tf.Event.FromString(record)
      for value in event.summary.value:
        where = path.parent.relative_to(folder), event.step, value.tag
        if value.tag != 'checkpoint_path':  # Each has a folder of its own.
          assert where not in found
          found[where] = (value.simple_value, value.tensor.SerializeToString())
  return found


def names(folder):
  """All files but those of TensorBoard, whose names have the time."""
  return {path.relative_to(folder) for path in scripts.files(folder)}


@pytest.mark.parametrize(
  'script, method',
  [
    case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow)
    for case in itertools.product(scripts.SCRIPTS, methods.METHODS)
  ],
)
def test_both_loops_do_the_same(script, method, data, servers, tmp_path):
  """Checkpoints, logs, evaluations, exports and what TensorBoard shows."""
  printed = []
  for loop in config.LOOPS:
    folder = tmp_path / loop
    result = servers(script).run(arguments(script, data, folder, method, loop))
    assert result.code == 0, result.stderr
    printed.append(
      [
        line.replace(str(folder), '').partition(' steps/s')[0].rstrip('0123456789. ')
        for line in result.stdout.splitlines()
      ]
    )
  one, two = (tmp_path / loop for loop in config.LOOPS)
  scripts.assert_same(one, two)
  assert names(one) == names(two)
  assert printed[0] == printed[1] and len(printed[0]) >= 4
  assert summaries(one) == summaries(two)


@pytest.mark.parametrize('first, second', [config.LOOPS, config.LOOPS[::-1]])
def test_one_goes_on_where_the_other_stopped(first, second, data, servers, tmp_path):
  for folder, loop, n in (('whole', first, 4), ('parts', first, 2), ('parts', second, 4)):
    result = servers('mnist').run(
      arguments('mnist', data, tmp_path / folder, 'rigl', loop, num_epochs=n)
    )
    assert result.code == 0, result.stderr
  scripts.assert_same(tmp_path / 'parts', tmp_path / 'whole')

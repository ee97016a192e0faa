"""The scripts train and resume on several replicas as on one."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.core import methods
from tests import combinations
from tests.faults import scripts


def run(servers, data, script, method, folder, **values):
  if script == 'mnist':
    # Small steps, which do not amplify rounding errors.
    values = {'mask_record_frequency': 0, 'learning_rate': 0.02, **values}
  result = servers(script).run(scripts.arguments(script, data, folder, method, **values))
  assert result.code == 0, result.stderr
  return result


# The optimizers of all methods are in tests/replicas_test.py too.
@pytest.mark.parametrize('method', combinations.quick(methods.METHODS, 'rigl'))
def test_masks_are_those_of_one_replica(method, data, servers, tmp_path):
  """Each of the two replicas has half of each batch."""
  results = [run(servers, data, 'mnist', method, tmp_path / str(n), num_replicas=n) for n in (1, 2)]
  scripts.assert_same_masks(tmp_path / '2', tmp_path / '1')
  # Reports are of the whole batch too.
  lines = [
    [line.split()[:3] for line in result.stdout.splitlines() if line.startswith('epoch')]
    for result in results
  ]
  assert lines[0] == lines[1] and len(lines[0]) == 4


@pytest.mark.parametrize(
  'script, method',
  [
    ('mnist', 'prune'),
    pytest.param('imagenet', 'rigl', marks=pytest.mark.slow),
    pytest.param('cifar', 'rigl', marks=pytest.mark.slow),
    pytest.param('cifar', 'prune', marks=pytest.mark.slow),
    pytest.param('cifar', 'dnw', marks=pytest.mark.slow),
    pytest.param('cifar', 'momentum', marks=pytest.mark.slow),
    pytest.param('cifar', 'snip', marks=pytest.mark.slow),
    pytest.param('imagenet', 'prune', marks=pytest.mark.slow),
    pytest.param('imagenet', 'set', marks=pytest.mark.slow),
  ],
)
def test_resumed_training_is_exact(script, method, data, servers, tmp_path):
  """Also the averages of batch norm, of which each replica sees a part."""
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  length = {'mnist': 'num_epochs', 'cifar': 'max_steps', 'imagenet': 'train_steps'}[script]
  half = {'mnist': 2, 'cifar': 8, 'imagenet': 8}[script]
  run(servers, data, script, method, whole, num_replicas=2)
  run(servers, data, script, method, parts, num_replicas=2, **{length: half})
  before = scripts.final_values(parts)
  run(servers, data, script, method, parts, num_replicas=2)
  scripts.assert_same(parts, whole)
  after = scripts.final_values(parts)
  assert any(not np.array_equal(value, after[name]) for name, value in before.items())


@pytest.mark.slow
def test_replicas_go_on_from_one(data, servers, tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  run(servers, data, 'mnist', 'rigl', whole)
  run(servers, data, 'mnist', 'rigl', parts, num_epochs=2)
  run(servers, data, 'mnist', 'rigl', parts, num_replicas=4)
  scripts.assert_same_masks(parts, whole)


@pytest.mark.slow
def test_reported_loss_is_the_mean_of_the_replicas(data, servers, tmp_path):
  """On the same batches; only batch norm makes a difference."""
  losses = []
  for n in (1, 2):
    result = run(
      servers,
      data,
      'cifar',
      'baseline',
      tmp_path / str(n),
      num_replicas=n,
      max_steps=1,
      summaries_steps=1,
    )
    words = result.stdout.split()
    losses.append(float(words[words.index('cross_entropy_loss') + 1]))
  assert 0.7 < losses[1] / losses[0] < 1.4

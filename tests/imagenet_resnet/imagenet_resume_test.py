"""A resumed ImageNet training equals one without interruption."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.core import methods
from rigl.training import history
from tests import checkpoint_values, combinations, imagenet_script


@pytest.fixture(autouse=True)
def short(monkeypatch):
  imagenet_script.shorten_networks(monkeypatch)


def assert_resumes(tmp_path, stops, total, changes=None, **values):
  """A training in parts, optionally with other flags, ends like a whole one."""
  whole = checkpoint_values.of(imagenet_script.run(tmp_path / 'whole', train_steps=total, **values))
  for stop in (*stops, total):
    folder = imagenet_script.run(
      tmp_path / 'parts', train_steps=stop, **{**values, **(changes or {})}
    )
  resumed = checkpoint_values.of(folder)
  trained, again = (
    [
      {name: value for name, value in row.items() if name != 'seconds'}
      for row in history.read(str(tmp_path / name))
      if row['split'] == 'train'
    ]
    for name in ('whole', 'parts')
  )
  assert [row['step'] for row in trained] == list(range(1, total + 1))
  assert again == trained
  assert whole['global_step'] == total
  assert sorted(whole) == sorted(resumed)
  for name, value in whole.items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)


# resnet_train_eval_test of CIFAR-10 resumes others, and
# sparse_optimizers_modes_test all optimizers.
@pytest.mark.parametrize('method', combinations.quick(methods.METHODS, 'momentum'))
def test_resumed_training_is_exact(method, tmp_path):
  """Stopped at a step that moves masks, batch norm and momentum on."""
  assert_resumes(tmp_path, [2], 5, training_method=method)


def test_in_the_next_epoch_and_with_evaluations_between(tmp_path):
  """Of 20 images the third batch is the last of the first epoch."""
  assert_resumes(
    tmp_path,
    [],
    6,
    {'mode': 'train_and_eval', 'steps_per_eval': 4},
    training_method='rigl',
    num_train_images=20,
  )


def test_finished_training_is_left_as_it_is(tmp_path, capsys):
  folder = imagenet_script.run(tmp_path, training_method='scratch')
  before = checkpoint_values.of(folder)
  for train_steps in (1, 2):
    imagenet_script.run(tmp_path, training_method='scratch', train_steps=train_steps)
    assert 'already holds 2 steps' in capsys.readouterr().out
    after = checkpoint_values.of(folder)
    for name, value in before.items():
      np.testing.assert_array_equal(after[name], value)


def test_seed_reaches_weights_masks_and_batches(tmp_path):
  runs = [
    checkpoint_values.of(
      imagenet_script.run(tmp_path / str(i), training_method='scratch', seed=seed)
    )
    for i, seed in enumerate((0, 0, 1))
  ]
  for name, value in runs[0].items():
    np.testing.assert_array_equal(runs[1][name], value, err_msg=name)
    if name.endswith(('/weights', 'moving_mean')):
      assert (runs[2][name] != value).any(), name
  assert any(
    (runs[2][name] != value).any() for name, value in runs[0].items() if name.endswith('/mask')
  )

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


# resnet_train_eval_test of CIFAR-10 resumes others, and
# sparse_optimizers_modes_test all optimizers.
@pytest.mark.parametrize('method', combinations.quick(methods.METHODS, 'momentum'))
def test_resumed_training_is_exact(method, tmp_path):
  """In the next epoch, after a step that moves masks, with an evaluation between."""
  # Of 20 images the third batch is the last of the first epoch.
  values = {'training_method': method, 'num_train_images': 20}
  whole = checkpoint_values.of(imagenet_script.run(tmp_path / 'whole', train_steps=6, **values))
  for stop in (4, 6):
    folder = imagenet_script.run(
      tmp_path / 'parts', train_steps=stop, mode='train_and_eval', **values
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
  assert [row['step'] for row in trained] == list(range(1, 7))
  assert again == trained
  assert whole['global_step'] == 6
  assert sorted(whole) == sorted(resumed)
  for name, value in whole.items():
    np.testing.assert_array_equal(resumed[name], value, err_msg=name)


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
  """The same seed gives the same bits: see test_resumed_training_is_exact."""
  one, two = (
    checkpoint_values.of(
      imagenet_script.run(tmp_path / str(seed), training_method='scratch', seed=seed)
    )
    for seed in (0, 1)
  )
  for name, value in one.items():
    if name.endswith(('/weights', 'moving_mean')):
      assert (two[name] != value).any(), name
  assert any((two[name] != value).any() for name, value in one.items() if name.endswith('/mask'))

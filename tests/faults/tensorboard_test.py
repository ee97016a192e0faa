"""The scripts' events, read with TensorBoard's own reader."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from tensorboard.backend.event_processing import plugin_event_accumulator

from rigl.compat import tf2
from rigl.core import methods
from rigl.mnist import mask_records
from tests import combinations
from tests.faults import scripts

# The CIFAR script reports by the hooks of the ImageNet script and takes longer: it is slow here.
ACCURACY = {'mnist': 'accuracy', 'cifar': 'accuracy', 'imagenet': 'top_1_accuracy'}


def shown(folder):
  """{tag: {step: value}} of a folder; of a picture its height and width."""
  events = plugin_event_accumulator.EventAccumulator(
    str(folder), size_guidance={'tensors': 0}
  ).Reload()
  found = {}
  for tag in events.Tags()['tensors']:
    if tag == 'checkpoint_path':  # No tag of TensorBoard: it has no metadata.
      continue
    kind = events.SummaryMetadata(tag).plugin_data.plugin_name
    # Not the graph.
    for event in events.Tensors(tag) if kind in ('scalars', 'images') else ():
      value = tf2.make_ndarray(event.tensor_proto)
      if kind == 'images':
        width, height, picture = value
        assert picture.startswith(b'\x89PNG')
        value = int(height), int(width)
      else:
        value = float(value)
      # What is written once is shown once.
      assert event.step not in found.setdefault(tag, {})
      found[tag][event.step] = value
  return found


def train(servers, data, script, folder, method, **values):
  if script == 'mnist':
    values = {'mask_record_frequency': 1, **scripts.MNIST_METHODS.get(method, {}), **values}
  else:
    values = {'mode': 'train_and_eval', **values}
  result = servers(script).run(scripts.arguments(script, data, folder, method, **values))
  assert result.code == 0, result.stderr
  return scripts.run_folder(folder)


@pytest.fixture(scope='module')
def trained(data, servers, tmp_path_factory):
  """fn(script, method) -> a folder above that of its run, trained once."""

  @functools.cache
  def get(script, method):
    folder = tmp_path_factory.mktemp('trained')
    train(servers, data, script, folder, method)
    return folder

  return get


# loops_test.py compares what both loops write.
@pytest.mark.parametrize(
  'script, method',
  combinations.quick(
    [('mnist', 'rigl'), ('cifar', 'set'), ('imagenet', 'rigl'), ('mnist', 'baseline')],
    ('mnist', 'rigl'),
    ('imagenet', 'rigl'),
    ('mnist', 'baseline'),
  ),
)
def test_tags_and_values(script, method, trained):
  above = trained(script, method)
  folder = scripts.run_folder(above)
  found, tests = shown(folder), shown(folder / 'eval')
  # Each in one chart.
  for tag in ('loss', ACCURACY[script]):
    assert tag in found and tag in tests
  assert {
    'learning_rate',
    'drop_fraction',
    'global_sparsity',
    'moved',
    'itop_rate',
    'dead_units',
  } <= {*found} | ({'drop_fraction'} if method == 'baseline' else set())

  masks = {
    name[: -len('/mask')]: value
    for name, value in scripts.final_values(above).items()
    if name.endswith('/mask')
  }
  assert bool(masks) == methods.METHODS[method].uses_masks
  assert {tag for tag in found if tag.startswith('density/')} == {
    f'density/{layer}' for layer in masks
  }
  last = max(found['itop_rate'])
  for layer, mask in masks.items():
    assert found[f'density/{layer}'][last] == pytest.approx(mask.mean())
  n_dead = sum((mask.reshape(-1, mask.shape[-1]).sum(0) == 0).sum() for mask in masks.values())
  assert found['dead_units'][last] == n_dead

  pictures = [tag for tag in found if tag.startswith('mask/')]
  assert len(pictures) == bool(masks)
  for tag in pictures:
    mask = masks[tag.removeprefix('mask/')]
    n_units = mask.shape[-1]
    assert set(found[tag].values()) == {(mask.size // n_units, n_units)}


@pytest.mark.parametrize('script', combinations.quick(scripts.SCRIPTS, 'mnist', 'imagenet'))
def test_it_shows_the_rows_of_metrics_jsonl(script, trained):
  folder = trained(script, 'rigl')
  found = shown(scripts.run_folder(folder))
  position = 'iteration' if script == 'mnist' else 'step'
  rows = {row[position]: row for row in scripts.rows_of(folder) if row['split'] == 'train'}
  for tag in ('moved', 'itop_rate', 'dead_units', 'global_sparsity'):
    assert {
      step: pytest.approx(row[tag.removeprefix('global_')]) for step, row in rows.items()
    } == found[tag]
  rates = [row['itop_rate'] for _, row in sorted(rows.items())]
  density = 1.0 - rows[max(rows)]['sparsity']
  assert density <= rates[0] < rates[-1] < 1.0 and rates == sorted(rates)


@pytest.mark.parametrize('script', combinations.quick(scripts.SCRIPTS, 'mnist'))
def test_two_processes_show_what_one_does(script, data, servers, trained, tmp_path):
  part = {'mnist': {'num_epochs': 2}, 'cifar': {'max_steps': 8}, 'imagenet': {'train_steps': 4}}
  for values in (part[script], {}):
    train(servers, data, script, tmp_path, 'rigl', **values)
  whole = trained(script, 'rigl')
  one, two = (shown(scripts.run_folder(folder)) for folder in (whole, tmp_path))
  assert set(one) == set(two)
  assert one == two


@pytest.mark.parametrize(
  'method',
  combinations.quick(
    [name for name, method in methods.METHODS.items() if method.uses_masks], 'rigl', 'snip', 'prune'
  ),
)
def test_itop_rate_of_the_masks_of_all_iterations(method, trained):
  """Compared with the union of all mask records."""
  folder = trained('mnist', method)
  (path,) = folder.rglob('*_masks.npz')
  records = mask_records.MaskRecords.load(path)
  # Before a step trains, RigL moves the first masks, and SNIP sets them.
  first = int(methods.METHODS[method].replaces_step)
  for row in scripts.rows_of(folder):
    if row['split'] == 'train':
      n_ever = n = 0
      for layer in records.shapes:
        masks = [records.mask(layer, i) for i in range(first, row['iteration'] + 1)]
        n_ever += np.any(masks, axis=0).sum()
        n += masks[0].size
      assert row['itop_rate'] == n_ever / n

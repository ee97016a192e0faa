"""Failing disks and files: a clear error, and no loss of good files."""

from __future__ import annotations

import functools
import os
import pathlib
import random
import shutil
import subprocess

import numpy as np
import pytest

from rigl import checkpoint_files
from tests import checkpoint_values, combinations
from tests.faults import scripts

# The others take longer, for the same code.
MNIST_FIRST = combinations.quick(scripts.MODULES, 'mnist')


@pytest.fixture
def disk(tmp_path):
  """fn(megabytes) -> the folder of a disk of that size."""
  mounted = []

  def mount(megabytes):
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', f'size={megabytes * 1024:.0f}k', 'tmpfs', str(folder)],
      capture_output=True,
      check=False,
    )
    if done.returncode:
      pytest.skip(f'cannot mount a disk: {done.stderr.decode()}')
    mounted.append(folder)
    return folder

  yield mount
  for folder in mounted:
    subprocess.run(['umount', str(folder)], check=True)


# --- Full disk, read-only folder ---------------------------------------------


@pytest.fixture(scope='module')
def whole_of(data, servers, tmp_path_factory):
  """fn(script) -> folder of a whole training, made once."""

  @functools.cache
  def get(script):
    folder = tmp_path_factory.mktemp('whole') / 'run'
    assert servers(script).run(scripts.arguments(script, data, folder, 'set')).code == 0
    return folder

  return get


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_full_disk_and_room_again(script, data, servers, disk, whole_of):
  """Names the file, keeps the last checkpoint, and resumes from it."""
  server = servers(script)
  whole = whole_of(script)
  sizes = {path: path.stat().st_size for path in whole.rglob('*') if path.is_file()}
  last = checkpoint_files.latest(str(scripts.run_folder(whole)))
  a_checkpoint = sum(size for path, size in sizes.items() if str(path).startswith(f'{last}.'))
  # The size of a whole training minus half a checkpoint.
  n_free = sum(sizes.values()) - a_checkpoint // 2
  n_all = 3 * sum(sizes.values()) // 2**20 + 4
  folder = disk(n_all)
  filler = folder / 'filler'
  argv = scripts.arguments(script, data, folder / 'run', 'set')
  with filler.open('wb') as file:
    file.write(bytes(n_all * 2**20 - n_free))
  error = scripts.error_line(server.run(argv))
  assert 'No space left on device' in error
  assert 'model.ckpt-' in error and str(folder) in error
  kept = scripts.run_folder(folder / 'run')
  prefix = checkpoint_files.latest(str(kept))
  assert prefix and f'The last good checkpoint is {prefix}.' in error
  checkpoint_files.read_tensors(prefix, ['global_step'])
  assert not list(kept.glob('*_temp'))
  filler.unlink()
  result = server.run(argv)
  assert result.code == 0, result.stderr
  scripts.assert_same(folder / 'run', whole)


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_read_only_folder(script, data, servers, disk):
  folder = disk(1)
  subprocess.run(['mount', '-o', 'remount,ro', str(folder)], check=True)
  error = scripts.error_line(
    servers(script).run(scripts.arguments(script, data, folder / 'run', 'set'))
  )
  assert 'Read-only file system' in error and str(folder) in error


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_file_in_place_of_the_folder(script, data, servers, tmp_path):
  path = tmp_path / 'run'
  path.write_text('mine')
  error = scripts.error_line(servers(script).run(scripts.arguments(script, data, path, 'set')))
  assert str(path) in error
  assert path.read_text() == 'mine'


# --- Damaged and foreign checkpoints -----------------------------------------


@pytest.fixture(scope='module')
def trained(data, servers, tmp_path_factory):
  """fn(script) -> folder of a training that is half done, made once."""
  made = {}

  def get(script):
    if script not in made:
      made[script] = tmp_path_factory.mktemp('trained') / 'run'
      result = servers(script).run(
        scripts.arguments(script, data, made[script], 'set', **HALF[script])
      )
      assert result.code == 0, result.stderr
    return made[script]

  return get


HALF = {'mnist': {'num_epochs': 2}, 'cifar': {'max_steps': 8}, 'imagenet': {'train_steps': 8}}


def truncate(path):
  path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])


def flip_bit(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 4
  path.write_bytes(content)


# (what happens, file it happens to); {} stands for the latest checkpoint.
DAMAGES = [
  (truncate, '{}.index'),
  (truncate, '{}.data-00000-of-00001'),
  (flip_bit, '{}.index'),
  (flip_bit, '{}.data-00000-of-00001'),
  (pathlib.Path.unlink, '{}.index'),
  (pathlib.Path.unlink, '{}.data-00000-of-00001'),
  (truncate, 'checkpoint'),
  (lambda path: path.write_bytes(b''), 'checkpoint'),
  (lambda path: path.write_bytes(b'\xff\x00\xfe'), 'checkpoint'),
]


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_damaged_checkpoint_is_named_and_nothing_begins(script, data, servers, trained, tmp_path):
  for number, (damage, name) in enumerate(DAMAGES):
    if script != 'mnist' and number % 3:
      continue  # All scripts use the same code.
    folder = pathlib.Path(shutil.copytree(trained(script), tmp_path / str(number)))
    run_folder = scripts.run_folder(folder)
    latest = os.path.basename(checkpoint_files.latest(str(run_folder)))
    path = run_folder / name.format(latest)
    damage(path)
    before = scripts.files(folder)
    error = scripts.error_line(servers(script).run(scripts.arguments(script, data, folder, 'set')))
    assert latest in error or str(path) in error, (name, error)
    after = scripts.files(folder)
    assert {p: c for p, c in after.items() if p.name.startswith(('model.ckpt', 'checkpoint'))} == {
      p: c for p, c in before.items() if p.name.startswith(('model.ckpt', 'checkpoint'))
    }


def test_any_flipped_bit_is_refused_or_harmless(trained, tmp_path):
  """At many random places in the files of a checkpoint."""
  rng = random.Random(0)
  folder = scripts.run_folder(trained('mnist'))
  prefix = checkpoint_files.latest(str(folder))
  good = checkpoint_values.of(prefix)
  n_refused = 0
  for suffix in ('index', 'data-00000-of-00001'):
    for _ in range(40):
      for other in ('index', 'data-00000-of-00001'):
        shutil.copy(f'{prefix}.{other}', f'{tmp_path}/model.ckpt-1.{other}')
      path = tmp_path / f'model.ckpt-1.{suffix}'
      content = bytearray(path.read_bytes())
      content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
      path.write_bytes(content)
      try:
        values = checkpoint_files.read_tensors(f'{tmp_path}/model.ckpt-1', good)
      except ValueError as error:
        assert f'{tmp_path}/model.ckpt-1' in str(error)
        assert '\n' not in str(error)
        n_refused += 1
        continue
      for name, value in good.items():
        np.testing.assert_array_equal(values[name], value)
  assert n_refused >= 70


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_lost_state_file_is_no_new_start(script, data, servers, whole_of, trained, tmp_path):
  """As after a kill before the first checkpoint is written."""
  folder = shutil.copytree(trained(script), tmp_path / 'run')
  (scripts.run_folder(folder) / 'checkpoint').unlink()
  result = servers(script).run(scripts.arguments(script, data, folder, 'set'))
  assert result.code == 0, result.stderr
  assert 'going on from' in result.stderr
  scripts.assert_same(folder, whole_of(script))


@pytest.mark.parametrize(
  'script, values, words',
  [
    ('mnist', {'training_method': 'rigl'}, ['training_method']),
    # The tests of the other scripts have some of these too.
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        ('cifar', {'resnet_width': 2}, ['resnet_width=1, not 2', 'train_dir']),
        ('cifar', {'batch_size': 5}, ['batch_size=10, not 5', 'train_dir']),
        ('imagenet', {'training_method': 'rigl'}, ['training_method']),
        ('imagenet', {'train_batch_size': 4}, ['train_batch_size=8, not 4', 'output_dir']),
        ('imagenet', {'width': 0.25}, ['width=0.125, not 0.25', 'output_dir']),
      ]
    ),
  ],
)
def test_checkpoint_of_another_training(script, values, words, data, servers, trained, tmp_path):
  folder = shutil.copytree(trained(script), tmp_path / 'run')
  before = scripts.files(folder)
  error = scripts.error_line(
    servers(script).run(scripts.arguments(script, data, folder, 'set', **values))
  )
  for word in (*words, str(folder)):
    assert word in error
  assert scripts.files(folder) == before


# --- Paths -------------------------------------------------------------------


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_spaces_and_unicode_in_paths(script, data, servers, trained, tmp_path):
  folder = shutil.copytree(trained(script), tmp_path / 'ein Wört ☃ 名')
  result = servers(script).run(scripts.arguments(script, data, folder, 'set'))
  assert result.code == 0, result.stderr
  assert int(scripts.final_values(folder)['global_step']) in (12, 16, 40)


@pytest.mark.parametrize('script', MNIST_FIRST)
def test_wildcards_in_paths_are_refused(script, data, servers, tmp_path):
  """TensorFlow would write checkpoints there and not find them again."""
  error = scripts.error_line(
    servers(script).run(scripts.arguments(script, data, tmp_path / 'a[1]', 'set'))
  )
  assert 'a[1]' in error and 'wildcards' in error
  assert not list(tmp_path.iterdir())

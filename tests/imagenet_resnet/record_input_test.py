"""The order of records, and unreadable files."""

from __future__ import annotations

import itertools

import pytest

from rigl.compat import tf
from rigl.core import messages
from rigl.imagenet_resnet import imagenet_data, record_input
from tests import tiny_imagenet

N = 23


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return tiny_imagenet.find(
    tiny_imagenet.write_folder(tmp_path_factory.mktemp('imagenet') / 'with [a] * in it')
  )


def places(make_dataset, n=None, graph_seed=None):
  """[(file, index)] of the first n records, or of all."""
  with tf.Graph().as_default(), tf.Session() as session:
    if graph_seed is not None:
      tf.set_random_seed(graph_seed)
    record = tf.data.make_one_shot_iterator(make_dataset()).get_next()
    found = []
    try:
      for _ in itertools.count() if n is None else range(n):
        path, index, _ = session.run(record)
        found.append((path.decode(), int(index)))
    except tf.errors.OutOfRangeError:
      pass
    return found


def training(data, n, seed=0, first=0, **options):
  return places(lambda: record_input.training_records(data, data.train, seed, first), n, **options)


def in_order(part):
  return [(path, i) for path in part.files for i in range(imagenet_data.count_records(path))]


@pytest.mark.parametrize('name', ['train', 'validation'])
def test_evaluation_visits_all_in_order(data, name):
  part = getattr(data, name)
  assert places(lambda: record_input.ordered_records(data, part)) == in_order(part)


def test_each_epoch_has_every_record_in_another_order(data):
  found = training(data, 3 * N)
  epochs = [found[i : i + N] for i in (0, N, 2 * N)]
  for epoch in epochs:
    assert sorted(epoch) == in_order(data.train)
    assert epoch != in_order(data.train)
  assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_the_seed_alone(data):
  found = training(data, 2 * N, seed=5)
  assert training(data, 2 * N, seed=5, graph_seed=99) == found
  assert training(data, 2 * N, seed=6) != found


@pytest.mark.parametrize('first', [1, N - 1, N, 2 * N + 5])
def test_begins_anywhere(data, first):
  assert training(data, 10, first=first) == training(data, first + 10)[first:]


def test_files_are_shuffled_too(data, monkeypatch):
  monkeypatch.setattr(record_input, 'SHUFFLE_BUFFER', 1)
  monkeypatch.setattr(record_input, 'CYCLE_LENGTH', 1)
  firsts = {training(data, 1, first=epoch * N)[0] for epoch in range(12)}
  assert firsts == {(path, 0) for path in data.train.files}


def test_files_are_read_in_turns(data, monkeypatch):
  monkeypatch.setattr(record_input, 'SHUFFLE_BUFFER', 1)
  assert [index for _, index in training(data, 6)] == [0, 0, 0, 1, 1, 1]


def damaged(tmp_path, change):
  """Data of which one file is changed after they were found."""
  folder = tiny_imagenet.write_folder(tmp_path / 'data')
  data = tiny_imagenet.find(folder)
  path = folder / 'train-00001-of-00003'
  change(path)
  return data, path


def start_of(path, n):
  """Where record n begins."""
  content, position = path.read_bytes(), 0
  for _ in range(n):
    position += int.from_bytes(content[position : position + 8], 'little') + 16
  return position


def flip_a_byte(path):
  content = bytearray(path.read_bytes())
  content[start_of(path, 2) + 100] ^= 1
  path.write_bytes(content)


def flip_a_length(path):
  content = bytearray(path.read_bytes())
  content[start_of(path, 2)] ^= 1
  path.write_bytes(content)


def truncate(path):
  path.write_bytes(path.read_bytes()[: start_of(path, 2) + 50])


def truncate_between(path):
  path.write_bytes(path.read_bytes()[: start_of(path, 2)])


@pytest.mark.parametrize('change', [flip_a_byte, flip_a_length, truncate, truncate_between])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_damage_is_named(tmp_path, mode, change):
  data, path = damaged(tmp_path, change)
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    if mode == 'train':
      training(data, N)
    else:
      places(lambda: record_input.ordered_records(data, data.train))
  begin = start_of(path, 2)
  size = data.train.sizes[1]
  assert (
    f'{messages.MARK}{path}: record 2 (counted from 0), at byte {begin} of {size}, cannot be read'
  ) in error.value.message


def test_a_file_that_has_gone(tmp_path):
  data, path = damaged(tmp_path, lambda path: path.unlink())
  with pytest.raises(tf.errors.InvalidArgumentError, match='has gone') as error:
    training(data, 1)
  assert str(path) in error.value.message


@pytest.mark.parametrize('number', [N - 1, N + 1])
@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_a_wrong_number_is_found_at_the_end(tmp_path, monkeypatch, mode, number):
  monkeypatch.setattr(imagenet_data, '_SMALL_BYTES', 0)
  folder = tiny_imagenet.write_folder(tmp_path)
  data = tiny_imagenet.find(folder, number)
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    if mode == 'train':
      training(data, 3 * N)
    else:
      places(lambda: record_input.ordered_records(data, data.train))
  assert (
    f'num_train_images is {number}, but the train files in {folder} hold '
    f'{N} images: give --num_train_images={N}.'
  ) in error.value.message


def test_skips_what_cannot_be_read(tmp_path, capfd):
  data, path = damaged(tmp_path, flip_a_byte)
  readable = [place for place in in_order(data.train) if place[0] != str(path) or place[1] < 2]
  assert (
    places(lambda: record_input.ordered_records(data, data.train, skips_corrupt=True)) == readable
  )
  assert f'Warning: {path}: record 2 ' in capfd.readouterr().err
  found = places(
    lambda: record_input.training_records(data, data.train, 0, 0, skips_corrupt=True), 2 * N
  )
  for epoch in (found[:N], found[N:]):
    assert set(epoch) == set(readable)
  assert (
    places(lambda: record_input.training_records(data, data.train, 0, N + 4, skips_corrupt=True), 5)
    == (found[N + 4 : N + 9])
  )


# Folders whose names C or TensorFlow's messages would write otherwise.
NAMES = ["it's", 'say "so"', 'back\\slash', 'a\\tb \\101', 'bild é 像', '[x] ]']


@pytest.mark.parametrize('warns', [False, True])
@pytest.mark.parametrize('name', NAMES)
def test_messages_show_names_as_they_are(name, warns, capfd, graph):
  message = tf.strings.join(
    [
      record_input.place(tf.constant(f'/data/{name}/train'), tf.constant(3)),
      f" has no 'image/encoded' under {name}.",
    ]
  )
  shown = f"/data/{name}/train: record 3 (counted from 0) has no 'image"
  with tf.Session() as session:
    check = record_input.check(tf.constant(False), message, warns)
    if warns:
      session.run(check)
      assert f'Warning: {shown}' in capfd.readouterr().err
      return
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
      session.run(check)
  reason = messages.reason(error.value)
  assert reason.startswith(shown) and reason.endswith(f' under {name}.')

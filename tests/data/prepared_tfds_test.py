"""What TensorFlow Datasets has prepared, read without it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rigl.compat import tf
from rigl.data import prepared_tfds
from tests import tiny_tfds

SHAPE = (6, 5, 3)


def examples(n):
  random_state = np.random.RandomState(n)
  return [(random_state.randint(0, 256, SHAPE).astype(np.uint8), i % 4)
          for i in range(n)]


def write(data_dir, version='1.0.0', n=7, shape=SHAPE):
  return tiny_tfds.write(data_dir, 'shapes', version, shape, 'png', 4, {
      'train': examples(n), 'test': examples(2)}, shard_length=3)


@pytest.fixture
def prepared(tmp_path):
  return write(tmp_path)


def read(folder, split='train', shape=SHAPE):
  return prepared_tfds.read_pictures(
      prepared_tfds.read_split(str(folder), 'shapes', split), shape)


def change_info(folder, **changes):
  path = folder / 'dataset_info.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_default_dir(monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', '~/data')
  monkeypatch.setenv('HOME', '/home/me')
  assert prepared_tfds.default_dir() == '/home/me/data'
  monkeypatch.setenv('TFDS_DATA_DIR', '')
  assert prepared_tfds.default_dir() == '/home/me/tensorflow_datasets'


def test_finds_the_newest_version_that_is_complete(tmp_path):
  assert prepared_tfds.find_prepared(str(tmp_path), 'shapes') is None
  for version in ('2.9.0', '2.10.0', '9.0.0.incompleteA1B2C3', 'extra'):
    folder = tmp_path / 'shapes' / version
    folder.mkdir(parents=True)
    (folder / 'dataset_info.json').touch()
  (tmp_path / 'shapes' / '3.0.0').mkdir()
  newest = str(tmp_path / 'shapes' / '2.10.0')
  assert prepared_tfds.find_prepared(str(tmp_path), 'shapes') == newest
  assert prepared_tfds.find_prepared(newest, 'shapes') == newest
  assert prepared_tfds.find_prepared(f'{newest}/', 'shapes') == f'{newest}/'
  for directory, name in ((tmp_path, 'other'), (newest, 'other'),
                          (tmp_path / 'shapes' / '3.0.0', 'shapes')):
    assert prepared_tfds.find_prepared(str(directory), name) is None


def test_reads_what_tensorflow_datasets_reads(prepared):
  import tensorflow_datasets as tfds

  images, labels = read(prepared)
  assert images.dtype == np.uint8 and labels.dtype == np.int64
  expected_images, expected_labels = zip(*examples(7))
  np.testing.assert_array_equal(images, expected_images)
  np.testing.assert_array_equal(labels, expected_labels)
  assert len(list(prepared.glob('shapes-train.tfrecord*'))) == 3
  with tf.Graph().as_default():
    theirs = tfds.as_numpy(tfds.builder_from_directory(prepared).as_dataset(
        split='train', batch_size=-1, shuffle_files=False,
        read_config=tfds.ReadConfig(interleave_cycle_length=1)))
  np.testing.assert_array_equal(images, theirs['image'])
  np.testing.assert_array_equal(labels, theirs['label'])


@pytest.mark.parametrize('n_lost', [1, 5, 100])
def test_a_truncated_file_is_named(prepared, n_lost):
  path, = prepared.glob('*train.tfrecord-00001*')
  path.write_bytes(path.read_bytes()[:-n_lost])
  with pytest.raises(ValueError, match='truncated record at') as error:
    read(prepared)
  assert str(error.value).startswith(f'{path}: expected 3 records')
  assert '\n' not in str(error.value)


def rewrite(path, change):
  """Changes the list of records of a file."""
  records = list(tf.io.tf_record_iterator(str(path)))
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in change(records):
      writer.write(record)


def without(feature):
  def change(records):
    example = tf.train.Example.FromString(records[1])
    del example.features.feature[feature]
    return [records[0], example.SerializeToString(), records[2]]
  return change


def with_picture(picture):
  def change(records):
    example = tf.train.Example.FromString(records[2])
    example.features.feature['image'].bytes_list.value[:] = [picture]
    return [*records[:2], example.SerializeToString()]
  return change


@pytest.mark.parametrize('change, message', [
    (lambda records: records[:2], 'expected 3 records, found 2'),
    (lambda records: [], 'expected 3 records, found 0'),
    (lambda records: records * 2, 'expected 3 records, found 6'),
    (lambda records: [*records[:2], b'\xff' * 50], 'each with a picture'),
    (without('image'), 'Feature: image'),
    (without('label'), 'Feature: label'),
    (with_picture(b'rubbish'), 'Unknown image file format'),
    (with_picture(b''), 'each with a picture'),
])
def test_wrong_records_are_named(prepared, change, message):
  path, = prepared.glob('*train.tfrecord-00001*')
  rewrite(path, change)
  with pytest.raises(ValueError, match=message) as error:
    read(prepared)
  assert str(error.value).startswith(f'{path}: ')
  assert '\n' not in str(error.value)


def test_a_damaged_file_is_named(prepared):
  path, = prepared.glob('*train.tfrecord-00002*')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match='corrupted record at') as error:
    read(prepared)
  assert str(path) in str(error.value)


def test_a_missing_file_is_named(prepared):
  path, = prepared.glob('*train.tfrecord-00001*')
  path.unlink()
  with pytest.raises(ValueError, match='No such file') as error:
    read(prepared)
  assert str(error.value).startswith(f'{path}: ')


def test_pictures_of_another_shape_are_named(tmp_path):
  folder = write(tmp_path, shape=(None, None, 3))
  with pytest.raises(ValueError, match=r'\(6, 6, 3\) .*\[6,5,3\]') as error:
    read(folder, shape=(6, 6, 3))
  assert f'{folder}/shapes-train.tfrecord-00000' in str(error.value)


def test_a_split_that_is_not_there(prepared):
  split = prepared_tfds.read_split(str(prepared), 'shapes', 'validation')
  assert split.files == split.lengths == ()
  with pytest.raises(ValueError, match='split validation: .* found none'):
    read(prepared, 'validation')


@pytest.mark.parametrize('content', ['', '{', '{}', '[]', '[[', '\x00'])
def test_a_damaged_description_is_named(prepared, content):
  path = prepared / 'dataset_info.json'
  path.write_text(content)
  with pytest.raises(ValueError, match='cannot use what Tensor') as error:
    read(prepared)
  assert str(path) in str(error.value)


@pytest.mark.parametrize('change, message', [
    ({'fileFormat': 'array_record'}, "'array_record'; prepare it with"),
    ({'splits': None}, 'TypeError'),
    ({'splits': [{}]}, "KeyError: 'name'"),
    ({'splits': [{'name': 'train'}]}, "KeyError: 'shardLengths'"),
    ({'splits': [{'name': 'train', 'shardLengths': ['many']}]}, "'many'"),
    *(({'splits': [{'name': 'train', 'shardLengths': ['1'],
                    'filepathTemplate': template}]}, message)
      for template, message in (
          ('{}', 'IndexError'), ('{OTHER}', "KeyError: 'OTHER'"),
          ('{', 'ValueError'), ('{SPLIT.other}', 'AttributeError'))),
])
def test_a_description_that_cannot_be_used(prepared, change, message):
  change_info(prepared, **change)
  with pytest.raises(ValueError, match=message) as error:
    read(prepared)
  assert str(prepared / 'dataset_info.json') in str(error.value)


def test_a_template_stays_in_the_folder(prepared):
  change_info(prepared, splits=[{
      'name': 'train', 'shardLengths': ['1'],
      'filepathTemplate': '/etc/../{SPLIT}-{SHARD_X_OF_Y}'}])
  split = prepared_tfds.read_split(str(prepared), 'shapes', 'train')
  assert split.files == (f'{prepared}/train-00000-of-00001',)

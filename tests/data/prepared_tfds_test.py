"""Finding and reading data prepared by TensorFlow Datasets."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from absl import logging

from rigl.compat import tf
from rigl.data import prepared_tfds
from tests import tiny_tfds

SHAPE = (6, 5, 3)


def examples(n):
  random_state = np.random.RandomState(n)
  return [(random_state.randint(0, 256, SHAPE).astype(np.uint8), i % 4) for i in range(n)]


def write(data_dir, version='1.0.0', name='shapes', shape=SHAPE):
  return tiny_tfds.write(
    data_dir,
    name,
    version,
    shape,
    'png',
    4,
    {'train': examples(7), 'test': examples(2)},
    shard_length=3,
  )


@pytest.fixture
def prepared(tmp_path):
  return write(tmp_path)


def read(folder, split='train', shape=SHAPE):
  return prepared_tfds.read_pictures(prepared_tfds.find(str(folder), 'shapes'), split, shape)


def test_default_dir(monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', '~/data')
  monkeypatch.setenv('HOME', '/home/me')
  assert prepared_tfds.default_dir() == '/home/me/data'
  monkeypatch.setenv('TFDS_DATA_DIR', '')
  assert prepared_tfds.default_dir() == '/home/me/tensorflow_datasets'


def test_a_default_dir_without_a_home_has_nothing(monkeypatch, no_home):
  monkeypatch.setenv('TFDS_DATA_DIR', '')
  assert prepared_tfds.find(prepared_tfds.default_dir(), 'shapes') is None


# --- Finding -----------------------------------------------------------------


def test_finds_the_newest_version_that_is_complete(tmp_path):
  assert prepared_tfds.find(str(tmp_path), 'shapes') is None
  write(tmp_path, '2.9.0')
  newest = str(write(tmp_path, '2.10.0'))
  for other in ('9.0.0.incompleteA1B2C3', 'extra', '3.0.0'):
    (tmp_path / 'shapes' / other).mkdir()
  for path in (tmp_path, tmp_path / 'shapes', newest, f'{newest}/'):
    builder = prepared_tfds.find(str(path), 'shapes')
    assert builder.data_dir.rstrip('/') == newest
  assert prepared_tfds.find(str(tmp_path), 'other') is None


def test_a_version_may_have_been_moved(tmp_path, prepared):
  folder = prepared.rename(tmp_path / 'copy')
  assert prepared_tfds.find(str(folder), 'shapes').data_dir == str(folder)


def test_another_data_set_is_named(prepared):
  for folder in (prepared, prepared.parent):
    with pytest.raises(ValueError, match='holds shapes as tfrecord, not other'):
      prepared_tfds.find(str(folder), 'other')


def test_another_format_is_named(prepared):
  change_info(prepared, fileFormat='array_record')
  with pytest.raises(ValueError, match='shapes as array_record, not shapes as'):
    read(prepared)


def test_a_description_without_a_format_is_older_than_formats(prepared):
  path = prepared / 'dataset_info.json'
  info = json.loads(path.read_text())
  del info['fileFormat']
  path.write_text(json.dumps(info))
  assert len(read(prepared)[1]) == 7


@pytest.mark.parametrize(
  'names',
  [
    ['shapes/1.0.0.incompleteA1B2C3'],
    ['shapes/1.0.0'],
    ['shapes/1.0.0/features.json', 'shapes/1.0.0.incomplete1'],
    ['shapes-train.tfrecord-00000-of-00001', 'features.json'],
    ['shapes/shapes-train.tfrecord-00000-of-00001'],
    ['1.0.0.incompleteA1B2C3'],
  ],
)
def test_what_is_half_prepared_is_named(tmp_path, names):
  for name in names:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if path.suffix != '.json' else path.touch()
  with pytest.raises(ValueError, match='only: .*dataset_info.json') as error:
    prepared_tfds.find(str(tmp_path), 'shapes')
  first = names[0].removeprefix('shapes/').split('/')[0]
  assert first in str(error.value)


def test_tensorflow_datasets_is_imported_only_for_its_data(tmp_path):
  for name in ('downloads', 'shapes', 'other/1.0.0'):
    (tmp_path / name).mkdir(parents=True)
  code = (
    'import sys; from rigl.data import prepared_tfds;'
    f'assert prepared_tfds.find({str(tmp_path)!r}, "shapes") is None;'
    'sys.exit("tensorflow_datasets" in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


# --- Descriptions ------------------------------------------------------------


def change_info(folder, **changes):
  path = folder / 'dataset_info.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize('file', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('content', ['', '{', '{}', '[]', '[[', '\x00', '1'])
def test_a_damaged_description_is_named(prepared, file, content):
  (prepared / file).write_text(content)
  with pytest.raises(ValueError, match='cannot use what Tensor') as error:
    read(prepared)
  assert str(error.value).startswith(f'{prepared}: ')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'splits',
  [
    None,
    [{}],
    [{'name': 'train', 'shardLengths': ['many']}],
    *(
      [{'name': 'train', 'shardLengths': ['1'], 'filepathTemplate': template}]
      for template in ('{OTHER}', '{', '{}')
    ),
  ],
)
def test_splits_that_cannot_be_used(prepared, splits):
  change_info(prepared, splits=splits)
  with pytest.raises(ValueError) as error:
    read(prepared)
  assert str(error.value).startswith(str(prepared))
  assert '\n' not in str(error.value)


def test_features_are_missing(prepared):
  (prepared / 'features.json').unlink()
  with pytest.raises(ValueError, match=f'{prepared}/features.json; No such'):
    read(prepared)


# Where a class can be named, as TensorFlow Datasets 4 has written it.
FEATURES = [
  '{"pythonClassName": "CLASS", "featuresDict": {"features": {}}}',
  '{"python_class_name": "CLASS", "features_dict": {"features": {}}}',
  '{"pythonClassName": '
  '"tensorflow_datasets.core.features.features_dict.FeaturesDict", '
  '"featuresDict": {"features": {"a": {"pythonClassName": "CLASS"}}}}',
  '{"type": "CLASS", "content": {}}',
  '{"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", '
  '"content": {"a": {"type": "CLASS", "content": {}}}}',
  '{"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", '
  '"proto_cls": "tensorflow_datasets.FeaturesDict", "content": '
  r'"{\"features\": {\"a\": {\"pythonClassName\": \"CLASS\"}}}"}',
]


@pytest.mark.parametrize('text', FEATURES)
def test_a_class_of_others_is_not_imported(prepared, text, module_that_must_not_run):
  name = f'{module_that_must_not_run}.Feature'
  for named in (name, ''.join(f'\\u{ord(letter):04x}' for letter in name)):
    (prepared / 'features.json').write_text(
      text.replace('CLASS', named.replace('\\', '\\\\') if r'\"' in text else named)
    )
    with pytest.raises(ValueError, match=f'names {name}, which is not of'):
      read(prepared)


@pytest.mark.parametrize('text', FEATURES)
def test_the_trap_of_such_a_class_works(prepared, text, tmp_path, monkeypatch):
  import tensorflow_datasets as tfds

  (tmp_path / 'evil_features.py').write_text('')
  monkeypatch.syspath_prepend(str(tmp_path))
  (prepared / 'features.json').write_text(text.replace('CLASS', 'evil_features.Feature'))
  with pytest.raises(ValueError):
    tfds.builder_from_directory(prepared)
  assert 'evil_features' in sys.modules
  del sys.modules['evil_features']


# --- Pictures ----------------------------------------------------------------


def test_reads_all_pictures_in_order(prepared):
  with tf.Graph().as_default() as graph:
    images, labels = read(prepared)
    # Data embedded in the caller's graph would end up in its checkpoints.
    assert not graph.get_operations()
  assert images.dtype == np.uint8 and labels.dtype == np.int64
  expected_images, expected_labels = zip(*examples(7))
  np.testing.assert_array_equal(images, expected_images)
  np.testing.assert_array_equal(labels, expected_labels)
  assert len(list(prepared.glob('shapes-train.tfrecord*'))) == 3


@pytest.mark.parametrize(
  'verbosity, is_heard', [(logging.ERROR, False), (logging.INFO, False), (logging.DEBUG, True)]
)
def test_its_reports_are_not_of_the_user(prepared, verbosity, is_heard, caplog):
  logging.set_verbosity(verbosity)
  read(prepared)
  assert bool(caplog.records) == is_heard
  assert logging.get_verbosity() == verbosity


@pytest.mark.parametrize('n_lost', [1, 5, 100])
def test_a_truncated_file_is_named(prepared, n_lost):
  (path,) = prepared.glob('*train.tfrecord-00001*')
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


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda records: records[:2], 'expected to contain 3 .* only 2 elements'),
    (lambda records: [], 'expected to contain 3 .* only 0 elements'),
    (lambda records: records * 2, 'expected to contain 3 .* at least 4'),
    (lambda records: [*records[:2], b'\xff' * 50], 'each with a picture'),
    (without('image'), 'Feature: image'),
    (without('label'), 'Feature: label'),
    (with_picture(b'rubbish'), 'Unknown image file format'),
    (with_picture(b''), 'each with a picture'),
  ],
)
def test_wrong_records_are_named(prepared, change, message):
  (path,) = prepared.glob('*train.tfrecord-00001*')
  rewrite(path, change)
  with pytest.raises(ValueError, match=message) as error:
    read(prepared)
  assert str(error.value).startswith(f'{path}: ')
  assert '\n' not in str(error.value)


def test_a_damaged_file_is_named(prepared):
  (path,) = prepared.glob('*train.tfrecord-00002*')
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)
  with pytest.raises(ValueError, match='corrupted record at') as error:
    read(prepared)
  assert str(path) in str(error.value)


def test_a_missing_file_is_named(prepared):
  (path,) = prepared.glob('*train.tfrecord-00001*')
  path.unlink()
  with pytest.raises(ValueError, match='No such file') as error:
    read(prepared)
  assert str(error.value).startswith(f'{path}: ')


@pytest.mark.parametrize('declared', [SHAPE, (None, None, 3)])
@pytest.mark.parametrize('shape', [(6, 6, 3), (5, 6, 3), (6, 5, 1)])
def test_pictures_of_another_shape_are_named(tmp_path, declared, shape):
  folder = write(tmp_path, shape=declared)
  with pytest.raises(ValueError, match=r'of shape \(\d, \d, \d\)') as error:
    read(folder, shape=shape)
  assert f'{folder}/shapes-train.tfrecord-00000' in str(error.value)
  assert f'its pictures are of shape {declared}' in str(error.value)


def test_a_split_that_is_not_there(prepared):
  with pytest.raises(ValueError, match='split validation: .* found none'):
    read(prepared, 'validation')

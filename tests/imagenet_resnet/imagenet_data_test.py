"""Finding ImageNet, and errors about its files."""

from __future__ import annotations

import json

import pytest

from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_data
from tests import tiny_imagenet
from tests.tiny_imagenet import find


def assert_rejects(directory, *texts, **options):
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    find(directory, **options)
  for text in texts:
    assert str(text) in str(error.value)


def test_finds_tfrecords(tmp_path):
  folder = tiny_imagenet.write_folder(tmp_path / 'fol[d] er *')
  data = find(folder)
  assert data.source == f'TFRecords in {folder}'
  assert not data.is_synthetic
  assert data.record_format == imagenet_data.TFRECORD_FORMAT
  assert data.train.files == tuple(str(folder / f'train-{i:05d}-of-00003') for i in range(3))
  assert len(data.validation.files) == 2
  assert data.train.sizes[1] == (folder / 'train-00001-of-00003').stat().st_size


# fn(part, number and number of files) -> path of a file.
LAYOUTS = {
  'one folder': lambda part, shard: f'{part}-{shard}',
  'sub-folders': lambda part, shard: f'{part}/{part}-{shard}',
  'val': lambda part, shard: f'{part[:5].removesuffix("id")}-{shard}',
  'sub-folder val': lambda part, shard: f'{part[:5].removesuffix("id")}/{part}-{shard}',
  '.tfrecord': lambda part, shard: f'{part}-{shard}.tfrecord',
  '.tfrecords': lambda part, shard: f'{part}/{part}-{shard}.tfrecords',
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_finds_tfrecords_as_others_name_them(tmp_path, layout):
  source = tiny_imagenet.write_folder(tmp_path / 'source')
  folder = tmp_path / 'imagenet'
  for path in source.iterdir():
    target = folder / LAYOUTS[layout](*path.name.split('-', 1))
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
  data = find(folder)
  for part, n in ((data.train, 3), (data.validation, 2)):
    assert part.files == tuple(
      str(folder / LAYOUTS[layout](part.name, f'{i:05d}-of-{n:05d}')) for i in range(n)
    )


@pytest.mark.parametrize('layout', LAYOUTS)
def test_one_of_the_files_is_missing(tmp_path, layout):
  for part, n in (('train', 3), ('validation', 2)):
    for i in range(1, n):
      path = tmp_path / LAYOUTS[layout](part, f'{i:05d}-of-{n:05d}')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.touch()
  path = tmp_path / LAYOUTS[layout]('train', '00000-of-00003')
  assert_rejects(tmp_path, f'{path.parent} lacks {path.name} of the 3 train files.')


@pytest.mark.parametrize(
  'names, words',
  [
    (
      ['imagenet.zip', 'a'],
      'holds only a, imagenet.zip. Archives are not unpacked here: imagenet.zip.',
    ),
    (
      ['ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'],
      'not unpacked here: ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar.',
    ),
    (['training-00000-of-00001'], 'holds only training-00000-of-00001.'),
    (
      ['n01440764/1.JPEG', 'n01443537/2.JPEG'],
      'has a folder of pictures for each class; such folders are not read',
    ),
    (['train/n01440764/1.JPEG'], 'train has a folder of pictures for each'),
    (['Data/CLS-LOC/train/n01440764/1.JPEG'], 'holds only Data.'),
  ],
)
def test_other_files_are_named(tmp_path, names, words):
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  assert_rejects(tmp_path, tmp_path, words, 'three ways')


def test_other_files_are_ignored(tmp_path):
  folder = tiny_imagenet.write_folder(tmp_path)
  for name in ('train-00000-of-00003.tmp', 'labels.txt', 'train-1-of-2'):
    (folder / name).touch()
  assert len(find(folder).train.files) == 3


def test_names_missing_shards(tmp_path):
  tiny_imagenet.write_folder(tmp_path)
  (tmp_path / 'train-00001-of-00003').unlink()
  assert_rejects(tmp_path, tmp_path, 'train-00001-of-00003')


@pytest.mark.parametrize(
  'other', ['validation-00000-of-00128', 'val-00000-of-00002', 'validation-00000-of-00002.tfrecord']
)
def test_two_data_sets_in_one_folder(tmp_path, other):
  tiny_imagenet.write_folder(tmp_path)
  (tmp_path / other).touch()
  assert_rejects(
    tmp_path,
    'validation files of more than one data set',
    'validation-*-of-00002',
    other.replace('00000', '*', 1),
  )


def test_one_part_is_enough_to_begin_with(tmp_path):
  tiny_imagenet.write_part(tmp_path, 'validation', tiny_imagenet.make_records(9), 2)
  data = find(tmp_path)
  assert not data.train.files
  assert 'without train' in data.source


@pytest.mark.parametrize('make_folder', [True, False])
def test_nothing_there(tmp_path, make_folder):
  path = tmp_path / 'data'
  if make_folder:
    path.mkdir()
  state = 'is empty' if make_folder else 'is not a folder'
  with pytest.raises(FileNotFoundError) as error:
    find(path)
  for text in (
    f'{path} {state}',
    'three ways',
    'validation-00000',
    'imagenet2012',
    '--use_synthetic_data',
    'sample_data',
  ):
    assert text in str(error.value)


@pytest.mark.parametrize('directory', ['', None])
def test_no_directory(directory):
  assert_rejects(directory, 'No --data_directory', 'three ways')


@pytest.mark.parametrize('option, found', [('num_train_images', 23), ('num_eval_images', 9)])
@pytest.mark.parametrize('layout', ['TFRecords', 'TFDS'])
def test_wrong_numbers_of_images(tmp_path, layout, option, found):
  write = {'TFRecords': tiny_imagenet.write_folder, 'TFDS': tiny_imagenet.write_tfds}[layout]
  write(tmp_path)
  for wrong in (found - 1, found + 1):
    assert_rejects(tmp_path, f'{option} is {wrong}', f'give --{option}={found}', **{option: wrong})


@pytest.mark.parametrize('option', ['num_train_images', 'num_eval_images', 'num_classes'])
def test_numbers_must_be_positive(option):
  assert_rejects('', option, '0', use_synthetic_data=True, **{option: 0})


@pytest.mark.parametrize('n_lost', [1, 5, 100])
def test_a_truncated_file_is_named(tmp_path, n_lost):
  tiny_imagenet.write_folder(tmp_path)
  path = tmp_path / 'train-00002-of-00003'
  n = imagenet_data.count_records(str(path))
  path.write_bytes(path.read_bytes()[:-n_lost])
  assert_rejects(tmp_path, path, f'record {n - 1} ', 'truncated')


def test_less_than_a_header_at_the_end_is_named(tmp_path):
  tiny_imagenet.write_folder(tmp_path)
  path = tmp_path / 'train-00002-of-00003'
  n = imagenet_data.count_records(str(path))
  path.write_bytes(path.read_bytes() + b'12345')
  assert_rejects(tmp_path, path, f'record {n} ', 'truncated')


def test_counts_records(tmp_path):
  records = [b'', b'a', b'bc' * 1000]
  (path,) = tiny_imagenet.write_part(tmp_path, 'train', records, 1)
  assert imagenet_data.count_records(str(path)) == 3
  path.write_bytes(b'')
  assert imagenet_data.count_records(str(path)) == 0


@pytest.mark.parametrize(
  'encoded, label, problem',
  [
    (None, 1, 'no picture'),
    (b'not a picture', 1, 'no JPEG or PNG, or damaged (Unknown image file'),
    (
      tiny_imagenet.encode(tiny_imagenet.make_pixels(0)),
      None,
      "no label from 1 to 5 under 'image/class/label'",
    ),
    (
      tiny_imagenet.encode(tiny_imagenet.make_pixels(0)),
      0,
      "no label from 1 to 5 under 'image/class/label', but 0",
    ),
    (
      tiny_imagenet.encode(tiny_imagenet.make_pixels(0)),
      6,
      "no label from 1 to 5 under 'image/class/label', but 6",
    ),
  ],
)
def test_a_useless_first_record(tmp_path, encoded, label, problem):
  records = tiny_imagenet.make_records(23)
  records[0] = tiny_imagenet.make_record(encoded, label)
  tiny_imagenet.write_folder(tmp_path, train_records=records)
  assert_rejects(tmp_path, tmp_path / 'train-00000-of-00003', 'record 0', problem)


def test_a_first_record_of_something_else(tmp_path):
  records = tiny_imagenet.make_records(23)
  records[0] = b'no protocol buffer'
  tiny_imagenet.write_folder(tmp_path, train_records=records)
  assert_rejects(tmp_path, 'record 0', 'is no tf.train.Example')


def test_the_first_record_may_be_in_a_later_file(tmp_path):
  records = tiny_imagenet.make_records(23)
  records[7] = tiny_imagenet.make_record(None, 1)
  tiny_imagenet.write_folder(tmp_path, train_records=records)
  (tmp_path / 'train-00000-of-00003').write_bytes(b'')
  assert_rejects(
    tmp_path, tmp_path / 'train-00001-of-00003', 'record 0 has no picture', num_train_images=16
  )


def test_large_files_are_not_counted(tmp_path, monkeypatch):
  monkeypatch.setattr(imagenet_data, '_SMALL_BYTES', 0)
  tiny_imagenet.write_folder(tmp_path)
  for path in tmp_path.glob('train-*'):
    path.write_bytes(b'')
  assert find(tmp_path).train.sizes == (0, 0, 0)


def test_files_that_are_no_tfrecords(tmp_path):
  tiny_imagenet.write_folder(tmp_path)
  path = tmp_path / 'train-00000-of-00003'
  path.write_bytes(b'something else ' * 100)
  assert_rejects(tmp_path, path, 'no TFRecord')


def test_finds_what_tfds_has_prepared(tmp_path, monkeypatch):
  folder = tiny_imagenet.write_tfds(tmp_path / 'tfds')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  for directory in (tmp_path / 'tfds', folder.parent, folder, ''):
    data = find(directory)
    assert data.source == f'TensorFlow Datasets imagenet2012 in {folder}'
    for part, n_files in ((data.train, 3), (data.validation, 2)):
      assert (
        part.files == tuple(map(str, sorted(folder.glob(f'*{part.name}*'))))
        and len(part.files) == n_files
      )


def test_tfds_with_a_missing_file(tmp_path):
  folder = tiny_imagenet.write_tfds(tmp_path)
  path = sorted(folder.glob('*train*'))[1]
  path.unlink()
  assert_rejects(tmp_path, f'{path} is missing')


def test_tfds_with_an_unusable_description(tmp_path):
  folder = tiny_imagenet.write_tfds(tmp_path)
  (folder / 'features.json').write_text('{')
  assert_rejects(tmp_path, folder, 'cannot use what TensorFlow Datasets has')


def test_tfds_of_something_else(tmp_path):
  folder = tiny_imagenet.write_tfds(tmp_path, name='imagenet_v2')
  assert_rejects(folder, folder, 'holds imagenet_v2', 'not imagenet2012')


def test_tfds_files_without_their_description(tmp_path):
  folder = tiny_imagenet.write_tfds(tmp_path)
  (folder / 'dataset_info.json').unlink()
  for directory in (folder.parents[1], folder.parent, folder):
    assert_rejects(directory, 'holds a part of imagenet2012 only', 'dataset_info.json')


def test_tfds_without_the_splits_wanted(tmp_path):
  folder = tiny_imagenet.write_tfds(tmp_path)
  path = folder / 'dataset_info.json'
  info = json.loads(path.read_text())
  for split in info['splits']:
    split['name'] += '_mini'
  path.write_text(json.dumps(info))
  assert_rejects(tmp_path, folder, 'neither a train nor a validation split')


def test_files_that_may_not_be_read(tmp_path, monkeypatch):
  tiny_imagenet.write_folder(tmp_path)
  # Not by file permissions, which root ignores.
  monkeypatch.setattr(imagenet_data.os, 'access', lambda *_: False)
  assert_rejects(tmp_path, 'train-00000-of-00003', 'permission denied')


def test_a_file_system_that_fails(tmp_path, monkeypatch):
  def fail(path):
    raise tf.errors.PermissionDeniedError(None, None, 'no credentials')

  monkeypatch.setattr(tf.gfile, 'ListDirectory', fail)
  monkeypatch.setattr(tf.gfile, 'Glob', fail)
  assert_rejects(tmp_path, tmp_path, 'cannot be read: no credentials')


def test_synthetic_data_are_not_read_from_a_folder(tmp_path, caplog):
  assert find(tmp_path, use_synthetic_data=True).is_synthetic
  assert [record.getMessage() for record in caplog.records] == [
    f'--use_synthetic_data is given: {tmp_path} is not read.'
  ]


def test_synthetic_data_say_so():
  data = find('', use_synthetic_data=True)
  assert data.is_synthetic
  assert data.source.startswith('synthetic: ')
  assert data.train.num_images == 23

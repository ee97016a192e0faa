"""Finding and reading CIFAR-10 in every supported format."""

from __future__ import annotations

import dataclasses
import gzip
import os
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

from rigl.cifar_resnet import cifar_data
from tests import tiny_cifar

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = tiny_cifar.make_images()
# Name -> the six files of a version.
CONTENTS = {
  'python': tiny_cifar.files(DATA, '', tiny_cifar.python_batch),
  'python5': tiny_cifar.files(DATA, '', lambda *part: tiny_cifar.python_batch(*part, protocol=5)),
  'python2': tiny_cifar.files(DATA, '', tiny_cifar.python2_batch),
  'binary': tiny_cifar.files(DATA, '.bin', tiny_cifar.binary_batch),
}
FOLDERS = {**dict.fromkeys(CONTENTS, 'cifar-10-batches-py'), 'binary': 'cifar-10-batches-bin'}
ARCHIVES = {**dict.fromkeys(CONTENTS, 'cifar-10-python.tar.gz'), 'binary': 'cifar-10-binary.tar.gz'}


def assert_is_the_data(data: cifar_data.CifarData) -> None:
  for field in dataclasses.fields(DATA):
    found = getattr(data, field.name)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, getattr(DATA, field.name))
  assert 'SYNTHETIC' not in data.source


def write(layout: str, version: str, path: pathlib.Path) -> pathlib.Path:
  """Writes a version in a layout; returns the --data_directory for it."""
  contents = CONTENTS[version]
  if layout == 'the files':
    return tiny_cifar.write_folder(path, contents)
  if layout == 'the folder of the archive':
    return tiny_cifar.write_folder(path / FOLDERS[version], contents).parent
  archive = tiny_cifar.write_archive(path / ARCHIVES[version], contents, FOLDERS[version])
  return path if layout == 'the archive' else archive


@pytest.mark.parametrize('version', CONTENTS)
@pytest.mark.parametrize(
  'layout', ['the files', 'the folder of the archive', 'the archive', 'its path']
)
def test_reads_both_versions_in_all_layouts(tmp_path, layout, version):
  directory = write(layout, version, tmp_path / 'fol der \u00e9')
  data = cifar_data.load_cifar(str(directory))
  assert_is_the_data(data)
  assert str(directory) in data.source


@pytest.mark.parametrize(
  'place',
  [
    'cifar-10-batches-py',  # Keras 2, torchvision
    'cifar-10-batches-py-target/cifar-10-batches-py',  # Keras 3
    'cifar-10-batches-py/cifar-10-batches-py',
    'cifar-10-python/cifar-10-batches-py',
  ],
)
def test_reads_what_others_unpack(tmp_path, place):
  tiny_cifar.write_folder(tmp_path / place, CONTENTS['python'])
  data = cifar_data.load_cifar(tmp_path)
  assert_is_the_data(data)
  assert data.source == f'the CIFAR-10 files in {tmp_path / place}'


@pytest.mark.parametrize(
  'name',
  [
    'cifar-10-python.tar.gz',  # torchvision
    'cifar-10-python',
    'cifar-10-batches-py.tar.gz',  # Keras 2
    'cifar-10-batches-py_archive',
    'cifar-10-batches-py-target_archive',
  ],
)  # Keras 3
def test_reads_the_archive_under_other_names(tmp_path, name):
  path = tiny_cifar.write_archive(tmp_path / name, CONTENTS['python'], FOLDERS['python'])
  data = cifar_data.load_cifar(tmp_path)
  assert_is_the_data(data)
  assert data.source == f'the CIFAR-10 archive {path}'


@pytest.mark.parametrize(
  'name', ['data_batch_1.mat', 'cifar-10-matlab.tar.gz', 'cifar-100-python', '1.png']
)
def test_other_files_are_named(tmp_path, name):
  (tmp_path / name).touch()
  is_archive = name.endswith('.gz')
  said = f'{tmp_path} holds only {name}.' + f' Archives are not unpacked here: {name}.' * is_archive
  with pytest.raises(FileNotFoundError, match=re.escape(said)):
    cifar_data.load_cifar(tmp_path)


def test_files_beside_those_of_a_part_are_named(tmp_path):
  contents = dict(CONTENTS['python'])
  contents['test_batch (1)'] = contents.pop('test_batch')
  folder = write('the files', 'python', tmp_path / 'a')
  (folder / 'test_batch').rename(folder / 'test_batch (1)')
  with pytest.raises(
    FileNotFoundError,
    match=(r'data_batch_5, test_batch \(1\)\. Expected .*; missing: test_batch\.'),
  ):
    cifar_data.load_cifar(folder)


def test_nothing_is_extracted_to_disk(tmp_path):
  directory = write('the archive', 'python', tmp_path / 'data')
  before = sorted(tmp_path.rglob('*'))
  cifar_data.load_cifar(directory)
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
  'parse, encode',
  [
    (cifar_data.parse_binary_batch, lambda row: b'\x07' + bytes(row)),
    (
      cifar_data.parse_python_batch,
      lambda row: pickle.dumps({b'data': np.array([row], np.uint8), b'labels': [7]}, 2),
    ),
  ],
)
def test_planes_worked_out_by_hand(parse, encode):
  row = [0] * 3072
  row[1] = 10  # Red of the pixel in row 0, column 1.
  row[1024 + 32] = 20  # Green of that in row 1, column 0.
  row[2048 + 2 * 32 + 5] = 30  # Blue of that in row 2, column 5.
  images, labels = parse(encode(row), 'file')
  assert labels.tolist() == [7]
  assert images.shape == (1, 32, 32, 3)
  assert images[0, 0, 1].tolist() == [10, 0, 0]
  assert images[0, 1, 0].tolist() == [0, 20, 0]
  assert images[0, 2, 5].tolist() == [0, 0, 30]
  assert images.sum() == 60


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
  'labels',
  [
    [1, 9],
    np.array([1, 9], np.uint8),
    np.array([1, 9]),
    np.array([1, 9], np.int32),
    list(np.array([1, 9])),
  ],
)
def test_what_labels_may_be(labels, protocol):
  batch = {'data': np.zeros((2, 3072), np.uint8), 'labels': labels}
  _, found = cifar_data.parse_python_batch(pickle.dumps(batch, protocol), 'file')
  assert found.dtype == np.uint8
  assert found.tolist() == [1, 9]


@pytest.mark.parametrize('make_folder', [True, False])
def test_nothing_there(tmp_path, make_folder):
  path = tmp_path / 'empty'
  if make_folder:
    path.mkdir()
  with pytest.raises(FileNotFoundError) as error:
    cifar_data.load_cifar(path)
  state = 'is empty' if make_folder else 'is not a folder'
  for text in (
    f'{path} {state}',
    'three ways',
    'data_batch_1',
    'cifar-10-python.tar.gz',
    'cifar-10-binary.tar.gz',
    '.bin',
    'TensorFlow Datasets',
    '--use_synthetic_data',
    '--data_directory',
  ):
    assert text in str(error.value)


def test_no_directory_given(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for variable in (str(tmp_path / 'none'), ''):
    monkeypatch.setenv('TFDS_DATA_DIR', variable)
    with pytest.raises(
      FileNotFoundError,
      match='No --data_directory is given'
      r'[\s\S]*three ways[\s\S]*--use_synthetic_data',
    ):
      cifar_data.load_cifar()


@pytest.mark.parametrize('layout', ['the files', 'the archive'])
@pytest.mark.parametrize(
  'version, name',
  [
    *(('python', name) for name in tiny_cifar.PYTHON_FILES),
    *(('binary', name) for name in tiny_cifar.BINARY_FILES),
  ],
)
def test_a_missing_file_is_named(tmp_path, monkeypatch, layout, version, name):
  contents = dict(CONTENTS[version])
  del contents[name]
  monkeypatch.setitem(CONTENTS, version, contents)
  directory = write(layout, version, tmp_path / 'data')
  with pytest.raises(FileNotFoundError, match=rf'missing: {name}\.$') as error:
    cifar_data.load_cifar(directory)
  assert str(directory) in str(error.value)


def python_batch_with(**changes) -> bytes:
  batch = {'data': np.zeros((4, 3072), np.uint8), 'labels': [1, 2, 3, 4]}
  batch.update(changes)
  return pickle.dumps({key: value for key, value in batch.items() if value is not None}, 2)


GOOD_BINARY = CONTENTS['binary']['test_batch.bin']


@pytest.mark.parametrize(
  'name, content, message',
  [
    (
      'test_batch.bin',
      GOOD_BINARY[:-1],
      'multiple of 3073 bytes, found 61459; the file is truncated',
    ),
    ('test_batch.bin', GOOD_BINARY + b'x', 'multiple of 3073 bytes'),
    ('test_batch.bin', b'<html>', 'multiple of 3073 bytes, found 6'),
    ('test_batch.bin', b'', 'expected images, found none'),
    ('test_batch.bin', b'\x0a' + GOOD_BINARY[1:], '0 to 9, found 10'),
    ('data_batch_3', python_batch_with()[:-50], 'complete pickle .* found 12'),
    ('data_batch_3', b'', 'complete pickle .* found 0 bytes'),
    ('data_batch_3', python_batch_with(labels=None), 'keys .*found data'),
    ('data_batch_3', python_batch_with(data=None), 'keys .*found labels'),
    (
      'data_batch_3',
      python_batch_with(labels=None, fine_labels=[1]),
      'keys data and labels, found data, fine_labels',
    ),
    ('data_batch_3', python_batch_with(labels=[1, 2, 3]), 'found 4 images and 3 labels'),
    ('data_batch_3', python_batch_with(labels=[1, 2, 3, 10]), '0 to 9, found 10'),
    ('data_batch_3', python_batch_with(labels=[1, 2, 3, -1]), '0 to 9, found -1'),
    ('data_batch_3', python_batch_with(labels=[1, 2, 3, 256 + 4]), '0 to 9, found 260'),
    ('data_batch_3', python_batch_with(labels=np.array([1, 2, 3, 260])), '0 to 9, found 260'),
    *(
      (
        'data_batch_3',
        python_batch_with(labels=labels),
        f'labels as 4 whole numbers, found {found}',
      )
      for labels, found in (
        ([1, 2, 3, 10**300], 'list'),
        (['a'] * 4, 'list'),
        ([True] * 4, 'list'),
        ([1.0, 2.0, 3.0, 4.0], 'list'),
        ([[1], [2, 3]], 'list'),
        ([[1]] * 4, 'list'),
        (3, 'int'),
        ({}, 'dict'),
        (b'1234', 'bytes'),
        (np.zeros((4, 1), np.uint8), r'uint8 of shape \(4, 1\)'),
      )
    ),
    ('data_batch_3', python_batch_with(data=b'x'), 'n, 3072.*found bytes'),
    (
      'data_batch_3',
      python_batch_with(data=np.zeros((4, 1024), np.uint8)),
      r'shape \[n, 3072\] .*, found uint8 of shape \(4, 1024\)',
    ),
    (
      'data_batch_3',
      python_batch_with(data=np.zeros((4, 3072), np.int64)),
      r'type uint8, found int64 of shape \(4, 3072\)',
    ),
    (
      'data_batch_3',
      python_batch_with(data=np.zeros((4, 3072), np.float32)),
      'refused: it holds an array of float32',
    ),
  ],
)
@pytest.mark.parametrize('layout', ['the files', 'the archive'])
def test_a_bad_file_is_named(tmp_path, monkeypatch, layout, name, content, message):
  version = 'binary' if name.endswith('.bin') else 'python'
  monkeypatch.setitem(CONTENTS, version, {**CONTENTS[version], name: content})
  directory = write(layout, version, tmp_path / 'data')
  with pytest.raises(ValueError, match=message) as error:
    cifar_data.load_cifar(directory)
  assert str(directory) in str(error.value)
  assert name in str(error.value).split(':')[0]


class Attack:
  def __init__(self, folder: pathlib.Path):
    self._folder = folder

  def __reduce__(self):
    return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize('layout', ['the files', 'the archive', 'its path'])
def test_a_malicious_pickle_is_refused(tmp_path, monkeypatch, layout):
  target = tmp_path / 'attacked'
  content = python_batch_with(data=Attack(target))
  monkeypatch.setitem(CONTENTS, 'python', {**CONTENTS['python'], 'data_batch_1': content})
  directory = write(layout, 'python', tmp_path / 'data')
  with pytest.raises(ValueError, match='data_batch_1: .*may be malicious'):
    cifar_data.load_cifar(directory)
  assert not target.exists()


def test_a_huge_file_is_not_read(tmp_path):
  folder = write('the files', 'python', tmp_path / 'data')
  with (folder / 'data_batch_2').open('wb') as file:
    file.truncate(10**12)  # It writes nothing.
  with pytest.raises(ValueError, match='data_batch_2: 1000000000000 bytes are'):
    cifar_data.load_cifar(folder)


@pytest.mark.parametrize('version', ['python', 'binary'])
def test_a_huge_file_is_not_unpacked(tmp_path, monkeypatch, version):
  path = write('its path', version, tmp_path / 'data')
  monkeypatch.setattr(cifar_data, '_MAX_FILE_BYTES', 1000)
  with pytest.raises(ValueError, match=r'_batch.*: \d+ bytes are too') as error:
    cifar_data.load_cifar(path)
  assert str(path) in str(error.value)


@pytest.mark.parametrize('version', ['python', 'binary'])
def test_truncated_archives(tmp_path, version):
  path = write('its path', version, tmp_path / 'data')
  content = path.read_bytes()
  for cut in (0, 1, 10, 500, len(content) // 2, len(content) - 9, len(content) - 1):
    path.write_bytes(content[:cut])
    with pytest.raises(ValueError, match=f'found {cut} bytes') as error:
      cifar_data.load_cifar(path.parent)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('version', ['python', 'binary'])
def test_flipped_bits_in_archives(tmp_path, version):
  path = write('its path', version, tmp_path / 'data')
  content = path.read_bytes()
  # The prefix of the log line does not matter.
  begin = content.index(b'\0', 10) + 1
  for position in np.random.RandomState(0).randint(begin, len(content), 40):
    damaged = bytearray(content)
    damaged[position] ^= 1 << (position % 8)
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError) as error:
      cifar_data.load_cifar(path.parent)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
  'content', [b'not an archive', gzip.compress(b'not a tar', mtime=0), gzip.compress(b'', mtime=0)]
)
def test_other_files_instead_of_an_archive(tmp_path, content):
  path = tmp_path / 'cifar.tar.gz'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='complete .tar.gz archive') as error:
    cifar_data.load_cifar(path)
  assert str(path) in str(error.value)


def test_what_follows_the_end_of_an_archive_is_checked_too(tmp_path):
  path = write('archive', 'python', tmp_path)
  tar = gzip.decompress(path.read_bytes()) + bytes(1 << 22)
  path.write_bytes(gzip.compress(tar))
  assert_is_the_data(cifar_data.load_cifar(tmp_path))
  path.write_bytes(gzip.compress(tar)[:-1])
  with pytest.raises(ValueError, match='complete .tar.gz archive'):
    cifar_data.load_cifar(tmp_path)


def test_an_archive_of_something_else(tmp_path):
  path = tiny_cifar.write_archive(tmp_path / 'a.tar.gz', {'train': b'x'})
  with pytest.raises(FileNotFoundError, match='missing: data_batch_1, '):
    cifar_data.load_cifar(path)


def test_a_part_of_cifar_is_warned_about(tmp_path, caplog):
  cifar_data.load_cifar(write('the files', 'binary', tmp_path / 'data'))
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 2
  assert 'train part has 50 images, that of CIFAR-10 has 50000' in messages[0]
  assert 'test part has 20 images, that of CIFAR-10 has 10000' in messages[1]


@pytest.fixture
def prepared(tmp_path):
  return tiny_cifar.write_tfds(tmp_path / 'tfds', DATA)


def test_data_prepared_by_tensorflow_datasets(tmp_path, prepared, monkeypatch):
  from rigl.compat import tf

  with tf.Graph().as_default() as graph:
    for directory in (prepared.parents[1], prepared, f'{prepared}/'):
      assert_is_the_data(cifar_data.load_cifar(directory))
    assert not graph.get_operations()
  monkeypatch.setenv('TFDS_DATA_DIR', str(prepared.parents[1]))
  data = cifar_data.load_cifar()
  assert_is_the_data(data)
  assert data.source == f'TensorFlow Datasets in {prepared}'
  # But not in place of an explicit folder.
  with pytest.raises(FileNotFoundError):
    cifar_data.load_cifar(tmp_path / 'none')


def test_a_damaged_prepared_file_is_named(prepared):
  (shard,) = prepared.glob('cifar10-train.tfrecord-00001*')
  shard.write_bytes(shard.read_bytes()[:-5])
  with pytest.raises(ValueError, match='truncated record') as error:
    cifar_data.load_cifar(prepared)
  assert str(shard) in str(error.value)


def test_another_data_set_in_the_folder(tmp_path):
  data = tiny_cifar.make_images(7, 3)
  data.train_images = data.train_images[:, :28, :28]
  data.test_images = data.test_images[:, :28, :28]
  folder = tiny_cifar.write_tfds(tmp_path, data)
  with pytest.raises(ValueError, match=r'\(28, 28, 3\)') as error:
    cifar_data.load_cifar(tmp_path)
  assert f'{folder}/cifar10-train.tfrecord' in str(error.value)


def test_synthetic_data_are_named_so_everywhere(tmp_path, caplog):
  data = cifar_data.load_cifar(str(tmp_path), use_synthetic_data=True)
  assert data.train_images.shape == (5000, 32, 32, 3)
  assert data.test_images.shape == (1000, 32, 32, 3)
  assert data.source.startswith('SYNTHETIC')
  assert 'not comparable' in data.source
  messages = [record.getMessage() for record in caplog.records]
  assert messages == [f'--use_synthetic_data is given: {tmp_path} is not read.']


def test_synthetic_data_of_other_sizes():
  data = cifar_data.make_synthetic(n_train=30, n_test=20)
  assert (len(data.train_images), len(data.test_labels)) == (30, 20)


def test_importing_does_not_import_tensorflow():
  code = (
    'import sys; import rigl.cifar_resnet.cifar_data;'
    'sys.exit("tensorflow" in sys.modules or '
    '"tensorflow_datasets" in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)

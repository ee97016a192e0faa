"""Finding and reading MNIST: IDX files, TensorFlow Datasets, the sample."""

from __future__ import annotations

import gzip
import importlib.util
import io
import itertools
import pathlib
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from rigl.mnist import mnist_data
from tests import tiny_tfds

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN_IMAGES = 'train-images-idx3-ubyte'
TRAIN_LABELS = 'train-labels-idx1-ubyte'


def idx(array: np.ndarray) -> bytes:
  header = struct.pack(f'>I{array.ndim}I', 0x800 + array.ndim, *array.shape)
  return header + array.astype(np.uint8).tobytes()


def digits(n_train: int = 40, n_test: int = 20) -> dict[str, np.ndarray]:
  random_state = np.random.RandomState(1)
  arrays = {}
  for part, n in (('train', n_train), ('t10k', n_test)):
    images = random_state.randint(0, 256, (n, 28, 28)).astype(np.uint8)
    arrays[f'{part}-images-idx3-ubyte'] = images
    arrays[f'{part}-labels-idx1-ubyte'] = np.arange(n, dtype=np.uint8) % 10
  return arrays


@pytest.fixture
def folder(tmp_path):
  """A complete tiny MNIST: images gzipped, labels not."""
  path = tmp_path / 'mnist'
  path.mkdir()
  for name, array in digits().items():
    if 'images' in name:
      (path / f'{name}.gz').write_bytes(gzip.compress(idx(array)))
    else:
      (path / name).write_bytes(idx(array))
  return path


def test_reads_idx_bytes_worked_out_by_hand(tmp_path):
  content = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3])
  path = tmp_path / 'images'
  path.write_bytes(content + bytes([1, 2, 3, 4, 5, 255]))
  image = mnist_data.read_idx(path, ndim=3)
  assert image.dtype == np.uint8
  assert image.tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@pytest.mark.parametrize('explicit', [True, False])
def test_loads_four_files_gzipped_or_not(folder, explicit):
  data = mnist_data.load_mnist(folder, explicit=explicit)
  arrays = digits()
  np.testing.assert_array_equal(data.train_images, arrays[TRAIN_IMAGES])
  np.testing.assert_array_equal(data.train_labels, arrays[TRAIN_LABELS])
  np.testing.assert_array_equal(data.test_images, arrays['t10k-images-idx3-ubyte'])
  np.testing.assert_array_equal(data.test_labels, arrays['t10k-labels-idx1-ubyte'])
  assert not data.is_sample
  assert str(folder) in data.source


def dotted(name: str) -> str:
  return name.replace('-idx', '.idx')


# Who writes it -> fn(name of a published file) -> its path in the folder.
LAYOUTS = {
  'published': lambda name: name,
  'dotted': dotted,
  'folders of Kaggle': lambda name: f'{name}/{name}',
  'dotted folders': lambda name: f'{dotted(name)}/{dotted(name)}',
  'dotted in folders': lambda name: f'{name}/{dotted(name)}',
  'root of torchvision': lambda name: f'MNIST/raw/{name}',
  'MNIST of torchvision': lambda name: f'raw/{name}',
  'labels alone in folders': lambda name: f'{name}/{name}' if 'labels' in name else dotted(name),
}


def write_layout(folder, layout, is_zipped=False, but=None):
  for name in digits().keys() - {but}:
    content = idx(digits()[name])
    path = folder / f'{LAYOUTS[layout](name)}{".gz" * is_zipped}'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if is_zipped else content)


@pytest.mark.parametrize('is_zipped', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_loads_what_others_unpack(tmp_path, layout, is_zipped):
  write_layout(tmp_path, layout, is_zipped)
  data = mnist_data.load_mnist(tmp_path)
  for (part, kind), array in zip(
    itertools.product(('train', 'test'), ('images', 'labels')), digits().values()
  ):
    np.testing.assert_array_equal(getattr(data, f'{part}_{kind}'), array)


@pytest.mark.parametrize('name', list(digits()))
@pytest.mark.parametrize('layout', LAYOUTS)
def test_one_of_four_files_is_missing(tmp_path, layout, name):
  write_layout(tmp_path, layout, but=name)
  with pytest.raises(FileNotFoundError, match=rf'missing: {name}\.$') as error:
    mnist_data.load_mnist(tmp_path)
  # So that a misspelt name can be seen.
  folder = tmp_path / LAYOUTS[layout](name).partition(name)[0]
  for path in folder.iterdir() if folder.is_dir() else ():
    assert path.name in str(error.value)


@pytest.mark.parametrize(
  'names, words',
  [
    ([], 'is empty'),
    (['train_images'], 'holds only train_images'),
    (
      ['b.txt', 'archive.zip'],
      'holds only archive.zip, b.txt. Archives are not unpacked here: archive.zip. Expected',
    ),
    ([str(i) for i in range(9)], 'holds only 0, 1, 2, 3, 4, 5, 6, 7 and 1 more'),
  ],
)
def test_other_files_are_named(tmp_path, names, words):
  for name in names:
    (tmp_path / name).touch()
  with pytest.raises(FileNotFoundError, match=f'{tmp_path} {words}'):
    mnist_data.load_mnist(tmp_path)


def write_npz(path, **changes):
  arrays = dict(zip(('x_train', 'y_train', 'x_test', 'y_test'), digits().values()))
  np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize('explicit', [True, False])
def test_loads_the_file_of_keras(tmp_path, explicit):
  write_npz(tmp_path / 'mnist.npz')
  data = mnist_data.load_mnist(tmp_path, explicit)
  np.testing.assert_array_equal(data.train_images, digits()[TRAIN_IMAGES])
  np.testing.assert_array_equal(data.train_labels, digits()[TRAIN_LABELS])
  assert len(data.test_images) == len(data.test_labels) == 20
  assert data.source == str(tmp_path / 'mnist.npz')


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'x_train': np.zeros((40, 28, 28))}, 'x_train of bytes, found float64'),
    ({'y_test': np.zeros(20, np.int64)}, 'y_test of bytes, found int64'),
    ({'y_test': np.zeros(19, np.uint8)}, '20 images, but .*y_test holds 19 '),
    ({'x_test': np.zeros((20, 784), np.uint8)}, 'x_test: expected images of 28'),
    ({'y_train': np.array([None])}, 'Object arrays cannot be loaded'),
  ],
)
def test_other_arrays_in_the_file_of_keras(tmp_path, changes, message):
  write_npz(tmp_path / 'mnist.npz', **changes)
  with pytest.raises(ValueError, match=f'mnist.npz.*{message}'):
    mnist_data.load_mnist(tmp_path)


def test_damage_of_the_file_of_keras_is_named(tmp_path):
  path = tmp_path / 'mnist.npz'
  write_npz(path)
  content = path.read_bytes()
  flipped = bytearray(content)
  flipped[len(content) // 2] ^= 1
  others = io.BytesIO(), io.BytesIO()
  np.savez(others[0], x=np.zeros(1))
  np.save(others[1], np.zeros(1))
  for damaged in (
    b'',
    b'rubbish',
    content[:-1],
    content[:1000],
    bytes(flipped),
    *(other.getvalue() for other in others),
  ):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='expected the arrays') as error:
      mnist_data.load_mnist(tmp_path)
    assert str(error.value).startswith(f'{path}: ')


def test_gzip_is_told_by_content_and_not_by_name(folder):
  path = folder / f'{TRAIN_IMAGES}.gz'
  path.write_bytes(gzip.decompress(path.read_bytes()))
  data = mnist_data.load_mnist(str(folder))
  np.testing.assert_array_equal(data.train_images, digits()[TRAIN_IMAGES])


@pytest.mark.parametrize('explicit', [True, False])
@pytest.mark.parametrize('name', list(digits()))
def test_missing_file_is_named(folder, name, explicit):
  for path in folder.glob(f'{name}*'):
    path.unlink()
  with pytest.raises(FileNotFoundError, match=rf'missing: {name}\.$'):
    mnist_data.load_mnist(folder, explicit=explicit)


@pytest.mark.parametrize('make_folder', [True, False])
def test_asked_for_folder_without_files(tmp_path, make_folder):
  path = tmp_path / 'empty'
  if make_folder:
    path.mkdir()
  with pytest.raises(FileNotFoundError) as error:
    mnist_data.load_mnist(path)
  state = 'is empty' if make_folder else 'is not a folder'
  for text in (f'{path} {state}', *digits()):
    assert text in str(error.value)


def test_read_idx_of_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='nothing-here: no such IDX file'):
    mnist_data.read_idx(tmp_path / 'nothing-here', ndim=1)


GOOD_LABELS = idx(np.arange(40) % 10)
# Without the time of the run, for names of tests are made of it.
ZIPPED_LABELS = gzip.compress(GOOD_LABELS, mtime=0)


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'expected an IDX header of 8 bytes, found 0 bytes'),
    (GOOD_LABELS[:7], 'expected an IDX header of 8 bytes, found 7 bytes'),
    (GOOD_LABELS[:-1], 'expected 40 bytes .*, found 39; the file is truncated'),
    (GOOD_LABELS + b'\0', 'expected 40 bytes .*, found 41; .* trailing data'),
    (b'\0\0\x08\x03' + GOOD_LABELS[4:] * 9, '0x00000801 .*found 0x00000803'),
    (b'\0\0\x0d\x01' + GOOD_LABELS[4:], '0x00000801 .*found 0x00000d01'),
    (b'<!DOCTYPE html>', '0x00000801 .*found 0x3c21444f'),
    (ZIPPED_LABELS[:-9], 'complete gzip file, found .*truncated'),
    (ZIPPED_LABELS[:12], 'complete gzip file, found 12 bytes'),
    (b'\x1f\x8b', 'complete gzip file, found 2 bytes'),
    (ZIPPED_LABELS[:-8] + bytes(8), 'complete gzip file, .*damaged'),
    (idx(np.arange(39) % 10), '40 images, but .*labels.* holds 39 labels'),
    (idx(np.arange(40) % 11), 'expected labels from 0 to 9, found 10'),
  ],
)
def test_bad_label_file_is_named(folder, content, message):
  path = folder / TRAIN_LABELS
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    mnist_data.load_mnist(folder, explicit=False)
  assert str(path) in str(error.value)


def test_corrupt_deflate_stream_is_named(folder):
  path = folder / f'{TRAIN_IMAGES}.gz'
  content = bytearray(path.read_bytes())
  content[10] = 0xFF
  path.write_bytes(bytes(content))
  with pytest.raises(ValueError, match='complete gzip file') as error:
    mnist_data.load_mnist(folder)
  assert str(path) in str(error.value)


@pytest.mark.parametrize(
  'shape, message',
  [
    ((40, 14, 14), r'28x28 pixels, found an array of shape \(40, 14, 14\)'),
    ((0, 28, 28), 'expected images, found none'),
  ],
)
def test_bad_image_shapes(folder, shape, message):
  path = folder / f'{TRAIN_IMAGES}.gz'
  path.write_bytes(gzip.compress(idx(np.zeros(shape))))
  with pytest.raises(ValueError, match=message) as error:
    mnist_data.load_mnist(folder)
  assert str(path) in str(error.value)


def test_header_of_a_giant_array_is_not_believed(tmp_path):
  path = tmp_path / 'images'
  path.write_bytes(struct.pack('>4I', 0x803, *[2**32 - 1] * 3))
  with pytest.raises(ValueError, match='the file is truncated'):
    mnist_data.read_idx(path, ndim=3)


def test_falls_back_on_the_sample_and_says_so_once(tmp_path, caplog):
  # Not the time that TensorFlow takes to import.
  importlib.import_module('rigl.data.prepared_tfds')
  start = time.perf_counter()
  data = mnist_data.load_mnist(tmp_path / 'none', explicit=False)
  assert time.perf_counter() - start < 2
  assert data.is_sample
  assert data.source.startswith('a sample of 5000 + 1000 digits, ')
  assert 'not comparable with those on MNIST' in data.source
  assert '--mnist=FOLDER' in data.source
  assert not caplog.records


def test_sample_holds_real_digits_of_every_class(tmp_path):
  data = mnist_data.load_mnist(tmp_path / 'none', explicit=False)
  assert data.train_images.shape == (5000, 28, 28)
  assert data.test_images.shape == (1000, 28, 28)
  assert np.bincount(data.train_labels).tolist() == [500] * 10
  assert np.bincount(data.test_labels).tolist() == [100] * 10
  # Mean of the 60,000 training digits of MNIST: 0.1307.
  assert data.train_images.mean() / 255 == pytest.approx(0.1307, abs=0.002)
  # The nearest class mean tells most digits of MNIST; nothing else would do.
  pixels = data.train_images.reshape(5000, -1).astype(float)
  means = np.stack([pixels[data.train_labels == d].mean(0) for d in range(10)])
  test = data.test_images.reshape(1000, -1).astype(float)
  distances = ((test[:, None] - means) ** 2).sum(-1)
  assert (distances.argmin(1) == data.test_labels).mean() > 0.75


def test_sample_is_small_and_has_a_licence_note():
  sizes = [path.stat().st_size for path in mnist_data.SAMPLE_FOLDER.iterdir()]
  assert len(sizes) == 5
  assert sum(sizes) < 1.1e6
  note = (mnist_data.SAMPLE_FOLDER / 'LICENSE-MNIST.txt').read_text()
  for name in ('LeCun', 'Cortes', 'Burges', 'Share Alike 3.0'):
    assert name in note


def prepare_tfds(data_dir, version='3.0.1', n_train=30):
  """Has TensorFlow Datasets prepare `digits(n_train)`; returns its folder."""
  arrays = digits(n_train)
  return tiny_tfds.write(
    data_dir,
    'mnist',
    version,
    (28, 28, 1),
    'png',
    10,
    {
      split: zip(
        arrays[f'{part}-images-idx3-ubyte'][..., None], arrays[f'{part}-labels-idx1-ubyte']
      )
      for split, part in (('train', 'train'), ('test', 't10k'))
    },
    shard_length=20,
  )


@pytest.fixture
def prepared(tmp_path, monkeypatch):
  """The folder of a prepared MNIST in the default data_dir."""
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'tfds'))
  return prepare_tfds(tmp_path / 'tfds')


def load_default(tmp_path):
  return mnist_data.load_mnist(tmp_path / 'none', explicit=False)


def test_prepared_tensorflow_datasets_are_used(prepared, tmp_path, caplog):
  from rigl.compat import tf

  with tf.Graph().as_default() as graph:
    data = load_default(tmp_path)
    # Data embedded in the caller's graph would end up in its checkpoints.
    assert not graph.get_operations()
  arrays = digits(30)
  np.testing.assert_array_equal(data.train_images, arrays[TRAIN_IMAGES])
  np.testing.assert_array_equal(data.train_labels, arrays[TRAIN_LABELS])
  assert data.train_labels.dtype == data.train_images.dtype == np.uint8
  assert data.test_images.shape == (20, 28, 28)
  assert not data.is_sample
  assert data.source == f'TensorFlow Datasets in {prepared}'
  assert not caplog.records


def test_a_damaged_prepared_file_is_named(prepared, tmp_path):
  (path,) = prepared.glob('mnist-train.tfrecord-00001*')
  path.write_bytes(path.read_bytes()[:-5])
  with pytest.raises(ValueError, match='truncated record') as error:
    load_default(tmp_path)
  assert str(path) in str(error.value)


def test_prepared_labels_out_of_range(prepared, tmp_path):
  from rigl.compat import tf

  (path,) = prepared.glob('mnist-test.tfrecord-00000*')
  record = next(tf.io.tf_record_iterator(str(path)))
  example = tf.train.Example.FromString(record)
  # As a byte it would be 3.
  example.features.feature['label'].int64_list.value[:] = [259]
  with tf.io.TFRecordWriter(str(path)) as writer:
    for _ in range(20):
      writer.write(example.SerializeToString())
  with pytest.raises(ValueError, match='split test: .* 0 to 9, found 259'):
    load_default(tmp_path)


@pytest.mark.parametrize('place', ['data_dir', 'data set', 'version'])
def test_an_asked_for_folder_may_hold_what_is_prepared(tmp_path, place):
  version = prepare_tfds(tmp_path)
  folder = {'data_dir': tmp_path, 'data set': version.parent, 'version': version}[place]
  data = mnist_data.load_mnist(folder)
  np.testing.assert_array_equal(data.train_images, digits(30)[TRAIN_IMAGES])
  assert data.source == f'TensorFlow Datasets in {version}'


def test_an_asked_for_folder_is_not_replaced_by_tensorflow_datasets(prepared, tmp_path):
  with pytest.raises(FileNotFoundError):
    mnist_data.load_mnist(tmp_path / 'none', explicit=True)


def test_importing_does_not_import_tensorflow():
  code = "import sys; import rigl.mnist.mnist_data;sys.exit('tensorflow' in sys.modules)"
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.fixture(scope='module')
def make_mnist_sample():
  path = ROOT / 'tools' / 'make_mnist_sample.py'
  spec = importlib.util.spec_from_file_location('make_mnist_sample', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_sample_tool_draws_balanced_and_reproducibly(folder, tmp_path, make_mnist_sample):
  outputs = [tmp_path / 'a', tmp_path / 'b']
  for output in outputs:
    make_mnist_sample.main(
      [f'--mnist={folder}', f'--output={output}', '--num_train=20', '--num_test=10']
    )
  contents = [{path.name: path.read_bytes() for path in output.iterdir()} for output in outputs]
  assert len(contents[0]) == 5
  assert contents[0] == contents[1]
  whole = mnist_data.load_mnist(folder)
  sample = mnist_data.load_mnist(outputs[0])
  assert np.bincount(sample.train_labels).tolist() == [2] * 10
  assert np.bincount(sample.test_labels).tolist() == [1] * 10
  positions = []
  for image, label in zip(sample.train_images, sample.train_labels):
    (same,) = np.nonzero((whole.train_images == image).all((1, 2)))
    assert whole.train_labels[same].tolist() == [label]
    positions.append(int(same[0]))
  assert positions == sorted(set(positions))


@pytest.mark.parametrize('flag', ['--mnist', '--output'])
def test_sample_tool_without_a_home_folder(folder, tmp_path, make_mnist_sample, flag, no_home):
  arguments = {'--mnist': folder, '--output': tmp_path / 'out', flag: '~/x'}
  with pytest.raises(SystemExit, match=f"{flag}='~/x': the home folder ~ is "):
    make_mnist_sample.main([f'{n}={value}' for n, value in arguments.items()])


@pytest.mark.parametrize(
  'n_train, message',
  [
    (50, 'at least 5 digits of class 0, found 4'),
    (15, 'positive multiple of 10, found 15'),
    (0, 'positive multiple of 10, found 0'),
  ],
)
def test_sample_tool_refuses_impossible_numbers(
  folder, tmp_path, make_mnist_sample, n_train, message
):
  with pytest.raises(SystemExit, match=message):
    make_mnist_sample.main(
      [
        f'--mnist={folder}',
        f'--output={tmp_path / "out"}',
        f'--num_train={n_train}',
        '--num_test=10',
      ]
    )
  assert not (tmp_path / 'out').exists()

"""The sample data set."""

from __future__ import annotations

import io
import pathlib
import re
import sys

import numpy as np
import pytest
from PIL import Image

from rigl.compat import tf, tf2
from rigl.imagenet_resnet import imagenet_data, sample_data

ROOT = pathlib.Path(__file__).parents[2]


def read(paths):
  with tf.Graph().as_default(), tf.Session() as session:
    record = tf.data.make_one_shot_iterator(tf.data.TFRecordDataset(paths)).get_next()
    examples = []
    try:
      while True:
        examples.append(tf.train.Example.FromString(session.run(record)))
    except tf.errors.OutOfRangeError:
      return examples


def test_writes_what_imagenet_has(tmp_path):
  paths = sample_data.write(str(tmp_path), 30, 20)
  assert sorted(paths) == sorted(map(str, tmp_path.iterdir()))
  train, validation = (
    read([path for path in paths if name in path]) for name in ('train-', 'validation-')
  )
  assert (len(train), len(validation)) == (30, 20)
  formats = []
  for example in train + validation:
    features = example.features.feature
    picture = Image.open(io.BytesIO(features['image/encoded'].bytes_list.value[0]))
    formats.append((picture.format, picture.mode))
    assert picture.size == (
      features['image/width'].int64_list.value[0],
      features['image/height'].int64_list.value[0],
    )
    assert all(48 <= side <= 96 for side in picture.size)
    label = features['image/class/label'].int64_list.value[0]
    assert (
      features['image/class/text'].bytes_list.value[0].decode() == (sample_data.CLASSES[label - 1])
    )
    assert len(features['image/object/bbox/xmin'].float_list.value) == 1
  assert formats.count(('PNG', 'RGB')) == formats.count(('JPEG', 'CMYK')) == 1
  assert formats.count(('JPEG', 'RGB')) == 48
  labels = [e.features.feature['image/class/label'].int64_list.value[0] for e in train]
  assert sorted(labels) == sorted(list(range(1, 11)) * 3)


def test_the_same_seed_draws_the_same(tmp_path):
  def contents(name, seed):
    return [
      pathlib.Path(path).read_bytes()
      for path in sample_data.write(str(tmp_path / name), 5, 3, seed)
    ]

  first = contents('a', 1)
  assert contents('b', 1) == first
  assert contents('c', 2) != first


def test_every_process_writes_the_same_bytes(tmp_path):
  """Otherwise the order of an example's features would be random."""
  paths = sample_data.write(str(tmp_path), 5, 3)
  records = [
    record for path in paths for record in tf2.data.TFRecordDataset(path).as_numpy_iterator()
  ]
  assert len(records) == 8
  for record in records:
    assert record == tf.train.Example.FromString(record).SerializeToString(deterministic=True)


def test_the_parts_are_different():
  def pictures(part):
    return {
      e.features.feature['image/encoded'].bytes_list.value[0]
      for e in sample_data.make_part(part, 10, 0)
    }

  assert not pictures('train') & pictures('validation')


def test_colours_tell_half_of_the_class():
  random_state = np.random.RandomState(0)
  for label, name in enumerate(sample_data.CLASSES):
    for _ in range(5):
      pixels = np.asarray(sample_data.draw_picture(label, random_state), float)
      middle = pixels[
        pixels.shape[0] // 2 - 5 : pixels.shape[0] // 2 + 5,
        pixels.shape[1] // 2 - 5 : pixels.shape[1] // 2 + 5,
      ]
      red, _, blue = np.median(middle.reshape(-1, 3), axis=0)
      assert (red > blue) == name.startswith('warm')


def test_a_folder_that_is_not_empty_stays(tmp_path):
  (tmp_path / 'train-00000-of-00004').write_text('another data set')
  with pytest.raises(ValueError, match='not an empty folder: choose another --output_dir'):
    sample_data.write(str(tmp_path), 1, 1)
  assert [path.name for path in tmp_path.iterdir()] == ['train-00000-of-00004']


@pytest.mark.parametrize('name', ['num_train', 'num_eval'])
def test_numbers_must_be_positive(tmp_path, name):
  with pytest.raises(ValueError, match=f'{name} must be > 0, got 0'):
    sample_data.write(str(tmp_path / 'x'), **{name: 0})
  assert not (tmp_path / 'x').exists()


def test_command(tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'shapes'
  monkeypatch.setattr(
    sys, 'argv', ['sample_data', f'--output_dir={folder}', '--num_train=12', '--num_eval=4']
  )
  sample_data.main()
  printed = capsys.readouterr().out
  for text in (
    f'--data_directory={folder}',
    '--num_train_images=12',
    '--num_eval_images=4',
    '--num_label_classes=10',
  ):
    assert text in printed
  # As in the page, but for sizes and folders.
  _, command = printed.split('To train on them:\n')
  page = (ROOT / 'docs' / 'imagenet.md').read_text()
  given, documented = (
    dict(re.findall(r'--(\w+)=(\S+)', text))
    for text in (
      command,
      page.partition('imagenet_train_eval --data_directory')[2].partition('```')[0],
    )
  )
  assert given.pop('data_directory') == str(folder)
  assert given.pop('output_dir') == f'{folder}_rigl'
  assert given.pop('train_batch_size') == '12'
  assert given.pop('eval_batch_size') == '4'
  for name in ('num_train_images', 'num_eval_images'):
    del given[name]
  assert given and given.items() <= documented.items()
  data = imagenet_data.find_data(
    str(folder), num_train_images=12, num_eval_images=4, num_classes=10
  )
  assert len(data.train.files) == 4


def test_command_with_a_mistake(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['sample_data', f'--output_dir={tmp_path}', '--num_train=-1'])
  with pytest.raises(SystemExit) as error:
    sample_data.main()
  assert error.value.code == 1
  assert capsys.readouterr().err == 'Error: num_train must be > 0, got -1.\n'


@pytest.mark.parametrize('folder', ['/proc', '/dev/null', '/dev/null/shapes'])
def test_a_folder_that_cannot_be_written_to(folder, monkeypatch, capsys):
  monkeypatch.setattr(
    sys, 'argv', ['sample_data', f'--output_dir={folder}', '--num_train=1', '--num_eval=1']
  )
  with pytest.raises(SystemExit) as error:
    sample_data.main()
  assert error.value.code == 1
  message = capsys.readouterr().err
  assert message.startswith('Error: ') and message.count('\n') == 1
  assert folder in message


def test_a_home_folder_that_nobody_knows(no_home, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['sample_data', '--output_dir=~/x'])
  with pytest.raises(SystemExit) as error:
    sample_data.main()
  assert error.value.code == 1
  message = capsys.readouterr().err
  assert message.startswith("Error: --output_dir='~/x': the home folder ~ is ")
  assert message.count('\n') == 1

"""Converting a folder of pictures to records for the ImageNet script."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from rigl.compat import tf, tf2
from rigl.imagenet_resnet import convert_images, imagenet_data, preprocessing
from tests import imagenet_script, quick_sessions, tiny_imagenet

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'your_data.md'
encode, make_pixels = tiny_imagenet.encode, tiny_imagenet.make_pixels


def fill(folder: pathlib.Path, n: int, first: int = 0) -> pathlib.Path:
  """A folder of n JPEGs."""
  folder.mkdir(parents=True)
  for i in range(n):
    (folder / f'{i:02d}.jpg').write_bytes(encode(make_pixels(first + i)))
  return folder


@pytest.fixture
def photos(tmp_path):
  """Three classes of ten, five and one pictures."""
  for first, (name, n) in enumerate((('rose', 10), ('Löwenzahn', 5), ('aster bleu', 1))):
    fill(tmp_path / 'photos' / name, n, 100 * first)
  return tmp_path / 'photos'


def command(monkeypatch, *arguments):
  """Runs the command; returns its exit code."""
  monkeypatch.setattr('sys.argv', ['convert_images', *map(str, arguments)])
  try:
    return convert_images.main()
  except SystemExit as error:
    return error.code


def read(folder, part):
  """[(class number, name, encoded picture)] of the files of a part."""
  found = []
  for path in sorted(folder.glob(f'{part}-*')):
    for record in tf2.data.TFRecordDataset(str(path)).as_numpy_iterator():
      feature = tf.train.Example.FromString(record).features.feature
      found.append(
        (
          feature['image/class/label'].int64_list.value[0] - 1,
          feature['image/filename'].bytes_list.value[0].decode(),
          feature['image/encoded'].bytes_list.value[0],
        )
      )
  return found


def names_in(folder, part):
  return {name for _, name, _ in read(folder, part)}


def hashes(folder):
  return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_every_picture_is_once_in_the_records_as_it_was(photos, tmp_path):
  done = convert_images.convert(str(photos), str(tmp_path / 'records'))
  # Sorted by code points; rounds 0.2 * (1, 10, 5), and the only one stays.
  assert done == convert_images.Converted(('Löwenzahn', 'aster bleu', 'rose'), 13, 3, True)
  labels = (tmp_path / 'records' / 'labels.txt').read_text('utf-8')
  assert labels == 'Löwenzahn\naster bleu\nrose\n'
  train, validation = (read(tmp_path / 'records', part) for part in ('train', 'validation'))
  assert np.bincount([number for number, *_ in train]).tolist() == [4, 1, 8]
  assert np.bincount([n for n, *_ in validation], minlength=3).tolist() == [1, 0, 2]
  for number, name, encoded in train + validation:
    assert name.split('/')[0] == done.class_names[number]
    assert (photos / name).read_bytes() == encoded
  assert len({name for _, name, _ in train + validation}) == 16
  # Classes are mixed.
  numbers = [number for number, *_ in train]
  assert numbers != sorted(numbers)


def test_a_class_keeps_a_picture_to_train_on(photos, tmp_path):
  # Half-up, 0.9 * (5, 1, 10) would be all of the first two.
  done = convert_images.convert(str(photos), str(tmp_path / 'records'), 0.9)
  assert done.num_train == 1 + 1 + 1
  assert {number for number, *_ in read(tmp_path / 'records', 'train')} == {0, 1, 2}


def test_same_bytes_whatever_the_order_of_the_folder(photos, tmp_path, monkeypatch):
  convert_images.convert(str(photos), str(tmp_path / 'a'))
  listdir = os.listdir
  monkeypatch.setattr(os, 'listdir', lambda path: listdir(path)[::-1])
  convert_images.convert(str(photos), str(tmp_path / 'b'))
  assert hashes(tmp_path / 'a') == hashes(tmp_path / 'b')
  convert_images.convert(str(photos), str(tmp_path / 'c'), seed=1)
  assert hashes(tmp_path / 'a') != hashes(tmp_path / 'c')
  assert names_in(tmp_path / 'a', 'validation') != names_in(tmp_path / 'c', 'validation')


# The network sees the colour without alpha.
def _with_alpha(mode):
  pixels = make_pixels(0)
  picture = Image.fromarray(pixels).convert(mode)
  picture.putalpha(Image.fromarray(pixels[..., 0]))
  return picture


PICTURES = {
  'RGB.jpg': ('JPEG', Image.fromarray(make_pixels(0))),
  'grey.jpeg': ('JPEG', Image.fromarray(make_pixels(0)).convert('L')),
  'cmyk.JPG': ('JPEG', Image.fromarray(make_pixels(0)).convert('CMYK')),
  'of a phone.jpg': ('MPO', Image.fromarray(make_pixels(0))),
  'alpha.png': ('PNG', _with_alpha('RGB')),
  'grey_alpha.png': ('PNG', _with_alpha('L')),
  'grey.png': ('PNG', Image.fromarray(make_pixels(0)).convert('L')),
  'palette.png': ('PNG', Image.fromarray(make_pixels(0)).quantize(64)),
  'bits.png': ('PNG', Image.fromarray(make_pixels(0)).convert('1')),
  '16 bits.png': ('PNG', Image.fromarray(make_pixels(0)[..., 0].astype(np.uint16) * 257)),
  'a PNG by content.jpg': ('PNG', Image.fromarray(make_pixels(0))),
  'one pixel.png': ('PNG', Image.fromarray(make_pixels(0)[:1, :1])),
  'a line ✓.jpg': ('JPEG', Image.fromarray(make_pixels(0, 1, 301))),
}


@pytest.mark.parametrize('name', PICTURES)
def test_pictures_of_each_kind_are_seen_in_colour(name, photos, tmp_path):
  image_format, picture = PICTURES[name]
  stream = io.BytesIO()
  picture.save(stream, image_format, **({} if image_format == 'PNG' else {'quality': 95}))
  (photos / 'rose' / name).write_bytes(stream.getvalue())
  convert_images.convert(str(photos), str(tmp_path / 'records'))
  (encoded,) = (
    encoded
    for part in ('train', 'validation')
    for _, name_, encoded in read(tmp_path / 'records', part)
    if name_ == f'rose/{name}'
  )
  with tf.Graph().as_default(), tf.Session() as session:
    seen = session.run(preprocessing.decode_all(tf.constant(encoded)))
  if picture.mode == 'I;16':
    expected = np.repeat(make_pixels(0)[..., :1], 3, -1)
  else:
    # Without what transparency would show of a background.
    colours = {'LA': 'L', 'RGBA': 'RGB'}.get(picture.mode, picture.mode)
    expected = np.asarray(picture.convert(colours).convert('RGB'), int)
  assert seen.shape == expected.shape
  assert np.abs(seen - expected.astype(int)).max() <= (0 if image_format == 'PNG' else 24)


@pytest.mark.parametrize('layout', [('train', 'validation'), ('train', 'val'), ('train',)])
def test_folders_for_the_parts(layout, tmp_path):
  for first, part in enumerate(layout):
    for name in 'ab':
      fill(tmp_path / 'photos' / part / name, 4, 10 * first)
  # Not every class need be there to evaluate on.
  if len(layout) == 2:
    fill(tmp_path / 'photos' / 'train' / 'c', 4, 20)
  done = convert_images.convert(str(tmp_path / 'photos'), str(tmp_path / 'records'), 0.25)
  is_drawn = len(layout) == 1
  assert done == (
    convert_images.Converted(('a', 'b'), 6, 2, True)
    if is_drawn
    else convert_images.Converted(('a', 'b', 'c'), 12, 8, False)
  )


def test_a_class_may_be_called_train(tmp_path):
  for name in ('train', 'plane'):
    fill(tmp_path / 'photos' / name, 3)
  done = convert_images.convert(str(tmp_path / 'photos'), str(tmp_path / 'records'))
  assert done.class_names == ('plane', 'train')


def test_what_file_managers_leave_is_no_picture(photos, tmp_path):
  for path in ('.DS_Store', 'rose/.hidden.jpg', 'rose/Thumbs.db'):
    (photos / path).write_bytes(b'x')
  done = convert_images.convert(str(photos), str(tmp_path / 'records'))
  assert done.num_train + done.num_eval == 16


def _bmp(photos):
  Image.fromarray(make_pixels(0)).save(photos / 'rose' / 'a.jpg', 'BMP')


def _cut(image_format):
  def cut(photos):
    encoded = encode(make_pixels(0), image_format)
    (photos / 'rose' / 'a.jpg').write_bytes(encoded[: len(encoded) // 2])

  return cut


def _write(path, content=b'x'):
  return lambda photos: (photos / path).write_bytes(content)


def _many(photos):
  for i in range(7):
    (photos / 'rose' / f'bad{i}.jpg').write_bytes(b'x')


def _tests_too(photos):
  for name in ('train', 'validation', 'test'):
    fill(photos.parent / 'parts' / name / 'rose', 1)
  photos.rename(photos.parent / 'old')
  (photos.parent / 'parts').rename(photos)


def _parts(*paths, empty=()):
  def make(photos):
    photos.rename(photos.parent / 'old')
    for path in paths:
      fill(photos / path, 2)
    for path in empty:
      (photos / path).mkdir(parents=True)

  return make


# {kind: (what is done to the folder, what the error must say)}.
MISTAKES = {
  'nothing there': (
    lambda photos: photos.rename(photos.parent / 'old'),
    ['--input=', 'is no folder'],
  ),
  'empty': (_parts(empty=['']), ['a folder for each class', 'nothing']),
  'pictures without a class': (_write('a.jpg'), ['a folder for each class', 'a.jpg']),
  'another format': (_bmp, ['1 of 17', "rose/a.jpg'", 'BMP', 'JPEG or PNG']),
  'cut JPEG': (_cut('JPEG'), ['1 of 17', "rose/a.jpg'"]),
  'cut PNG': (_cut('PNG'), ['1 of 17', "rose/a.jpg'"]),
  'no byte': (_write('rose/a.jpg', b''), ["rose/a.jpg' (no picture)"]),
  'a text': (_write('rose/notes.txt'), ["rose/notes.txt' (no picture)"]),
  'a folder in a class': (
    lambda photos: (photos / 'rose' / 'more').mkdir(),
    ["rose/more' (a folder in that of a class)"],
  ),
  'many damaged files': (_many, ['7 of 23', 'bad0.jpg', 'bad4.jpg', 'and 2 more']),
  'a class without pictures': (
    lambda photos: (photos / 'tulip').mkdir(),
    ['without a picture: tulip'],
  ),
  'a line break in a name': (
    lambda photos: (photos / 'rose').rename(photos / 'ro\nse'),
    [r"'ro\nse'", 'rename'],
  ),
  'a name that is no text': (
    lambda photos: os.rename(bytes(photos / 'rose'), bytes(photos / 'ros') + b'\xe9'),
    [r"'ros\udce9'", 'rename'],
  ),
  'only one picture a class': (_parts('a', 'b'), ['none for validation', '--validation_share']),
  'train, validation and test': (_tests_too, ['a folder in that of a class']),
  'both names of validation': (_parts('train/a', 'validation/a', 'val/a'), ['both']),
  'a class that is only validated': (
    _parts('train/a', 'validation/b'),
    ['validation has classes', ': b.'],
  ),
  'empty validation': (_parts('train/a', empty=['validation/a']), ['has no pictures']),
}


@pytest.mark.parametrize('kind', MISTAKES)
def test_a_folder_that_cannot_be_converted(kind, photos, tmp_path, monkeypatch, capsys):
  make, words = MISTAKES[kind]
  make(photos)
  assert command(monkeypatch, f'--input={photos}', f'--output={tmp_path / "records"}') == 2
  message = capsys.readouterr().err
  assert message.startswith('Error: ') and message.count('\n') == 1
  for word in words:
    assert word in message
  assert not [path for path in tmp_path.iterdir() if 'records' in path.name]


@pytest.mark.parametrize('size', ['all', -1, -2, -3, -10, 200])
def test_what_is_accepted_can_be_decoded(size, photos, tmp_path):
  """A truncated picture must not stop a training."""
  encoded = encode(make_pixels(3, 60, 60))
  encoded = encoded if size == 'all' else encoded[:size]
  (photos / 'rose' / 'a.jpg').write_bytes(encoded)
  try:
    convert_images.convert(str(photos), str(tmp_path / 'records'))
  except ValueError:
    assert size != 'all'
    return
  with tf.Graph().as_default(), tf.Session() as session:
    session.run(preprocessing.decode_all(tf.constant(encoded)))


@pytest.mark.parametrize('kind', ['records', 'a file', 'inside'])
def test_nothing_is_written_over(kind, photos, tmp_path, monkeypatch, capsys):
  output = tmp_path / 'records'
  if kind == 'records':
    convert_images.convert(str(photos), str(output))
  elif kind == 'a file':
    output.write_text('mine')
  else:
    output = photos / 'records'
  before = sorted(tmp_path.rglob('*'))
  assert command(monkeypatch, f'--input={photos}', f'--output={output}') == 2
  message = capsys.readouterr().err
  assert message.count('\n') == 1 and str(output) in message
  assert 'choose another' in message
  assert sorted(tmp_path.rglob('*')) == before


def test_an_empty_folder_may_be_there(photos, tmp_path):
  (tmp_path / 'records').mkdir()
  convert_images.convert(str(photos), str(tmp_path / 'records'))
  assert (tmp_path / 'records' / 'labels.txt').exists()


@pytest.mark.parametrize(
  'error',
  [
    OSError('disk full'),
    KeyboardInterrupt(),
    tf.errors.ResourceExhaustedError(None, None, 'disk full'),
  ],
)
def test_nothing_stays_half_written(error, photos, tmp_path, monkeypatch):
  write, calls = convert_images.record_output.write_file, []

  def write_once(*arguments):
    if calls:
      raise error
    calls.append(write(*arguments))

  monkeypatch.setattr(convert_images.record_output, 'write_file', write_once)
  expected = ValueError if isinstance(error, tf.errors.OpError) else type(error)
  with pytest.raises(expected, match='disk full|^$'):
    convert_images.convert(str(photos), str(tmp_path / 'records'))
  assert calls and [path.name for path in tmp_path.iterdir()] == ['photos']


@pytest.mark.parametrize('share', [0.0, 1.0, -0.1, float('nan')])
def test_shares_that_cannot_be(share, photos, tmp_path):
  with pytest.raises(ValueError, match=r'validation_share must be in \(0, 1\)'):
    convert_images.convert(str(photos), str(tmp_path / 'records'), share)


def test_large_parts_have_several_files(photos, tmp_path, monkeypatch):
  monkeypatch.setattr(convert_images, '_MAX_PER_FILE', 6)
  convert_images.convert(str(photos), str(tmp_path / 'records'))
  # 13 and 3 pictures, at most 6 a file.
  assert sorted(path.name for path in (tmp_path / 'records').iterdir()) == [
    'labels.txt',
    *(f'train-0000{i}-of-00003' for i in range(3)),
    'validation-00000-of-00001',
  ]
  assert len(names_in(tmp_path / 'records', 'train')) == 13


def test_from_pictures_to_the_name_of_a_class(photos, tmp_path, monkeypatch, capsys):
  """Converts, trains by the printed command, exports, and names a picture."""
  monkeypatch.chdir(tmp_path)
  records = tmp_path / 'flowers_records'
  assert command(monkeypatch, f'--input={photos}', f'--output={records}') == 0
  printed = capsys.readouterr().out
  assert '13 training and 3 validation pictures' in printed
  assert 'a share of 0.2 of each class, drawn with seed 0' in printed
  words = shlex.split(printed.partition('epochs:\n')[2].replace('\\\n', ' '))
  assert words[:3] == ['python', '-m', 'rigl.imagenet_resnet.imagenet_train_eval']
  given = dict(re.fullmatch(r'--(\w+)=(.*)', word).groups() for word in words[3:])
  script, flags = imagenet_script.script, imagenet_script.FLAGS
  # No number but the printed ones; then a shorter training of a small network.
  imagenet_script.set_flags(use_synthetic_data=False)
  flags(
    [
      words[2],
      *words[3:],
      '--train_steps=3',
      '--width=0.125',
      '--image_size=32',
      '--steps_per_eval=3',
      '--use_folder_stub=False',
      '--maskupdate_frequency=2',
      '--maskupdate_end_step=3',
      '--export_model_freq=3',
    ]
  )
  assert (flags.num_label_classes, flags.num_train_images, flags.num_eval_images) == (3, 13, 3)
  imagenet_script.shorten_networks(monkeypatch)
  with quick_sessions.of_scripts():
    script.main(words[:1])
  assert 'step 3: top 1' in capsys.readouterr().out
  (photos / 'rose' / '00.jpg').rename('a.jpg')
  (code,) = re.findall(
    r'<!-- snippet: predict -->\n```python\n(.*?)```', PAGE.read_text('utf-8'), re.DOTALL
  )
  exec(compile(code, str(PAGE), 'exec'), {'exported': f'{given["output_dir"]}/export/3'})
  assert capsys.readouterr().out.strip() in ('rose', 'Löwenzahn', 'aster bleu')


def test_the_command_in_the_page_is_the_printed_one():
  done = convert_images.Converted(tuple('abcde'), 2936, 734, True)
  command = convert_images.training_command('flowers_records', done)
  assert command.replace('\\', '').split() in [
    block.replace('\\', '').split()
    for block in re.findall(r'```bash\n(.*?)```', PAGE.read_text('utf-8'), re.DOTALL)
  ]


def test_the_script_finds_them(photos, tmp_path):
  convert_images.convert(str(photos), str(tmp_path / 'records'))
  data = imagenet_data.find_data(
    str(tmp_path / 'records'), num_train_images=13, num_eval_images=3, num_classes=3
  )
  assert data.record_format == imagenet_data.TFRECORD_FORMAT

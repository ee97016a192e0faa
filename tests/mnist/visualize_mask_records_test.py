"""Pictures of mask records: the right numbers, in files that open."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from rigl.mnist import visualize_mask_records
from rigl.mnist.mask_records import MaskRecords

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_records(n_records: int = 7, shape=(784, 6)) -> MaskRecords:
  """Records in which one more row is connected each time, then one output."""
  records = MaskRecords()
  for index in range(n_records):
    mask = np.zeros(shape)
    mask[: index + 1] = 1
    mask[0, ..., 1:] = 0
    records.append(100 * index, {'layer1': mask, 'layer2': np.eye(6, 4)})
  return records


@pytest.fixture
def records_path(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records().save(path)
  return path


def run(records_path, output, **values) -> None:
  names = {'records_path': str(records_path), 'output': str(output), **values}
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test'])
  with flagsaver.flagsaver(**names):
    visualize_mask_records.main(['visualize_mask_records'])


@pytest.mark.parametrize(
  'n_frames, iterations',
  [
    (1, [600]),
    (2, [0, 600]),
    (3, [0, 300, 600]),
    (4, [0, 200, 400, 600]),
    (7, [0, 100, 200, 300, 400, 500, 600]),
    (50, [0, 100, 200, 300, 400, 500, 600]),
  ],
)
def test_frames_are_spread_from_the_first_to_the_last(n_frames, iterations):
  film = visualize_mask_records.make_film(make_records(), '', n_frames)
  assert [frame.iteration for frame in film.frames] == iterations


def test_pixels_are_counted_as_worked_out_by_hand():
  film = visualize_mask_records.make_film(make_records(40), 'layer1', 40)
  frame = film.frames[29]
  assert frame.picture.shape == (28, 28)
  # Pixel 0 has one connection, pixels 1 to 29 have all six, the rest none.
  expected = np.zeros((28, 28))
  expected[0] = 6
  expected[0, 0] = 1
  expected[1, :2] = 6
  np.testing.assert_array_equal(frame.picture, expected)
  assert frame.caption == '30 of 784 pixels connected'
  assert film.max_value == 6
  assert 'layer1' in film.title


def test_other_inputs_are_shown_as_the_matrix_itself():
  film = visualize_mask_records.make_film(make_records(), 'layer2', 2)
  np.testing.assert_array_equal(film.frames[0].picture, np.eye(6, 4))
  assert film.frames[0].caption == '16.67% of 24 weights active'
  assert film.max_value == 1


@pytest.mark.parametrize(
  'shape, picture_shape',
  [((9,), (1, 9)), ((5, 3), (5, 3)), ((3, 3, 2, 4), (18, 4))],
)
@pytest.mark.parametrize('suffix', ['.png', '.gif'])
def test_any_shape_makes_a_picture(tmp_path, shape, picture_shape, suffix):
  records = MaskRecords()
  for index in range(2):
    records.append(index, {'layer': np.full(shape, index)})
  film = visualize_mask_records.make_film(records, 'layer', 2)
  assert film.frames[0].picture.shape == picture_shape
  records.save(tmp_path / 'masks.npz')
  run(tmp_path / 'masks.npz', tmp_path / f'out{suffix}')
  with Image.open(tmp_path / f'out{suffix}') as image:
    image.load()


def test_layer_without_any_connection_makes_a_picture(tmp_path):
  records = MaskRecords()
  records.append(0, {'layer1': np.zeros((784, 3))})
  film = visualize_mask_records.make_film(records, 'layer1', 5)
  visualize_mask_records.write_png(film, tmp_path / 'out.png')
  assert film.max_value == 1
  assert film.frames[0].caption == '0 of 784 pixels connected'


def test_png_has_five_frames_in_a_row_by_default(records_path, tmp_path):
  sizes = {}
  for n_frames in (0, 1, 5, 6):
    output = tmp_path / f'{n_frames}.png'
    run(records_path, output, num_frames=n_frames)
    with Image.open(output) as image:
      assert image.format == 'PNG'
      sizes[n_frames] = image.size
  assert sizes[0] == sizes[5]
  assert sizes[1][0] < sizes[5][0] == sizes[6][0]
  assert sizes[6][1] > 1.5 * sizes[5][1]


def gif_frames(path) -> list[tuple[np.ndarray, int]]:
  with Image.open(path) as image:
    assert image.format == 'GIF'
    assert image.info['loop'] == 0
    frames = []
    for index in range(image.n_frames):
      image.seek(index)
      frames.append((np.asarray(image.convert('RGB')), image.info['duration']))
  return frames


def test_gif_shows_every_record_and_rests_on_the_last(records_path, tmp_path):
  run(records_path, tmp_path / 'out.gif', fps=5.0)
  frames = gif_frames(tmp_path / 'out.gif')
  assert [duration for _, duration in frames] == [200] * 6 + [2000]
  assert len({picture.shape for picture, _ in frames}) == 1


def test_gif_moves_only_what_changed(records_path, tmp_path):
  run(records_path, tmp_path / 'out.gif')
  pictures = [picture for picture, _ in gif_frames(tmp_path / 'out.gif')]
  # The pixels on the left, the colour bar on the right.
  split = int(0.83 * pictures[0].shape[1])
  for picture in pictures[1:]:
    np.testing.assert_array_equal(picture[:, split:], pictures[0][:, split:])
  # Text and unconnected pixels are grey. Each record connects one more pixel,
  # and all pixels are of one size.
  n_coloured = [
    (np.ptp(picture[:, :split].astype(int), axis=-1) > 40).sum()
    for picture in pictures
  ]
  steps = np.diff(n_coloured)
  assert n_coloured[0] > 100
  assert steps == pytest.approx(steps.mean(), rel=0.2)


@pytest.mark.parametrize(
  'values, message',
  [
    ({'output': 'out.jpg'}, '--output=out.jpg: expected .*.png or .gif'),
    ({'output': 'out'}, '--output=out: expected .*.png or .gif'),
    ({'layer': 'layer7'}, 'layer named layer7; .* layer1, layer2'),
    ({'records_path': 'none.npz'}, 'none.npz'),
    ({'records_path': __file__}, 'truncated or of another format'),
    ({'output': 'no/such/folder/out.png'}, 'no/such/folder/out.png'),
  ],
)
def test_mistakes_end_with_a_message(
  records_path, tmp_path, monkeypatch, values, message
):
  monkeypatch.chdir(tmp_path)
  values = {'records_path': records_path, 'output': 'out.png', **values}
  with pytest.raises(SystemExit, match=message):
    run(**values)
  assert not [*tmp_path.glob('out*')]


def test_records_without_a_record_end_with_a_message(tmp_path):
  MaskRecords().save(tmp_path / 'masks.npz')
  with pytest.raises(SystemExit, match='at least one mask record'):
    run(tmp_path / 'masks.npz', tmp_path / 'out.png')


def test_unknown_arguments_are_refused():
  with pytest.raises(SystemExit, match="Unexpected arguments .'extra'.:"):
    visualize_mask_records.main(['program', 'extra'])


@pytest.mark.parametrize(
  'arguments, returncode, message',
  [
    (['--output=out.png'], 0, 'Wrote out.png with 5 frames.'),
    ([], 1, '--output is not given'),
    (['--help'], 0, 'Required.'),
    (['--output=out.gif', '--fps=0'], 1, '--fps'),
    (['--output=out.gif', '--num_frames=-1'], 1, '--num_frames'),
  ],
)
def test_command_line(records_path, tmp_path, arguments, returncode, message):
  command = [sys.executable, '-m', 'rigl.mnist.visualize_mask_records']
  result = subprocess.run(
    [*command, f'--records_path={records_path}', *arguments],
    cwd=tmp_path,
    env={'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == returncode, result.stderr
  assert message in result.stdout + result.stderr
  assert (tmp_path / 'out.png').exists() == ('--output=out.png' in arguments)

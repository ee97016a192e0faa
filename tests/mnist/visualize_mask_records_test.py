"""Pictures of mask records: the right numbers, in valid files."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from rigl.mnist import mnist_data, visualize_mask_records
from rigl.mnist.mask_records import MaskRecords
from tests import checkpoint_values, tiny_mnist

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
  names = {'records_path': records_path, 'output': output, **values}
  errors = io.StringIO()
  with contextlib.redirect_stderr(errors):
    try:
      visualize_mask_records.main([f'--{name}={value}' for name, value in names.items()])
    except SystemExit as stop:
      assert stop.code == 2
      raise SystemExit(errors.getvalue()) from stop


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


def make_film(*pictures_of_counts, n_outputs=300):
  """The film of records of which each begins with the given counts."""
  records = MaskRecords()
  for index, counts in enumerate(pictures_of_counts):
    counts = np.resize(counts, [784, 1])
    records.append(index, {'layer1': np.arange(n_outputs) < counts})
  return visualize_mask_records.make_film(records, 'layer1', 99)


@pytest.mark.parametrize(
  'counts, end, is_clipped',
  [
    # Dense first, as snip, dnw and prune are.
    ([300, [0, 45], [3, 30]], 45, True),
    ([300, 300, [0, 1]], 1, True),
    ([300], 300, False),
    ([300, 200], 300, False),
    ([[0, 8], [3, 5]], 8, False),
    ([4, [0, 8]], 8, False),
    ([0, 0], 1, False),
  ],
)
def test_colour_scale_ends_where_the_frames_differ(counts, end, is_clipped):
  film = make_film(*counts)
  assert film.max_value == end
  assert film.is_clipped == is_clipped


@pytest.mark.parametrize(
  'counts, middle',
  [
    # Linear where the last frame reaches half of the scale.
    ([[0, 40], [0, 20]], 20),
    ([[0, 40], [0, 30]], 20),
    # Else half of the shades are those of the last frame.
    ([[100, 200], [0, 32]], 32),
    ([[100, 200], [0, 1]], 1),
    ([300, [100, 200], [0, 32]], 32),
  ],
)
def test_last_frame_has_half_of_the_shades(counts, middle):
  film = make_film(*counts)
  share = (middle / film.max_value) ** film.exponent
  assert share == pytest.approx(0.5)


@pytest.mark.parametrize(
  'end, ticks', [(1, [0, 1]), (4, [0, 1, 2, 3, 4]), (37, [0, 10, 20, 30]), (192, [0, 50, 100, 150])]
)
def test_colour_bar_has_few_round_ticks(tmp_path, monkeypatch, end, ticks):
  figures = []
  monkeypatch.setattr(
    Figure, 'savefig', lambda self, *_, **__: (self.draw_without_rendering(), figures.append(self))
  )
  visualize_mask_records.write_png(make_film([0, end]), tmp_path / 'out.png')
  (figure,) = figures
  found = figure.axes[-1].get_yticks()
  assert [tick for tick in found if 0 <= tick <= end] == ticks


def test_dense_pixels_are_captioned_with_their_count():
  captions = [frame.caption for frame in make_film(300, [0, 2]).frames]
  assert captions == ['784 of 784 pixels, 300 connections each', '392 of 784 pixels connected']


def test_dense_start_does_not_wash_out_the_rest(tmp_path):
  film = make_film(300, [0, 45], [0, 40])
  visualize_mask_records.write_png(film, tmp_path / 'out.png')
  with Image.open(tmp_path / 'out.png') as image:
    pixels = np.asarray(image.convert('RGB'))
  # Half a frame of each: 45 is the last of 45 shades, 40 the fortieth.
  for shade in (44 / 44, 39 / 44):
    colour = np.array(colormaps['viridis_r'](shade, bytes=True)[:3])
    assert (pixels == colour).all(axis=-1).sum() > 20_000
  # And the dense frame is black.
  assert (pixels == 0).all(axis=-1).sum() > 40_000


def kept_records() -> MaskRecords:
  """Of a run on the pixels 0, 2, 4, ...; a row more is connected each time."""
  records = MaskRecords(np.arange(784) % 2 == 0)
  for index in range(3):
    mask = np.zeros((392, 300))
    mask[:index, : index + 1] = 1
    # As many rows as the input mask has pixels, but not pixels.
    records.append(index, {'layer1': mask, 'layer2': np.zeros((784, 4))})
  return records


def test_images_of_another_shape(monkeypatch):
  monkeypatch.setattr(mnist_data, 'IMAGE_SHAPE', (2, 3))
  monkeypatch.setattr(mnist_data, 'N_PIXELS', 6)
  film = visualize_mask_records.make_film(make_records(shape=(6, 6)), 'layer1', 1)
  assert film.frames[0].picture.shape == (2, 3)


def test_kept_pixels_are_put_back_among_the_others():
  film = visualize_mask_records.make_film(kept_records(), '', 3)
  frame = film.frames[2]
  assert not film.is_matrix
  assert frame.caption == '2 of 392 inputs connected'
  assert 'grey' in film.title
  expected = np.tile([0, -1], 392).reshape(28, 28)
  expected[0, [0, 2]] = 3
  np.testing.assert_array_equal(frame.picture.filled(-1), expected)
  assert film.max_value == 3


def test_run_with_an_input_mask_is_shown_on_all_pixels(trained, data, tmp_path):
  former = trained('rigl')
  tiny_mnist.train(
    tiny_mnist.arguments(
      data, tmp_path, training_method='rigl', input_mask_path=former, mask_record_frequency=5
    )
  )
  film = visualize_mask_records.make_film(
    MaskRecords.load(tiny_mnist.records_file(tmp_path)), '', 1
  )
  kept = checkpoint_values.of(former)['layer1/mask'].any(axis=1)
  mask = checkpoint_values.of(tmp_path)['layer1/mask']
  expected = np.full(784, -1)
  expected[kept] = mask.sum(axis=1)
  np.testing.assert_array_equal(film.frames[0].picture.filled(-1).reshape(-1), expected)


def test_kept_pixels_are_those_of_the_first_layer_alone():
  film = visualize_mask_records.make_film(kept_records(), 'layer2', 3)
  assert film.frames[0].caption == '0 of 784 pixels connected'
  assert 'grey' not in film.title


@pytest.mark.parametrize('suffix', ['.png', '.gif'])
def test_pixels_that_are_no_input_are_grey(tmp_path, suffix):
  kept_records().save(tmp_path / 'masks.npz')
  run(tmp_path / 'masks.npz', tmp_path / f'out{suffix}')
  with Image.open(tmp_path / f'out{suffix}') as image:
    pixels = np.asarray(image.convert('RGB')).astype(int)
  # Half of a frame of more than 40,000 pixels.
  is_grey = np.ptp(pixels, axis=-1) < 9
  is_grey &= abs(pixels[..., 0] - 192) < 9
  assert is_grey.sum() > 20_000


def test_other_inputs_are_shown_as_the_matrix_itself():
  film = visualize_mask_records.make_film(make_records(), 'layer2', 2)
  np.testing.assert_array_equal(film.frames[0].picture, np.eye(6, 4))
  assert film.frames[0].caption == '16.67% of 24 weights active'
  assert film.max_value == 1


@pytest.mark.parametrize(
  'shape, picture_shape', [((9,), (1, 9)), ((5, 3), (5, 3)), ((3, 3, 2, 4), (18, 4))]
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
    (np.ptp(picture[:, :split].astype(int), axis=-1) > 40).sum() for picture in pictures
  ]
  steps = np.diff(n_coloured)
  assert n_coloured[0] > 100
  assert steps == pytest.approx(steps.mean(), rel=0.2)


@pytest.mark.parametrize(
  'values, message',
  [
    ({'output': 'out.jpg'}, '--output=out.jpg: expected .*.png or .gif'),
    ({'output': 'out'}, '--output=out: expected .*.png or .gif'),
    ({'output': ''}, 'expected .*.png or .gif'),
    ({'records_path': ''}, 'holds no mask records'),
    ({'layer': 'layer7'}, 'layer named layer7; .* layer1, layer2'),
    ({'records_path': 'none.npz'}, 'none.npz'),
    ({'records_path': __file__}, 'truncated or of another format'),
    ({'output': 'no/such/folder/out.png'}, 'no/such/folder/out.png'),
  ],
)
def test_mistakes_end_with_a_message(records_path, tmp_path, monkeypatch, values, message):
  monkeypatch.chdir(tmp_path)
  values = {'records_path': records_path, 'output': 'out.png', **values}
  with pytest.raises(SystemExit, match=message):
    run(**values)
  assert not [*tmp_path.glob('out*')]


def test_records_without_a_record_end_with_a_message(tmp_path):
  MaskRecords().save(tmp_path / 'masks.npz')
  with pytest.raises(SystemExit, match='masks.npz: .*at least one mask record'):
    run(tmp_path / 'masks.npz', tmp_path / 'out.png')


def test_folder_stands_for_the_only_records_in_it(tmp_path):
  make_records().save(tmp_path / 'rigl_lr0.2_masks.npz')
  make_records().save(tmp_path / 'other.npz')
  run(tmp_path, tmp_path / 'out.png')
  assert (tmp_path / 'out.png').exists()


@pytest.mark.parametrize(
  'names, message',
  [
    ([], 'holds no mask records; --mask_record_frequency writes them'),
    (['other.npz'], 'holds no mask records'),
    (
      ['b_masks.npz', 'a_masks.npz'],
      'holds 2 files of mask records: a_masks.npz, b_masks.npz, choose one',
    ),
  ],
)
def test_folder_without_one_file_of_records(tmp_path, names, message):
  for name in names:
    make_records(1).save(tmp_path / name)
  message = f'Error: --records_path={re.escape(str(tmp_path))} {message}'
  with pytest.raises(SystemExit, match=message):
    run(tmp_path, tmp_path / 'out.png')


def test_wildcards_that_the_shell_left_alone(tmp_path):
  make_records(1).save(tmp_path / 'a_masks.npz')
  with pytest.raises(SystemExit, match='Wildcards are not expanded') as error:
    run(tmp_path / '*_masks.npz', tmp_path / 'out.png')
  assert f'--records_path={tmp_path}/*_masks.npz' in str(error.value)
  # They are letters like others in the name of a file.
  make_records(1).save(tmp_path / 'a[1].npz')
  run(tmp_path / 'a[1].npz', tmp_path / 'out.png')


@pytest.mark.parametrize(
  'arguments, returncode, message',
  [
    (['--output=out.png'], 0, 'Wrote out.png of 5 iterations.'),
    (['--output=out.png', '--num_frames=1'], 0, 'Wrote out.png of 1 iteration.'),
    ([], 2, 'required: --output'),
    (['--help'], 0, 'file to write'),
    (['--output=out.gif', 'extra'], 2, 'unrecognized arguments: extra'),
    (['--output=out.gif', '--fps=0'], 2, '--fps'),
    (['--output=out.gif', '--num_frames=-1'], 2, '--num_frames'),
  ],
)
def test_command_line(records_path, tmp_path, arguments, returncode, message):
  command = [sys.executable, '-m', 'rigl.mnist.visualize_mask_records']
  result = subprocess.run(
    [*command, f'--records_path={records_path}', *arguments],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == returncode, result.stderr
  assert message in result.stdout + result.stderr
  assert (tmp_path / 'out.png').exists() == ('--output=out.png' in arguments)

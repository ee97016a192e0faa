r"""Turns the mask records of a run into a picture or an animated GIF.

    python -m rigl.mnist.mnist_train_eval --training_method=rigl \
        --mask_record_frequency=100 --save_path=/tmp/mnist_rigl
    python -m rigl.mnist.visualize_mask_records --output=masks.gif \
        --records_path=$(ls /tmp/mnist_rigl/*_masks.npz)

Of a layer on MNIST pixels it shows how many connections each pixel has, which
is how "Rigging the Lottery", https://arxiv.org/abs/1911.11134, shows that RigL
finds the pixels that matter. Of any other layer it shows the mask as a matrix.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import app, flags
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from rigl.mnist.mask_records import MaskRecords
from rigl.training import command_line

with command_line.group('General'):
  _RECORDS_PATH = flags.DEFINE_string(
    'records_path',
    None,
    'File of mask records (.npz) that a training run wrote. Required.',
  )
  _LAYER = flags.DEFINE_string(
    'layer', '', 'Name of the layer to show; the first one if empty.'
  )
with command_line.group('Output'):
  _OUTPUT = flags.DEFINE_string(
    'output',
    None,
    'File to write: .png for frames side by side, .gif for an animation.'
    ' Required.',
  )
  _NUM_FRAMES = flags.DEFINE_integer(
    'num_frames',
    0,
    'Records to show, evenly spaced from the first to the last; 0 for 5 in a'
    ' .png and at most 100 in a .gif.',
    lower_bound=0,
  )
  _FPS = flags.DEFINE_float(
    'fps',
    10.0,
    'Frames per second of a .gif, from 0.1 to 50.',
    lower_bound=0.1,
    upper_bound=50.0,
  )

_MNIST_SIDE = 28
_DEFAULT_FRAMES = {'.png': 5, '.gif': 100}
_FRAMES_PER_ROW = 5
_COLOUR_MAP = 'viridis_r'
_ZERO_COLOUR = 'whitesmoke'
_LAST_FRAME_MS = 2000


@dataclasses.dataclass(frozen=True)
class Frame:
  """What is shown of one record.

  Attributes:
    iteration: Iteration of training at which the mask was recorded.
    picture: Array [height, width]: the connections of each input pixel, or the
      mask itself.
    caption: What the picture adds up to.
  """

  iteration: int
  picture: np.ndarray
  caption: str


@dataclasses.dataclass(frozen=True)
class Film:
  """The frames of a layer, in order of time.

  Attributes:
    frames: The frames, at least one.
    title: Title of the whole.
    unit: What the colours of the pictures stand for.
    is_matrix: Whether the pictures are masks (and not counts).
  """

  frames: list[Frame]
  title: str
  unit: str
  is_matrix: bool

  @property
  def max_value(self) -> int:
    """The end of the colour scale, which all frames share."""
    return max(1, *(int(frame.picture.max()) for frame in self.frames))


def make_film(records: MaskRecords, layer: str, n_frames: int) -> Film:
  """Chooses records, evenly spaced, and turns their masks into pictures.

  Args:
    records: The records of a run.
    layer: Name of the layer; empty for the first one.
    n_frames: Greatest number of frames.

  Returns:
    The frames, with the first and the last record among them.

  Raises:
    ValueError: If there are no records, or none of that layer.
  """
  if not len(records):
    raise ValueError('Expected at least one mask record, found none.')
  layer = layer or next(iter(records.shapes))
  last = len(records) - 1
  # The last record alone if there is to be a single frame.
  positions = np.linspace(last, 0, min(n_frames, last + 1))[::-1]
  indices = positions.round().astype(int)
  masks = [records.mask(layer, index) for index in indices]
  is_matrix = masks[0].ndim != 2 or masks[0].shape[0] != _MNIST_SIDE**2
  make_frame = _matrix_frame if is_matrix else _pixel_frame
  frames = [
    make_frame(int(records.iterations[index]), mask)
    for index, mask in zip(indices, masks)
  ]
  if is_matrix:
    title = f'Mask of {layer} (rows: inputs, columns: outputs)'
    return Film(frames, title, 'active', is_matrix)
  title = f'Connections of the input pixels in {layer}'
  return Film(frames, title, 'connections', is_matrix)


def _pixel_frame(iteration: int, mask: np.ndarray) -> Frame:
  """Shows the number of connections of each MNIST pixel."""
  counts = mask.sum(axis=1)
  caption = f'{np.count_nonzero(counts)} of {counts.size} pixels connected'
  picture = counts.reshape(_MNIST_SIDE, _MNIST_SIDE)
  return Frame(iteration, picture, caption)


def _matrix_frame(iteration: int, mask: np.ndarray) -> Frame:
  """Shows a mask of any shape, the inputs as rows."""
  caption = f'{mask.mean():.2%} of {mask.size:,} weights active'
  return Frame(iteration, mask.reshape(-1, mask.shape[-1]), caption)


def write_png(film: Film, path: str | os.PathLike[str]) -> None:
  """Draws all frames side by side.

  Args:
    film: The frames.
    path: The PNG file to write.
  """
  n_columns = min(len(film.frames), _FRAMES_PER_ROW)
  n_rows = -(-len(film.frames) // n_columns)
  figure = Figure(
    figsize=(2.5 * n_columns + 1.0, 2.9 * n_rows + 0.5),
    dpi=120,
    layout='constrained',
  )
  figure.suptitle(film.title, fontsize='medium')
  axes = figure.subplots(n_rows, n_columns, squeeze=False)
  for axis in axes.flat[len(film.frames):]:
    axis.set_axis_off()
  for axis, frame in zip(axes.flat, film.frames):
    image = _draw_frame(axis, film, frame)
  _add_colour_bar(figure, image, axes, film)
  figure.savefig(path, format='png')


def write_gif(film: Film, path: str | os.PathLike[str], fps: float) -> None:
  """Draws one frame after the other, over and over.

  Args:
    film: The frames.
    path: The GIF file to write.
    fps: Frames per second. The last frame stays longer.
  """
  pictures = _render(film)
  # One palette for all, or the colours would flicker. Every picture shows the
  # colour bar, and so all the colours there are.
  palette = pictures[-1].quantize(256, dither=Image.Dither.NONE)
  pictures = [
    picture.quantize(palette=palette, dither=Image.Dither.NONE)
    for picture in pictures
  ]
  durations = [round(1000 / fps)] * len(pictures)
  durations[-1] = max(durations[-1], _LAST_FRAME_MS)
  pictures[0].save(
    path,
    format='GIF',
    save_all=True,
    append_images=pictures[1:],
    duration=durations,
    loop=0,
  )


def _render(film: Film) -> list[Image.Image]:
  """Returns a picture of each frame, all of one size."""
  figure = Figure(figsize=(4.4, 4.4), dpi=100, layout='constrained')
  figure.suptitle(film.title, fontsize='medium')
  canvas = FigureCanvasAgg(figure)
  axis = figure.subplots()
  image = _draw_frame(axis, film, film.frames[0])
  _add_colour_bar(figure, image, axis, film)
  # Settled once, so that nothing moves when the text gets longer.
  figure.draw_without_rendering()
  figure.set_layout_engine('none')
  pictures = []
  for frame in film.frames:
    image.set_data(frame.picture)
    _set_text(axis, frame)
    canvas.draw()
    rgba = Image.fromarray(np.asarray(canvas.buffer_rgba()).copy())
    pictures.append(rgba.convert('RGB'))
  return pictures


def _draw_frame(axis, film: Film, frame: Frame):
  """Draws a frame into a matplotlib Axes and returns the AxesImage."""
  # One colour for each whole number, so that no connection and a single one are
  # not mistaken for each other.
  shades = np.linspace(1.0, 0.0, film.max_value)[::-1]
  colours = colormaps[_COLOUR_MAP](shades)
  image = axis.imshow(
    frame.picture,
    cmap=ListedColormap([_ZERO_COLOUR, *colours]),
    vmin=-0.5,
    vmax=film.max_value + 0.5,
    aspect='auto' if film.is_matrix else 'equal',
  )
  axis.set_xticks([])
  axis.set_yticks([])
  _set_text(axis, frame)
  return image


def _set_text(axis, frame: Frame) -> None:
  """Writes the iteration above and the caption below a frame."""
  axis.set_title(f'iteration {frame.iteration:,}', fontsize='medium')
  axis.set_xlabel(frame.caption, fontsize='small')


def _add_colour_bar(figure: Figure, image, axes, film: Film) -> None:
  """Adds the colour bar that all frames share, with whole numbers only."""
  bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
  step = -(-film.max_value // 6)
  bar.set_ticks(range(0, film.max_value + 1, step))
  bar.set_label(film.unit)


def main(argv: Sequence[str]) -> None:
  """Reads the records and writes the picture that the flags ask for.

  Args:
    argv: name of the program, and nothing else.
  """
  try:
    command_line.check_only_flags(argv)
    _check_required()
    _write(pathlib.Path(_RECORDS_PATH.value), pathlib.Path(_OUTPUT.value))
  except (OSError, ValueError) as error:
    sys.exit(f'Error: {error}')


def _check_required() -> None:
  """Raises ValueError for a flag that is missing."""
  for flag in (_RECORDS_PATH, _OUTPUT):
    if not flag.value:
      raise ValueError(f'--{flag.name} is not given. --help says more.')


def _write(records_path: pathlib.Path, output: pathlib.Path) -> None:
  """Reads the records and writes the picture."""
  suffix = output.suffix.lower()
  if suffix not in _DEFAULT_FRAMES:
    raise ValueError(
      f'--output={output}: expected a name that ends in .png or .gif.'
    )
  n_frames = _NUM_FRAMES.value or _DEFAULT_FRAMES[suffix]
  film = make_film(MaskRecords.load(records_path), _LAYER.value, n_frames)
  if suffix == '.png':
    write_png(film, output)
  else:
    write_gif(film, output, _FPS.value)
  print(f'Wrote {output} with {len(film.frames)} frames.')


if __name__ == '__main__':
  command_line.define_help(__name__)
  app.run(main, flags_parser=command_line.parse)

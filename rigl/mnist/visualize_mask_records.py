r"""Plots the mask records of a run as a PNG or an animated GIF.

    python -m rigl.mnist.mnist_train_eval --training_method=rigl \
        --mask_record_frequency=100 --save_path=/tmp/mnist_rigl
    python -m rigl.mnist.visualize_mask_records --output=masks.gif \
        --records_path=/tmp/mnist_rigl

For a layer on MNIST pixels, it shows the number of connections of each pixel,
as in "Rigging the Lottery", https://arxiv.org/abs/1911.11134, where RigL finds
the relevant pixels. Pixels that --input_mask_path removed are grey. For any
other layer, it shows the mask as a matrix.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import pathlib
import sys
from typing import Any, Optional, Sequence, Union

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from rigl import console
from rigl.core import checks
from rigl.mnist import mnist_data
from rigl.mnist.mask_records import MaskRecords

_Path = Union[str, 'os.PathLike[str]']

_DEFAULT_FRAMES = {'.png': 5, '.gif': 100}
_FRAMES_PER_ROW = 5
_COLOUR_MAP = 'viridis_r'
_ZERO_COLOUR = 'whitesmoke'
_NO_INPUT_COLOUR = 'silver'
_OVER_COLOUR = 'black'
_LAST_FRAME_MS = 2000


@dataclasses.dataclass(frozen=True)
class Frame:
  """The picture of one record.

  Attributes:
    iteration: iteration of the record.
    picture: [height, width], the number of connections of each input pixel,
      masked where a pixel is not an input; or the mask itself.
    caption: text below the picture.
  """

  iteration: int
  picture: np.ndarray
  caption: str


@dataclasses.dataclass(frozen=True)
class Film:
  """The frames of a layer, in order of time.

  Attributes:
    frames: at least one.
    title: title of the whole picture.
    is_matrix: whether the pictures are masks, not counts.
  """

  frames: list[Frame]
  title: str
  is_matrix: bool

  @property
  def max_value(self) -> int:
    """The upper end of the colour scale of all frames.

    Frames with a single value do not count: the dense start of a method would
    leave few shades for the others.
    """
    return max(1, *(int(p.max()) for p in self._varied))

  @property
  def exponent(self) -> float:
    """The exponent of the colour scale; below 1, small counts get more shades.

    Gradual pruning starts with many more connections than it ends with. The
    last frame gets half of the shades.
    """
    last = max(1, int(self._varied[-1].max()))
    if 2 * last >= self.max_value:
      return 1.0
    return math.log(0.5) / math.log(last / self.max_value)

  @property
  def _varied(self) -> list[np.ndarray]:
    """The pictures with more than one value, or all if there are none."""
    pictures = [frame.picture for frame in self.frames]
    return [p for p in pictures if p.min() < p.max()] or pictures

  @property
  def is_clipped(self) -> bool:
    """Whether a frame exceeds the colour scale."""
    return any(f.picture.max() > self.max_value for f in self.frames)


def make_film(records: MaskRecords, layer: str, n_frames: int) -> Film:
  """Chooses records, evenly spaced, and turns their masks into pictures.

  Args:
    records: mask records of a run.
    layer: name of the layer; empty for the first one.
    n_frames: maximum number of frames.

  Returns:
    The frames, including the first and the last record.

  Raises:
    ValueError: there are no records, or none of this layer.
  """
  if not len(records):
    raise ValueError('Expected at least one mask record, found none.')
  layer = layer or next(iter(records.shapes))
  last = len(records) - 1
  # A single frame shows the last record.
  positions = np.linspace(last, 0, min(n_frames, last + 1))[::-1]
  indices = positions.round().astype(int)
  masks = [records.mask(layer, index) for index in indices]
  iterations = [int(records.iterations[index]) for index in indices]
  kept = _kept_pixels(records, layer)
  if kept is None:
    title = f'Mask of {layer} (rows: inputs, columns: outputs)'
    frames = [_matrix_frame(*pair) for pair in zip(iterations, masks)]
    return Film(frames, title, is_matrix=True)
  title = f'Connections of the input pixels in {layer}'
  if not kept.all():
    title += ' (grey: no input)'
  frames = [_pixel_frame(*pair, kept) for pair in zip(iterations, masks)]
  return Film(frames, title, is_matrix=False)


def _kept_pixels(records: MaskRecords, layer: str) -> Optional[np.ndarray]:
  """bool [784], the pixels of the rows of a layer; None if not pixels."""
  shape = records.shapes[layer]
  if len(shape) != 2:
    return None
  kept = records.kept_pixels
  if kept is None or layer != next(iter(records.shapes)):
    kept = np.ones(shape[0], bool)
  return kept if kept.size == mnist_data.N_PIXELS else None


def _pixel_frame(iteration: int, mask: np.ndarray, kept: np.ndarray) -> Frame:
  """The number of connections of each MNIST pixel."""
  counts = mask.sum(axis=1)
  what = 'pixels' if kept.all() else 'inputs'
  caption = f'{np.count_nonzero(counts)} of {counts.size} {what}'
  # In the caption, as the colour scale may leave them out.
  caption += f', {counts[0]} connections each' if 0 < counts.min() == counts.max() else ' connected'
  picture = np.ma.masked_all(kept.size, int)
  picture[kept] = counts
  return Frame(iteration, picture.reshape(mnist_data.IMAGE_SHAPE), caption)


def _matrix_frame(iteration: int, mask: np.ndarray) -> Frame:
  """A mask of any shape, the inputs as rows."""
  caption = f'{mask.mean():.2%} of {mask.size:,} weights active'
  return Frame(iteration, mask.reshape(-1, mask.shape[-1]), caption)


def write_png(film: Film, path: _Path) -> None:
  """Draws all frames side by side."""
  n_columns = min(len(film.frames), _FRAMES_PER_ROW)
  n_rows = -(-len(film.frames) // n_columns)
  figure = Figure(
    figsize=(2.5 * n_columns + 1.0, 2.9 * n_rows + 0.5), dpi=120, layout='constrained'
  )
  figure.suptitle(film.title, fontsize='medium')
  axes = figure.subplots(n_rows, n_columns, squeeze=False)
  for axis in axes.flat[len(film.frames) :]:
    axis.set_axis_off()
  for axis, frame in zip(axes.flat, film.frames):
    image = _draw_frame(axis, film, frame)
  _add_colour_bar(figure, image, axes, film)
  figure.savefig(path, format='png')


def write_gif(film: Film, path: _Path, fps: float) -> None:
  """Writes the frames as an endless animation; the last frame stays longer."""
  pictures = _render(film)
  # One palette for all, or the colours would flicker. Every picture contains
  # the colour bar, and thus all colours.
  palette = pictures[-1].quantize(256, dither=Image.Dither.NONE)
  pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
  durations = [round(1000 / fps)] * len(pictures)
  durations[-1] = max(durations[-1], _LAST_FRAME_MS)
  pictures[0].save(
    path, format='GIF', save_all=True, append_images=pictures[1:], duration=durations, loop=0
  )


def _render(film: Film) -> list[Image.Image]:
  """Pictures of all frames, of the same size."""
  figure = Figure(figsize=(4.4, 4.4), dpi=100, layout='constrained')
  figure.suptitle(film.title, fontsize='medium')
  canvas = FigureCanvasAgg(figure)
  axis = figure.subplots()
  image = _draw_frame(axis, film, film.frames[0])
  _add_colour_bar(figure, image, axis, film)
  # Fix the layout once, so that nothing moves when the text gets longer.
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


def _draw_frame(axis: Any, film: Film, frame: Frame) -> Any:
  """Draws a frame into a matplotlib Axes and returns the AxesImage."""
  # One colour per integer, so that 0 and 1 connections look different.
  shades = np.linspace(0.0, 1.0, film.max_value) ** film.exponent
  colour_map = ListedColormap([_ZERO_COLOUR, *colormaps[_COLOUR_MAP](shades)]).with_extremes(
    bad=_NO_INPUT_COLOUR, over=_OVER_COLOUR
  )
  image = axis.imshow(
    frame.picture,
    cmap=colour_map,
    vmin=-0.5,
    vmax=film.max_value + 0.5,
    interpolation='nearest',
    aspect='auto' if film.is_matrix else 'equal',
  )
  axis.set_xticks([])
  axis.set_yticks([])
  _set_text(axis, frame)
  return image


def _set_text(axis: Any, frame: Frame) -> None:
  """Writes the iteration above and the caption below a frame."""
  axis.set_title(f'iteration {frame.iteration:,}', fontsize='medium')
  axis.set_xlabel(frame.caption, fontsize='small')


def _add_colour_bar(figure: Figure, image: Any, axes: Any, film: Film) -> None:
  """Adds the colour bar of all frames, with integer ticks."""
  # The same width for any number of rows.
  aspect = 20 * len(np.atleast_2d(axes))
  bar = figure.colorbar(
    image,
    ax=axes,
    fraction=0.05,
    pad=0.02,
    aspect=aspect,
    extend='max' if film.is_clipped else 'neither',
    extendfrac=1 / aspect,
  )
  bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10], integer=True)
  bar.set_label('mask' if film.is_matrix else 'connections')


def _parser() -> argparse.ArgumentParser:
  parser = console.Parser(
    prog='python -m rigl.mnist.visualize_mask_records',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--records_path',
    required=True,
    help='folder of a training run, or the file of mask records (*_masks.npz) in it',
  )
  parser.add_argument(
    '--output',
    required=True,
    help='file to write: .png for frames side by side, .gif for an animation',
  )
  parser.add_argument(
    '--layer', default='', help='name of the layer to show (default: the first one)'
  )
  parser.add_argument(
    '--num_frames',
    type=int,
    default=0,
    help='records to show, evenly spaced from the first to the last '
    '(default: 5 in a .png, at most 100 in a .gif)',
  )
  parser.add_argument(
    '--fps',
    type=float,
    default=10.0,
    help='frames per second of a .gif, from 0.1 to 50 (default: 10)',
  )
  return parser


def _text(args: argparse.Namespace) -> str:
  """Reads the records and writes the picture; returns what to say of it."""
  checks.not_negative('--num_frames', args.num_frames)
  if not 0.1 <= args.fps <= 50.0:
    raise ValueError(f'--fps must be in [0.1, 50], got {args.fps}.')
  output = pathlib.Path(checks.expanded_path('--output', args.output))
  suffix = output.suffix.lower()
  if suffix not in _DEFAULT_FRAMES:
    raise ValueError(f'--output={output}: expected a name that ends in .png or .gif.')
  records_path = _find_records(checks.expanded_path('--records_path', args.records_path))
  records = MaskRecords.load(records_path)
  try:
    film = make_film(records, args.layer, args.num_frames or _DEFAULT_FRAMES[suffix])
  except ValueError as error:
    raise ValueError(f'{records_path}: {error}') from error
  if suffix == '.png':
    write_png(film, output)
  else:
    write_gif(film, output, args.fps)
  plural = 's' if len(film.frames) > 1 else ''
  return f'Wrote {output} of {len(film.frames)} iteration{plural}.\n'


def _find_records(given_path: str) -> pathlib.Path:
  """The file of --records_path; raises ValueError if there is none."""
  path = pathlib.Path(given_path)
  given = f'--records_path={path}'
  if not path.is_dir():
    if not path.exists() and any(c in str(path) for c in '*?['):
      raise ValueError(
        f'{given}: found no file of this name. Wildcards are not expanded '
        'here: give the folder of the run, or a file in it.'
      )
    return path
  found = sorted(file.name for file in path.glob('*_masks.npz'))
  if not found:
    raise ValueError(f'{given} holds no mask records; --mask_record_frequency writes them.')
  if len(found) > 1:
    raise ValueError(
      f'{given} holds {len(found)} files of mask records: {", ".join(found)}, choose one.'
    )
  return path / found[0]


def main(argv: Optional[Sequence[str]] = None) -> int:
  """Runs the command; returns its exit code."""
  return console.run(_parser(), argv, _text, (ValueError, OSError))


if __name__ == '__main__':
  sys.exit(main())

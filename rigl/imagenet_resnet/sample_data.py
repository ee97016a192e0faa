r"""Writes a small data set in the format of ImageNet, to try training.

    python -m rigl.imagenet_resnet.sample_data --output_dir=/tmp/shapes

The ten classes are five shapes in a warm or a cold colour, of random size and
angle, with noise. As in ImageNet nearly all pictures are JPEGs; one is a PNG
and one a JPEG with the colour space CMYK.
"""

from __future__ import annotations

import argparse
import colorsys
import io
import math
import os

import numpy as np
from PIL import Image, ImageDraw

from rigl import console
from rigl.compat import tf
from rigl.core import checks, messages, seeding
from rigl.imagenet_resnet import record_output

# Corners of a shape around the origin, in turns and in parts of its radius.
_SHAPES = {
  'disc': [(i / 40, 1.0) for i in range(40)],
  'triangle': [(i / 3, 1.0) for i in range(3)],
  'square': [(i / 4, 1.0) for i in range(4)],
  'star': [(i / 10, 1.0 - i % 2 * 0.6) for i in range(10)],
  'bar': [(turn, 1.0) for turn in (0.04, 0.46, 0.54, 0.96)],
}
# Range of hues, in turns.
_COLOURS = {'warm': (-0.05, 0.17), 'cold': (0.47, 0.72)}
CLASSES = tuple(f'{colour} {shape}' for colour in _COLOURS for shape in _SHAPES)

_N_SHARDS = {'train': 4, 'validation': 2}
_SIDES = (48, 96)
_JPEG_QUALITY = 90


def draw_picture(class_number: int, random_state: np.random.RandomState) -> Image.Image:
  """A picture of a class, 0 to 9, that is 48 to 96 pixels high and wide."""
  colour, shape = CLASSES[class_number].split()
  width, height = random_state.randint(_SIDES[0], _SIDES[1] + 1, 2).tolist()
  hue = random_state.uniform(*_COLOURS[colour])
  brightness = random_state.uniform(0.7, 1.0)
  inside = colorsys.hsv_to_rgb(hue % 1.0, random_state.uniform(0.7, 1.0), brightness)
  background = colorsys.hsv_to_rgb(
    random_state.uniform(), random_state.uniform(0.0, 0.25), random_state.uniform(0.15, 0.85)
  )

  def as_bytes(levels: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(255 * level) for level in levels)

  picture = Image.new('RGB', (width, height), as_bytes(background))
  radius = min(width, height) * random_state.uniform(0.3, 0.45)
  x, y = (side * random_state.uniform(0.4, 0.6) for side in (width, height))
  angle = random_state.uniform()
  corners = [
    (
      x + radius * length * math.cos(2.0 * math.pi * (turn + angle)),
      y + radius * length * math.sin(2.0 * math.pi * (turn + angle)),
    )
    for turn, length in _SHAPES[shape]
  ]
  ImageDraw.Draw(picture).polygon(corners, fill=as_bytes(inside))
  noise = random_state.normal(0.0, 12.0, (height, width, 3))
  pixels = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
  return Image.fromarray(pixels)


def encode(picture: Image.Image, encoding: str = 'JPEG') -> bytes:
  """The bytes of an RGB picture as 'JPEG', as 'PNG' or as a 'CMYK' JPEG."""
  stream = io.BytesIO()
  if encoding == 'PNG':
    picture.save(stream, 'PNG')
  else:
    mode = 'CMYK' if encoding == 'CMYK' else 'RGB'
    picture.convert(mode).save(stream, 'JPEG', quality=_JPEG_QUALITY)
  return stream.getvalue()


def make_part(part: str, n: int, seed: int) -> list[tf.train.Example]:
  """Draws n records, in random order, with as many pictures of each class."""
  random_state = np.random.RandomState(seeding.stable_seed('sample_data', part, seed))
  examples = []
  for i, label in enumerate(random_state.permutation(np.arange(n) % len(CLASSES)).tolist()):
    picture = draw_picture(label, random_state)
    encoding = {1: 'PNG', 2: 'CMYK'}.get(i, 'JPEG') if part == 'train' else 'JPEG'
    # All are labelled as JPEGs, as in ImageNet.
    examples.append(
      record_output.make_example(
        encode(picture, encoding),
        picture.size,
        label,
        CLASSES[label],
        f'{part}_{i:05d}.JPEG',
        colour_space='CMYK' if encoding == 'CMYK' else 'RGB',
      )
    )
  return examples


def write(output_dir: str, num_train: int = 120, num_eval: int = 40, seed: int = 0) -> list[str]:
  """Writes the data set to a folder, made if it does not exist; returns the paths of the files.

  Files appear when they are complete.

  Raises:
    ValueError: a number is not positive, or the folder is not empty.
  """
  record_output.check_empty('output_dir', output_dir)
  checks.positive('num_train', num_train)
  checks.positive('num_eval', num_eval)
  os.makedirs(output_dir, exist_ok=True)
  paths = []
  for part, n in (('train', num_train), ('validation', num_eval)):
    examples, n_shards = make_part(part, n, seed), _N_SHARDS[part]
    paths += [
      record_output.write_file(output_dir, part, shard, n_shards, examples[shard::n_shards])
      for shard in range(n_shards)
    ]
  return paths


def _training_command(output_dir: str, num_train: int, num_eval: int) -> str:
  """A command line that trains a small network on the data set."""
  return record_output.training_command(
    output_dir,
    len(CLASSES),
    num_train,
    num_eval,
    (
      f'--train_batch_size={min(50, num_train)} --eval_batch_size={min(100, num_eval)}',
      '--image_size=32 --resnet_depth=18 --width=0.25 --training_method=rigl',
      '--mask_init_method=erdos_renyi_kernel --first_layer_sparsity=-1',
      '--end_sparsity=0.8 --drop_fraction_anneal=cosine',
      '--maskupdate_end_step=600 --base_learning_rate=0.4 --train_steps=800',
      '--mode=train_and_eval --steps_per_eval=400',
    ),
  )


def main() -> None:
  """Writes the data set for a command line."""
  parser = console.Parser(
    prog='python -m rigl.imagenet_resnet.sample_data',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--output_dir', required=True, metavar='FOLDER', help='where to write')
  for flag, default, meaning in (
    ('--num_train', 120, 'training pictures'),
    ('--num_eval', 40, 'validation pictures'),
    ('--seed', 0, 'seed of the pictures'),
  ):
    parser.add_argument(
      flag, type=int, default=default, metavar='N', help=f'{meaning} (default: {default})'
    )
  arguments = parser.parse_args()
  output_dir = arguments.output_dir
  try:
    output_dir = os.path.abspath(checks.expanded_path('--output_dir', output_dir))
    paths = write(output_dir, arguments.num_train, arguments.num_eval, arguments.seed)
  except (ValueError, OSError) as error:
    parser.exit(1, f'Error: {error}\n')
  except tf.errors.OpError as error:
    parser.exit(1, f'Error: {output_dir} cannot be written to: {messages.reason(error)}\n')
  n_bytes = sum(map(os.path.getsize, paths))
  print(
    f'Wrote {arguments.num_train} training and {arguments.num_eval} '
    f'validation pictures of {len(CLASSES)} classes to {output_dir}: '
    f'{len(paths)} files, {n_bytes:,} bytes.\nTo train on them:\n'
    + _training_command(output_dir, arguments.num_train, arguments.num_eval)
  )


if __name__ == '__main__':
  main()

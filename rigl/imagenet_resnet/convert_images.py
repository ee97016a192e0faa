r"""Converts a folder of pictures to records for the ImageNet script.

    python -m rigl.imagenet_resnet.convert_images --input=flowers \
        --output=flowers_records

--input has a folder of JPEG and PNG pictures for each class, or the folders
train and validation (or val) that contain such folders. Without validation, a
random share of the pictures of each class becomes the validation set.

--output is created when all records are written. It also has the names of the
classes, in labels.txt. Pictures are copied, not encoded again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import struct
import sys
import tempfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from rigl import console
from rigl.compat import tf
from rigl.core import checks, messages, seeding
from rigl.imagenet_resnet import record_output

LABELS_FILE = 'labels.txt'

_PART_FOLDERS = {'train': 'train', 'validation': 'validation', 'val': 'validation'}
# Files of file managers; hidden files, which start with a dot, are others.
_NO_PICTURES = ('thumbs.db', 'desktop.ini')
# {format in Pillow: format}. An MPO is a JPEG followed by more pictures.
_FORMATS = {'JPEG': 'JPEG', 'MPO': 'JPEG', 'PNG': 'PNG'}
_MAX_PER_FILE = 500
_first_few = functools.partial(messages.first_few, n=5)
_TRAIN_BATCH, _EVAL_BATCH, _EPOCHS = 64, 100, 100


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the folder.

  Attributes:
    path: path of the file.
    class_number: number of the class, from 0.
    size: width and height.
    image_format: 'JPEG' or 'PNG'.
    colour_space: 'RGB' or 'CMYK'; the scripts treat all others as RGB.
  """

  path: str
  class_number: int
  size: tuple[int, int]
  image_format: str
  colour_space: str


@dataclasses.dataclass(frozen=True)
class Converted:
  """The result of a conversion.

  Attributes:
    class_names: names of the classes, in the order of their numbers.
    num_train: number of training pictures.
    num_eval: number of validation pictures.
    is_drawn: whether the validation pictures were drawn at random.
  """

  class_names: tuple[str, ...]
  num_train: int
  num_eval: int
  is_drawn: bool


def convert(
  input_dir: str, output_dir: str, validation_share: float = 0.2, seed: int = 0
) -> Converted:
  """Writes the records of a folder of pictures.

  Decodes every picture before anything is written. The same folder, share and
  seed give the same bytes on every machine.

  Args:
    input_dir: the folder, see the docstring of this module.
    output_dir: folder to create.
    validation_share: share of each class to draw for validation, if the folder
      has no validation pictures.
    seed: seed of that draw and of the order of the records.

  Raises:
    ValueError: the folder has another structure, pictures are damaged or of
      another format, or output_dir is not empty.
    OSError: a folder cannot be read or written.
  """
  if not 0.0 < validation_share < 1.0:
    raise ValueError(f'validation_share must be in (0, 1), got {validation_share}.')
  _check_output(input_dir, output_dir)
  class_names, paths = _find(input_dir)
  pictures = _checked(paths)
  is_drawn = 'validation' not in pictures
  if is_drawn:
    pictures = _split(pictures['train'], validation_share, seed)
  parent = os.path.dirname(os.path.abspath(output_dir))
  os.makedirs(parent, exist_ok=True)
  with tempfile.TemporaryDirectory(
    prefix=os.path.basename(output_dir) + '.', suffix='.tmp', dir=parent
  ) as temporary:
    # The temporary folder is private, this one readable by others.
    folder = os.path.join(temporary, 'records')
    os.mkdir(folder)
    try:
      for part, members in pictures.items():
        _write_part(folder, part, members, class_names, seed)
    except tf.errors.OpError as error:
      raise ValueError(f'{output_dir} cannot be written to: {messages.reason(error)}') from error
    with open(os.path.join(folder, LABELS_FILE), 'w', encoding='utf-8', newline='\n') as stream:
      stream.writelines(f'{name}\n' for name in class_names)
    os.replace(folder, output_dir)
  return Converted(class_names, len(pictures['train']), len(pictures['validation']), is_drawn)


def _check_output(input_dir: str, output_dir: str) -> None:
  """Raises ValueError if the folder must not be written to."""
  record_output.check_empty('output', output_dir)
  source, target = (os.path.realpath(path) for path in (input_dir, output_dir))
  if os.path.commonpath([source, target]) == source:
    raise ValueError(
      f'--output={output_dir} is inside of --input={input_dir}, '
      'where it would be taken for a class: choose another.'
    )


def _find(input_dir: str) -> tuple[tuple[str, ...], dict[str, list[tuple[str, int]]]]:
  """Names of the classes, and (path, class) of each file of each part."""
  if not os.path.isdir(input_dir):
    raise ValueError(f'--input={input_dir} is no folder.')
  names = _visible(input_dir)
  folders = {'train': input_dir}
  if 'train' in names and set(names) <= set(_PART_FOLDERS):
    if 'validation' in names and 'val' in names:
      raise ValueError(
        f'{input_dir} has both validation and val: which one is it? Rename or move the other.'
      )
    folders = {_PART_FOLDERS[name]: os.path.join(input_dir, name) for name in names}
  class_names = _classes(folders['train'])
  numbers = {name: number for number, name in enumerate(class_names)}
  found = {}
  for part, folder in folders.items():
    unknown = [name for name in _classes(folder) if name not in numbers]
    if unknown:
      raise ValueError(
        f'{folder} has classes that {folders["train"]} lacks: {_first_few(unknown)}.'
      )
    found[part] = [
      (os.path.join(folder, name, file), numbers[name])
      for name in _classes(folder)
      for file in _visible(os.path.join(folder, name))
    ]
  filled = {number for _, number in found['train']}
  empty = [name for name in class_names if numbers[name] not in filled]
  if empty:
    raise ValueError(
      f'{folders["train"]} has classes without a picture: '
      f'{_first_few(empty)}. Add pictures or remove the folders.'
    )
  if not found.get('validation', True):
    raise ValueError(
      f'{folders["validation"]} has no pictures. Add some, or '
      'remove it to have them drawn from the others.'
    )
  return class_names, found


def _visible(folder: str) -> list[str]:
  """The sorted names in a folder, without files of file managers."""
  return sorted(
    name
    for name in os.listdir(folder)
    if not name.startswith('.') and name.lower() not in _NO_PICTURES
  )


def _classes(folder: str) -> tuple[str, ...]:
  """The names of the folders in a folder, sorted."""
  names = _visible(folder)
  files = [name for name in names if not os.path.isdir(os.path.join(folder, name))]
  if files or not names:
    raise ValueError(
      f'{folder} must have a folder for each class and nothing '
      f'else; it has {_first_few(files) or "nothing"}.'
    )
  # labels.txt has one name per line, and names may not be valid text.
  strange = [name for name in names if not name.isprintable()]
  if strange:
    raise ValueError(
      'Names of classes must be printable UTF-8; rename '
      f'{_first_few(list(map(repr, strange)))} in {folder}.'
    )
  return tuple(names)


def _checked(paths: dict[str, list[tuple[str, int]]]) -> dict[str, list[Picture]]:
  """Decodes all pictures; raises ValueError that names those that fail."""
  pictures: dict[str, list[Picture]] = {part: [] for part in paths}
  problems = []
  for part, members in paths.items():
    for path, class_number in members:
      try:
        pictures[part].append(_look_at(path, class_number))
      # Errors of Pillow for damaged files.
      except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
      ) as error:
        problems.append(f'{path!r} ({messages.reason(error)})')
  if problems:
    n = sum(map(len, paths.values()))
    raise ValueError(
      f'{len(problems)} of {n} files cannot be used: {_first_few(problems)}. Repair, convert or '
      'remove them; nothing was written.'
    )
  return pictures


def _look_at(path: str, class_number: int) -> Picture:
  """Decodes a file; raises one of the errors above if it is damaged."""
  if os.path.isdir(path):
    raise ValueError('a folder in that of a class')
  with open(path, 'rb') as stream:
    try:
      picture = Image.open(stream)
    except Image.UnidentifiedImageError as error:
      raise ValueError('no picture') from error
    image_format = _FORMATS.get(picture.format or '')
    if image_format is None:
      raise ValueError(f'{picture.format}, not JPEG or PNG')
    picture.load()
  return Picture(
    path, class_number, picture.size, image_format, 'CMYK' if picture.mode == 'CMYK' else 'RGB'
  )


def _split(pictures: list[Picture], share: float, seed: int) -> dict[str, list[Picture]]:
  """Draws validation pictures of each class, leaving at least one."""
  random_state = np.random.RandomState(seeding.stable_seed('convert_images', 'split', seed))
  parts: dict[str, list[Picture]] = {'train': [], 'validation': []}
  for number in range(pictures[-1].class_number + 1):
    members = [p for p in pictures if p.class_number == number]
    n_drawn = min(int(share * len(members) + 0.5), len(members) - 1)
    order = random_state.permutation(len(members))
    parts['validation'] += [members[i] for i in sorted(order[:n_drawn])]
    parts['train'] += [members[i] for i in sorted(order[n_drawn:])]
  if not parts['validation']:
    raise ValueError(
      f'A share of {share} of so few pictures leaves none for validation. Add pictures, or a '
      'larger --validation_share.'
    )
  return parts


def _write_part(
  folder: str, part: str, pictures: list[Picture], class_names: tuple[str, ...], seed: int
) -> None:
  """Writes the files of a part, its pictures in random order."""
  # Shuffled, because training shuffles only a few thousand records at a time.
  order = np.random.RandomState(
    seeding.stable_seed('convert_images', f'{part}/order', seed)
  ).permutation(len(pictures))
  n_files = -(-len(pictures) // _MAX_PER_FILE)

  def examples(numbers: np.ndarray) -> Iterator[tf.train.Example]:
    for i in numbers:
      picture = pictures[i]
      class_name = class_names[picture.class_number]
      with open(picture.path, 'rb') as stream:
        encoded = stream.read()
      # Names may not be valid text.
      name = os.fsencode(os.path.basename(picture.path)).decode(errors='replace')
      yield record_output.make_example(
        encoded,
        picture.size,
        picture.class_number,
        class_name,
        f'{class_name}/{name}',
        image_format=picture.image_format,
        colour_space=picture.colour_space,
      )

  for i in range(n_files):
    record_output.write_file(folder, part, i, n_files, examples(order[i::n_files]))


def training_command(folder: str, done: Converted) -> str:
  """A command line that trains on the records."""
  train_batch = min(_TRAIN_BATCH, done.num_train)
  n_steps = _EPOCHS * done.num_train // train_batch
  return record_output.training_command(
    folder,
    len(done.class_names),
    done.num_train,
    done.num_eval,
    (
      f'--train_batch_size={train_batch} --eval_batch_size={min(_EVAL_BATCH, done.num_eval)}',
      '--resnet_depth=18 --training_method=rigl --end_sparsity=0.8',
      '--mask_init_method=erdos_renyi_kernel --drop_fraction_anneal=cosine',
      # At least ten mask updates.
      f'--maskupdate_frequency={min(100, n_steps * 3 // 40)} '
      f'--maskupdate_end_step={n_steps * 3 // 4}',
      f'--train_steps={n_steps} --mode=train_and_eval --steps_per_eval={n_steps // 10}',
    ),
  )


def _parser() -> argparse.ArgumentParser:
  parser = console.Parser(
    prog='python -m rigl.imagenet_resnet.convert_images',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--input', required=True, metavar='FOLDER', help='where the pictures are')
  parser.add_argument(
    '--output', required=True, metavar='FOLDER', help='where to write; must be empty or not exist'
  )
  parser.add_argument(
    '--validation_share',
    type=float,
    default=0.2,
    metavar='SHARE',
    help='share of each class to draw for validation, if there is no such folder (default: 0.2)',
  )
  parser.add_argument(
    '--seed',
    type=int,
    default=0,
    metavar='N',
    help='seed of that draw and of the order of records (default: 0)',
  )
  return parser


def _text(arguments: argparse.Namespace) -> str:
  """Converts; returns the result and a command to train on it."""
  input_dir, output_dir = (
    os.path.abspath(checks.expanded_path(f'--{name}', path))
    for name, path in (('input', arguments.input), ('output', arguments.output))
  )
  share, seed = arguments.validation_share, arguments.seed
  done = convert(input_dir, output_dir, share, seed)
  origin = f' (a share of {share} of each class, drawn with seed {seed})'
  return (
    f'Wrote {done.num_train} training and {done.num_eval} validation '
    f'pictures{origin if done.is_drawn else ""} of '
    f'{len(done.class_names)} classes to {output_dir}.\n'
    f'{LABELS_FILE} there names the classes: line i, counted from 0, is '
    f'class i.\nTo train on them for {_EPOCHS} epochs:\n'
    f'{training_command(output_dir, done)}\n'
  )


def main() -> int:
  """Converts the folder that the command line names."""
  return console.run(_parser(), None, _text, (ValueError, OSError))


if __name__ == '__main__':
  sys.exit(main())

"""Draws the small sample of MNIST in the package.

The same input gives the same digits on every machine, and the same files with
the same zlib:

    python -m tools.make_mnist_sample --mnist=FOLDER --output=rigl/mnist/sample

FOLDER holds the four IDX files of MNIST.
"""

from __future__ import annotations

import argparse
import gzip
import io
import pathlib
import struct
import sys

import numpy as np

from rigl.core import checks
from rigl.mnist import mnist_data

_SEED = 0
_LICENSE = """\
The files in this folder hold a sample of MNIST, the database of handwritten
digits by Yann LeCun, Corinna Cortes and Christopher J.C. Burges
(http://yann.lecun.com/exdb/mnist/).

Licence: Creative Commons Attribution-Share Alike 3.0
(https://creativecommons.org/licenses/by-sa/3.0/). This licence holds for the
sample too.

Changes: {n_train} of the 60,000 training digits and {n_test} of the 10,000 test
digits were chosen at random, as many of each class, and kept in their order.
The digits themselves are unchanged.
"""


def choose_balanced(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
  """Chooses digits at random, equally many of each class.

  Args:
    labels: Integer array [n_digits], the classes 0 to 9.
    n: Number of digits to choose, a multiple of ten.
    seed: Seed of the choice.

  Returns:
    int array [n], the chosen positions in ascending order.

  Raises:
    ValueError: If `n` is no positive multiple of ten, or a class is too small.
  """
  per_class, rest = divmod(n, mnist_data.N_CLASSES)
  if per_class < 1 or rest:
    raise ValueError(
      f'The number of digits must be a positive multiple of {mnist_data.N_CLASSES}, found {n}.'
    )
  random_state = np.random.RandomState(seed)
  chosen = []
  for digit in range(mnist_data.N_CLASSES):
    (positions,) = np.nonzero(labels == digit)
    if len(positions) < per_class:
      raise ValueError(
        f'Expected at least {per_class} digits of class {digit}, found {len(positions)}.'
      )
    chosen.append(random_state.permutation(positions)[:per_class])
  return np.sort(np.concatenate(chosen))


def idx_bytes(array: np.ndarray) -> bytes:
  """Returns an array of unsigned bytes as the content of an IDX file."""
  header = struct.pack(f'>BBBB{array.ndim}I', 0, 0, 8, array.ndim, *array.shape)
  return header + np.ascontiguousarray(array, np.uint8).tobytes()


def gzip_bytes(content: bytes) -> bytes:
  """Compresses without time stamp and file name."""
  buffer = io.BytesIO()
  with gzip.GzipFile('', 'wb', 9, buffer, mtime=0) as gzip_file:
    gzip_file.write(content)
  return buffer.getvalue()


def make_sample(
  data: mnist_data.MnistData, output: pathlib.Path, n_train: int, n_test: int
) -> None:
  """Writes the four IDX files of a sample and their licence note.

  Args:
    data: MNIST.
    output: Folder to write to; made if there is none.
    n_train: Number of training digits, a multiple of ten.
    n_test: Number of test digits, a multiple of ten.

  Raises:
    ValueError: If a number is no multiple of ten, or a class is too small.
  """
  train = choose_balanced(data.train_labels, n_train, _SEED)
  test = choose_balanced(data.test_labels, n_test, _SEED)
  output.mkdir(parents=True, exist_ok=True)
  for field, name in mnist_data.IDX_FILES.items():
    chosen = train if field.startswith('train') else test
    content = gzip_bytes(idx_bytes(getattr(data, field)[chosen]))
    (output / f'{name}.gz').write_bytes(content)
  note = _LICENSE.format(n_train=f'{n_train:,}', n_test=f'{n_test:,}')
  (output / 'LICENSE-MNIST.txt').write_text(note, encoding='utf-8')


def main(argv: list[str] | None = None) -> None:
  """Reads the command line and writes the sample."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--mnist', required=True, metavar='FOLDER', help='folder of the IDX files')
  parser.add_argument('--output', required=True, metavar='FOLDER', help='folder to write to')
  for part, default in (('train', 5000), ('test', 1000)):
    parser.add_argument(
      f'--num_{part}',
      type=int,
      default=default,
      metavar='N',
      help=f'{part} digits, a multiple of ten (default: {default})',
    )
  args = parser.parse_args(argv)
  try:
    mnist, output = (
      checks.expanded_path(f'--{name}', getattr(args, name)) for name in ('mnist', 'output')
    )
    data = mnist_data.load_mnist(mnist)
    make_sample(data, pathlib.Path(output), args.num_train, args.num_test)
  except (OSError, ValueError) as error:
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  main()

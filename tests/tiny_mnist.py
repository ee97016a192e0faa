"""A tiny, learnable stand-in for MNIST, and the MNIST script run on it."""

from __future__ import annotations

import contextlib
import pathlib
import struct

import numpy as np
from absl import flags

from rigl.mnist import mnist_train_eval
from tests import quick_sessions, script_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
N_TRAIN = 200
N_TEST = 100
BATCH_SIZE = 20
N_BATCHES = N_TRAIN // BATCH_SIZE
# Of the trainings that several tests look at, in iterations.
RECORD_FREQUENCY = 5
SIZES = {'layer1': (784, 300), 'layer2': (300, 100), 'layer3': (100, 10)}

FLAGS = flags.FLAGS


def digits(n_train: int = N_TRAIN, n_test: int = N_TEST) -> dict[str, np.ndarray]:
  """{IDX file name: array} of noisy copies of one pattern a class."""
  random_state = np.random.RandomState(5)
  patterns = random_state.randint(0, 256, (10, 28, 28))
  arrays = {}
  for part, n in (('train', n_train), ('t10k', n_test)):
    labels = random_state.permutation(np.arange(n) % 10)
    noise = random_state.rand(n, 28, 28) < 0.5
    arrays[f'{part}-images-idx3-ubyte'] = (patterns[labels] * noise).astype(np.uint8)
    arrays[f'{part}-labels-idx1-ubyte'] = labels.astype(np.uint8)
  return arrays


def write_idx_files(folder: pathlib.Path, **sizes: int) -> pathlib.Path:
  """Writes the four files of `digits(**sizes)`; returns the folder."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, array in digits(**sizes).items():
    header = struct.pack(f'>I{array.ndim}I', 0x800 + array.ndim, *array.shape)
    (folder / name).write_bytes(header + array.tobytes())
  return folder


def arguments(data: pathlib.Path, save_path: pathlib.Path | None = None, **values) -> list[str]:
  """A command line; `values` are flags besides those of a tiny training."""
  values = {
    'mnist': data,
    'batch_size': BATCH_SIZE,
    'num_epochs': 2,
    'maskupdate_frequency': 3,
    'prune_begin_step': 2,
    'prune_end_step': 15,
    'pruning_frequency': 3,
    **values,
  }
  if save_path is not None:
    values['save_path'] = save_path
  return [f'--{name}={value}' for name, value in values.items()]


@contextlib.contextmanager
def parsed_flags(argv: list[str]):
  """In this context FLAGS have the values of a command line."""
  with script_flags.parsed(argv):
    yield


def train(argv: list[str]) -> None:
  """The script's main() with a command line, in this process."""
  with parsed_flags(argv), quick_sessions.of_scripts():
    mnist_train_eval.main([])


def masks_of(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """{layer: mask} of the variables of a network."""
  return {layer: values[f'{layer}/mask'] for layer in SIZES}


def text_file(folder: pathlib.Path) -> pathlib.Path:
  """The only text file of a training."""
  (path,) = folder.glob('*.txt')
  return path


def records_file(folder: pathlib.Path) -> pathlib.Path:
  """The only file of mask records of a training."""
  (path,) = folder.glob('*_masks.npz')
  return path

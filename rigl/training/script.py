"""How a training script starts."""

from __future__ import annotations

import logging as python_logging
import re
import sys
import warnings
from typing import Any, Callable, Sequence

from absl import app, logging

from rigl.compat import tf
from rigl.training import checkpoints, command_line

_OF_THE_SYSTEM = re.compile(
    'No space left|Read-only file system|Permission denied|Not a directory|'
    'is not a directory|Input/output error|File name too long|quota')

_MORE_HELP = '''\
  --verbosity=1             tracebacks, and what TensorFlow has to say'''


class _PlainFormatter(python_logging.Formatter):
  """Messages as they are; one that is a warning or worse says so."""

  def format(self, record: python_logging.LogRecord) -> str:
    """The lines of a message."""
    text = super().format(record)
    if record.levelno <= python_logging.INFO:
      return text
    return f'{record.levelname.capitalize()}: {text}'


def check_option(name: str, value: str, options: Sequence[str]) -> None:
  """Raises ValueError unless `value` is one of the options.

  Args:
    name: of the flag.
    value: given for it.
    options: allowed for it.
  """
  if value not in options:
    raise ValueError(f'{name} {value!r} is not one of {", ".join(options)}.')


def check_folder(flag: str, path: str) -> None:
  """Raises ValueError if TensorFlow would not find checkpoints there again.

  Args:
    flag: its name.
    path: its value.
  """
  wildcards = sorted(set('*?[\\') & set(path))
  if wildcards:
    raise ValueError(f'{flag}={path!r} has {" ".join(wildcards)} in it, which '
                     'TensorFlow takes for wildcards. Choose another folder.')


def run(main: Callable[[list[str]], Any]) -> None:
  """app.run(main), with the terminal left to what the script reports.

  TensorFlow's own messages are hidden, and so are the place and the time of
  ours, and a user's mistake ends in one line instead of a traceback.
  `--verbosity=1` shows them all. What is no flag is a mistake too. `--help`
  prints the docstring of main's module and its flags.

  Args:
    main: called with the name of the program alone.
  """
  command_line.define_help(main.__module__, _MORE_HELP)

  def run_main(argv: list[str]) -> None:
    if logging.get_verbosity() < logging.DEBUG:
      tf.get_logger().setLevel('ERROR')
      warnings.filterwarnings('ignore', module='tensorflow')
      logging.get_absl_handler().setFormatter(_PlainFormatter())
    try:
      command_line.check_only_flags(argv)
      main(argv)
    except (ValueError, OSError, FloatingPointError,
            tf.train.NanLossDuringTrainingError) as error:
      logging.debug('The error came from here:', exc_info=True)
      sys.exit(f'Error: {error}')
    except tf.errors.OpError as error:
      # Of files that TensorFlow writes itself, such as summaries.
      if not _OF_THE_SYSTEM.search(str(error)):
        raise
      logging.debug('The error came from here:', exc_info=True)
      sys.exit(f'Error: {checkpoints.reason(error)}')

  app.run(run_main, flags_parser=command_line.parse)

"""Starts a training script: parses flags, runs it, and reports how it ended."""

from __future__ import annotations

import logging as python_logging
import signal
import sys
import warnings
from typing import Any, Callable, NoReturn, Optional

from absl import app, logging

from rigl import console
from rigl.compat import hidden_log, tf
from rigl.core import messages
from rigl.training import command_line
from rigl.training.schema import Schema

_MORE_HELP = """\
  --verbosity=1             tracebacks, and the log of TensorFlow"""


class _PlainFormatter(python_logging.Formatter):
  """Formats messages without time and place; warnings and errors say what they are."""

  def format(self, record: python_logging.LogRecord) -> str:
    """The lines of a message."""
    text = super().format(record)
    if record.levelno <= python_logging.INFO:
      return text
    return f'{record.levelname.capitalize()}: {text}'


def check_folder(flag: str, path: str) -> None:
  """Raises ValueError for a folder in which TensorFlow would not find checkpoints."""
  wildcards = sorted(set('*?[\\') & set(path))
  if wildcards:
    raise ValueError(
      f'{flag}={path} has {" ".join(wildcards)} in it, which '
      'TensorFlow takes for wildcards. Choose another folder.'
    )


def announce(mode: str, training: str, data: str, folder: str) -> None:
  """Tells the user what begins, before the graph is built.

  Modes that train print it, others log it. `training` describes network, method
  and steps; `data` where the examples come from.
  """
  if mode.startswith('train'):
    print(f'{training}\nData: {data}\nRun: {folder}', flush=True)
  else:
    logging.info('Data: %s. Run: %s.', data, folder)


def _exit_by_signal(number: int, message: str) -> NoReturn:
  print(message, file=sys.stderr, flush=True)
  sys.exit(128 + number)


def parse_flags(schema: Schema, module: str) -> list[str]:
  """Parses the command line; ends the program for --help and for a mistake.

  A script calls it before the imports that load TensorFlow, so that --help and
  errors appear at once. --help prints the docstring of `module`. Returns the
  name of the program, for `run`.
  """
  command_line.define_help(schema, module, _MORE_HELP)
  return command_line.parse(sys.argv, schema)


def run(
  main: Callable[[list[str]], Any], schema: Schema, arguments: Optional[list[str]] = None
) -> None:
  """Runs app.run(main), and leaves the terminal to the reports of the script.

  TensorFlow's own messages are hidden, and so are the place and the time of
  ours, and a user's mistake ends in one line instead of a traceback.
  `--verbosity=1` shows them all. A script that a signal stops says so and ends
  with 128 + its number, as a shell would report it.

  The arguments are what `parse_flags` has returned; without them it is called
  for the module of `main`.
  """
  # Loads TensorFlow.
  from rigl.training import signals

  def run_main(argv: list[str]) -> None:
    console.tolerate_characters()
    if logging.get_verbosity() < logging.DEBUG:
      tf.get_logger().setLevel('ERROR')
      warnings.filterwarnings('ignore', module='tensorflow')
      logging.get_absl_handler().setFormatter(_PlainFormatter())
    else:
      sys.stderr.writelines(hidden_log)
    try:
      main(argv)
    except (
      ValueError,
      OSError,
      FloatingPointError,
      OverflowError,
      tf.train.NanLossDuringTrainingError,
      tf.errors.OpError,
    ) as error:
      logging.debug('The error came from here:', exc_info=True)
      text = messages.reason(error) if isinstance(error, tf.errors.OpError) else error
      sys.exit(f'Error: {text}')
    except signals.StoppedError as stopped:
      _exit_by_signal(stopped.number, str(stopped))
    except KeyboardInterrupt:
      logging.debug('It came here:', exc_info=True)
      text = 'Stopped by Ctrl-C.'
      if not command_line.only_evaluates():
        text += ' The same command goes on from the last checkpoint, if there is one.'
      _exit_by_signal(signal.SIGINT, text)

  app.run(
    run_main,
    flags_parser=lambda argv: (
      parse_flags(schema, main.__module__) if arguments is None else arguments
    ),
  )

"""How a training script starts."""

from __future__ import annotations

import sys
from typing import Any, Callable, Sequence

from absl import app, logging

from rigl.compat import tf


def check_option(name: str, value: str, options: Sequence[str]) -> None:
  """Raises ValueError unless `value` is one of the options."""
  if value not in options:
    raise ValueError(f'{name} {value!r} is not one of {", ".join(options)}.')


def run(main: Callable[[list[str]], Any]) -> None:
  """app.run(main), with the terminal left to what the script reports.

  TensorFlow's own messages are hidden, and a user's mistake ends in one line
  instead of a traceback. `--verbosity=1` shows both.
  """

  def run_main(argv: list[str]) -> None:
    if logging.get_verbosity() < logging.DEBUG:
      tf.get_logger().setLevel('ERROR')
    try:
      main(argv)
    except (ValueError, OSError,
            tf.train.NanLossDuringTrainingError) as error:
      logging.debug('The error came from here:', exc_info=True)
      sys.exit(f'Error: {error}')

  app.run(run_main)

"""Output on the terminal, and the errors of the commands that use argparse."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


def show(text: str) -> None:
  """Prints a text, with '?' for each character that the terminal cannot show."""
  encoding = sys.stdout.encoding or 'utf-8'
  print(text.encode(encoding, 'replace').decode(encoding))


def tolerate_characters() -> None:
  """Makes a program print '?' for each character that its terminal cannot show."""
  if hasattr(sys.stdout, 'reconfigure'):
    sys.stdout.reconfigure(errors='replace')


class Parser(argparse.ArgumentParser):
  """Reports errors in one line, as the training scripts do."""

  def parse_args(self, *args, **kwargs):
    """As argparse does; from then on the program prints on any terminal."""
    tolerate_characters()
    return super().parse_args(*args, **kwargs)

  def error(self, message: str) -> NoReturn:
    """Ends the process."""
    self.exit(2, f'Error: {message} (--help lists all arguments)\n')


def run(
  parser: argparse.ArgumentParser,
  argv: Sequence[str] | None,
  text_of: Callable[[argparse.Namespace], str],
  errors: tuple[type[Exception], ...] = (ValueError,),
) -> int:
  """Prints the text of parsed arguments, `argv` or those of the process; returns the exit code.

  `errors` are the exceptions to report in one line, without a traceback.
  """
  args = parser.parse_args(argv)
  try:
    text = text_of(args)
  except errors as error:
    parser.exit(2, f'Error: {error}\n')
  sys.stdout.write(text)
  return 0

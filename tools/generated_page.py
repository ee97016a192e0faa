"""What the programs that write a page of the docs have in common."""

from __future__ import annotations

import argparse
import pathlib


def run(description: str, page: pathlib.Path, text: str) -> int:
  """Writes a page, or with `--check` on the command line only compares it.

  Args:
    description: the docstring of the program.
    page: the file.
    text: what it should hold.

  Returns:
    The exit code: 1 if `--check` finds the page out of date.
  """
  parser = argparse.ArgumentParser(
      description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--check', action='store_true',
                      help='only say whether the page is up to date')
  arguments = parser.parse_args()
  if not arguments.check:
    page.write_text(text, encoding='utf-8')
  elif not page.exists() or page.read_text(encoding='utf-8') != text:
    print(f'{page} is out of date: run this without --check.')
    return 1
  return 0

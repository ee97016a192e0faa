"""`python -m rigl` lists what can be run, and nothing else."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from rigl import __main__ as overview

ROOT = pathlib.Path(__file__).parents[2]


def _programs():
  """Modules of rigl/ that are run by `python -m`."""
  for path in (ROOT / 'rigl').rglob('*.py'):
    parts = path.relative_to(ROOT / 'rigl').with_suffix('').parts
    if parts[-1] == '__main__' and parts != ('__main__',):
      yield '.'.join(parts[:-1])
    elif "\nif __name__ == '__main__':\n" in path.read_text(encoding='utf-8'):
      if parts != ('__main__',):
        yield '.'.join(parts)


def test_every_program_is_listed_and_no_other():
  assert sorted(_programs()) == sorted(overview.COMMANDS)


def test_each_has_a_line_without_loading_anything():
  printed = subprocess.run(
    [sys.executable, '-X', 'importtime', '-m', 'rigl'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  for command, said in overview.COMMANDS.items():
    (line,) = [
      line
      for line in printed.stdout.splitlines()
      if line.split()[:3] == ['python', '-m', f'rigl.{command}']
    ]
    assert line.endswith(f'  {said}') and len(line) <= 110
  assert 'numpy' not in printed.stderr and 'tensorflow' not in printed.stderr

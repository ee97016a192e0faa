"""Renders tables as aligned text, Markdown or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.cells
import rich.console
import rich.table

FORMATS = ('table', 'json', 'csv', 'markdown')

# Characters in a line of a table without limit, and of a name in one line at least.
_NO_LIMIT = 10**4
_SHORTEST_NAME = 20

_UNITS = ((1e18, 'E'), (1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k'))


def quantity(value: float, unit: str) -> str:
  """Formats with a decimal prefix: 8202340776 FLOPs are '8.202 GFLOPs'."""
  for factor, prefix in _UNITS:
    # A value that rounds to 1000 of a unit is 1 of the next.
    if abs(value) >= 0.99995 * factor:
      return f'{value / factor:.4g} {prefix}{unit}'
  return f'{value:.4g} {unit}'


def multiple(value: float) -> str:
  """Formats a ratio: '0.4153x'."""
  return f'{value:.4f}x'


def shape_text(shape: Sequence[int]) -> str:
  """Formats a shape: '3x3x16x64', '-' for none."""
  return 'x'.join(map(str, shape)) if shape else '-'


def text_table(
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  n_left: int = 1,
  max_width: int | None = None,
  has_total: bool = False,
) -> str:
  """Aligns columns with spaces.

  Args:
    header: titles of the columns.
    rows: cells as text.
    n_left: number of columns aligned to the left; the others go to the right.
    max_width: texts of the first column that do not fit go on in the next line,
      if the other columns leave them some room; None for no limit.
    has_total: draws a line above the last row.

  Returns:
    The table, ending in a line break.
  """
  total = rows[-1] if has_total else [''] * len(header)
  drawn = rich.table.Table(
    box=rich.box.SIMPLE,
    show_edge=False,
    pad_edge=False,
    padding=(0, 1, 0, 0),
    show_footer=has_total,
  )
  for i, (title, footer) in enumerate(zip(header, total)):
    drawn.add_column(
      title, footer, justify='left' if i < n_left else 'right', no_wrap=i > 0, overflow='fold'
    )
  for row in rows[:-1] if has_total else rows:
    drawn.add_row(*row)
  numbers = list(zip(header, *rows))[1:]
  left = (max_width or 0) - sum(2 + max(map(rich.cells.cell_len, cells)) for cells in numbers)
  text = io.StringIO()
  console = rich.console.Console(
    file=text,
    width=max_width if left >= _SHORTEST_NAME else _NO_LIMIT,
    # The rest keeps rich from asking terminal, notebook and environment.
    height=1,
    color_system=None,
    force_terminal=False,
    force_jupyter=False,
    markup=False,
    emoji=False,
  )
  console.print(drawn)
  return ''.join(line.rstrip() + '\n' for line in text.getvalue().splitlines())


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], n_left: int = 1) -> str:
  """Renders a table in GitHub's Markdown; arguments as in `text_table`."""
  rule = ['---' if i < n_left else '--:' for i in range(len(header))]
  lines = [header, rule, *rows]
  return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def _rounded(value: Any) -> Any:
  """The value, with floats inside it at 12 digits: 0.1, not 0.09999999...98."""
  if isinstance(value, float):
    return float(f'{value:.12g}')
  if isinstance(value, Mapping):
    return {name: _rounded(inner) for name, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [_rounded(inner) for inner in value]
  return value


def json_text(data: Any) -> str:
  """Renders a tree of dictionaries, lists, texts and finite numbers as JSON."""
  return json.dumps(_rounded(data), indent=2, allow_nan=False) + '\n'


def csv_table(records: Sequence[Mapping[str, object]]) -> str:
  """Renders comma-separated values.

  Args:
    records: at least one; the names of the columns -> cells, in the same order
      in each.
  """
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator='\n')
  writer.writerow(records[0])
  writer.writerows(map(_rounded, record.values()) for record in records)
  return buffer.getvalue()

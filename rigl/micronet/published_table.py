"""The published results of RigL, beside our counts.

The numbers under `published` are copied from the README of the 2020 repository
(https://github.com/google-research/rigl). All except the accuracies are counted
again. Uniform networks keep their first layer dense, ERK networks sparsify it,
except those of 99 %.
The depthwise layers of MobileNet are always dense.
"""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Iterable
from typing import Any

from rigl.core import distributions
from rigl.micronet import architectures, formatting, training_flops
from rigl.micronet.network import NetworkCount, count_network

CHECKPOINT_URL = 'https://storage.googleapis.com/rigl/{}.tar.gz'

_METHODS = {'ERK': 'erdos_renyi_kernel', 'Uniform': 'random'}

# Title -> network -> rows of: distribution, sparsity, length of the training,
# published training FLOPs, inference FLOPs, 10^6 bytes and top-1 accuracy,
# checkpoint. FLOPs with an x are multiples of the dense network's.
_ROWS = {
  ('ResNet-50, extended training', 'resnet50_keras'): """
        Dense   0     1   3.2e18 8.2e9 102.122 76.8  -
        ERK     0.8   5   2.09x  0.42x 23.683  77.17 s80erk5x
        Uniform 0.8   5   1.14x  0.23x 23.685  76.71 s80uniform5x
        ERK     0.9   5   1.23x  0.24x 13.499  76.42 s90erk5x
        Uniform 0.9   5   0.66x  0.13x 13.532  75.73 s90uniform5x
        ERK     0.95  5   0.63x  0.12x 8.399   74.63 s95erk5x
        Uniform 0.95  5   0.42x  0.08x 8.433   73.22 s95uniform5x
        ERK     0.965 5   0.45x  0.09x 6.904   72.77 s965erk5x
        Uniform 0.965 5   0.34x  0.07x 6.904   71.31 s965uniform5x
        ERK     0.99  5   0.29x  0.05x 4.354   61.86 s99erk5x
        ERK     0.99  10  0.58x  0.05x 4.354   63.89 s99erk10x
        ERK     0.99  40  2.32x  0.05x 4.354   66.94 s99erk40x
        ERK     0.99  100 5.8x   0.05x 4.354   68.15 s99erk100x""",
  ('ResNet-50, standard training', 'resnet50_keras'): """
        ERK     0.8   1   0.42x  0.42x 23.683  75.12 s80erk1x
        Uniform 0.8   1   0.23x  0.23x 23.685  74.60 s80uniform1x
        ERK     0.9   1   0.24x  0.24x 13.499  73.07 s90erk1x
        Uniform 0.9   1   0.13x  0.13x 13.532  72.02 s90uniform1x""",
  ('MobileNet-v1, extended training', 'mobilenet_v1_keras'): """
        Dense   0     1   4.5e17 1.14e9 16.864 72.1  -
        ERK     0.9   10  1.39x  0.21x  2.392  69.31 mbv1_s90_erk10x
        ERK     0.9   50  2.79x  0.21x  2.392  70.63 mbv1_s90_erk50x
        Uniform 0.9   10  1.25x  0.09x  2.392  69.28 mbv1_s90_uniform10x
        Uniform 0.9   50  6.25x  0.09x  2.392  70.25 mbv1_s90_uniform50x
        Uniform 0.9   100 12.5x  0.09x  2.392  70.59 mbv1_s90_uniform100x""",
}

_COUNTED = ('Training FLOPs', 'Inference FLOPs', 'Size (MB)')

SAME, LAST_DIGIT, DIFFERENT = 'same', 'last digit', 'different'
_MARKS = {SAME: '', LAST_DIGIT: '~', DIFFERENT: '!'}

# Prefix of a title -> explanation of its differences.
_NOTES = {
  'MobileNet-v1': """\
- The multiples published for MobileNet-v1 follow from no choice of dense layers
  that was tried. The paper gives 0.27x and 0.12x for the same networks, which
  is what the rules give when the depthwise layers are sparse as well. The size
  published for the uniform networks is that of the ERK networks.
""",
  '': '- Accuracies are copied, not measured.\n',
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A published number and its count."""

  published: str
  computed: float

  @property
  def _unit(self) -> decimal.Decimal:
    return decimal.Decimal(self.published.rstrip('x'))

  @property
  def _n_places(self) -> int:
    """Digits after the point; negative for a number such as 3.2e18."""
    return -int(self._unit.as_tuple().exponent)

  @property
  def agreement(self) -> str:
    """`SAME` if the count rounds to the published value, else the deviation."""
    published = self._unit
    last_digit = decimal.Decimal((0, (1,), -self._n_places))
    error = abs(decimal.Decimal(self.computed) - published)
    if error <= last_digit / 2:
      return SAME
    return LAST_DIGIT if error < last_digit else DIFFERENT

  @property
  def text(self) -> str:
    """The count, with one more digit than published."""
    if 'e' in self.published:
      digits = len(self._unit.as_tuple().digits)
      mantissa, _, exponent = f'{self.computed:.{digits}e}'.partition('e')
      return f'{mantissa}e{int(exponent)}'
    suffix = 'x' if self.published.endswith('x') else ''
    return f'{self.computed:.{self._n_places + 1}f}{suffix}'


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of a published table.

  Attributes:
    distribution: 'Dense', 'ERK' or 'Uniform'.
    sparsity: default sparsity of the distribution.
    real_sparsity: zeros over all kernels.
    length: length of the training, as a multiple of the dense one.
    cells: training, inference and size, in the order of the columns; sizes in
      10^6 bytes.
    top_1: published accuracy in percent.
    checkpoint: name of the published checkpoint, or '-'.
  """

  distribution: str
  sparsity: float
  real_sparsity: float
  length: int
  cells: dict[str, Cell]
  top_1: str
  checkpoint: str


def count_published(
  architecture: str,
  distribution: str,
  sparsity: float,
  width: float = 1.0,
  custom_sparsities: dict[str, float] | None = None,
) -> NetworkCount:
  """Counts a network the way the published figures were counted.

  Args:
    architecture: 'resnet50_keras' or 'mobilenet_v1_keras'.
    distribution: 'Dense', 'ERK', 'Uniform', or a name in
      `rigl.core.distributions.DISTRIBUTIONS`.
    sparsity: default sparsity.
    width: factor for the number of channels.
    custom_sparsities: layer name -> sparsity; None takes those of the published
      networks.

  Raises:
    ValueError: on an unknown name, an impossible number, or a sparsity for
      'Dense'.
  """
  network = architectures.get_network(architecture, width=width)
  if distribution == 'Dense':
    if sparsity or custom_sparsities:
      raise ValueError(
        f"'Dense' has no sparsity, got {sparsity} and the custom sparsities {custom_sparsities}."
      )
    return count_network(network.layers)
  if custom_sparsities is None:
    custom_sparsities = network.custom_sparsities(sparsity)
    if distribution == 'Uniform' or sparsity == 0.99:
      custom_sparsities[network.first_layer] = 0.0
  sparsities = distributions.get_sparsities(
    network.shapes, _METHODS.get(distribution, distribution), sparsity, custom_sparsities
  )
  return count_network(network.layers, sparsities)


def published_tables() -> dict[str, list[Row]]:
  """Counts every published network; returns title -> rows."""
  return {
    title: [_row(architecture, line) for line in lines.strip().splitlines()]
    for (title, architecture), lines in _ROWS.items()
  }


def _row(architecture: str, line: str) -> Row:
  distribution, sparsity, length, *published, top_1, checkpoint = line.split()
  dense = count_published(architecture, 'Dense', 0.0)
  count = count_published(architecture, distribution, float(sparsity))
  if distribution == 'Dense':
    n_images = training_flops.PUBLISHED_STEPS * training_flops.PUBLISHED_BATCH_SIZE
    training, inference = 3 * dense.flops * n_images, dense.flops
  else:
    training = training_flops.training_multiple(
      'rigl', count.flops, dense.flops, length=int(length)
    )
    inference = count.flops / dense.flops
  counted = training, inference, count.megabytes
  cells = dict(zip(('training', 'inference', 'size'), map(Cell, published, counted)))
  return Row(
    distribution, float(sparsity), count.real_sparsity, int(length), cells, top_1, checkpoint
  )


def as_records(tables: dict[str, list[Row]]) -> list[dict[str, Any]]:
  """Returns the rows of `published_tables` as plain dictionaries, for JSON and CSV."""
  records = []
  for title, rows in tables.items():
    for row in rows:
      record = {
        'table': title,
        'distribution': row.distribution,
        'sparsity': row.sparsity,
        'real_sparsity': row.real_sparsity,
        'length': row.length,
      }
      for name, cell in row.cells.items():
        record[f'{name}_published'] = cell.published
        record[f'{name}_computed'] = cell.computed
        record[f'{name}_agreement'] = cell.agreement
      record.update(top_1_published=row.top_1, checkpoint=row.checkpoint)
      records.append(record)
  return records


def render(tables: dict[str, list[Row]], is_markdown: bool) -> str:
  """Renders the tables of `published_tables`: published value, then the count.

  Markdown has links to the checkpoints. A legend and notes are at the end.
  """
  parts = []
  for title, rows in tables.items():
    heading = f'### {title}\n\n' if is_markdown else f'{title}\n\n'
    table = _markdown_rows(rows) if is_markdown else _text_rows(rows)
    parts.append(heading + table)
  notes = [
    note
    for beginning, note in _NOTES.items()
    if any(title.startswith(beginning) for title in tables)
  ]
  return '\n'.join([*parts, _legend(tables, is_markdown), ''.join(notes)])


def _text_rows(rows: Iterable[Row]) -> str:
  header = ['Distribution', 'Sparsity', 'Length']
  for title in _COUNTED:
    header += [title, 'counted']
  lines = []
  for row in rows:
    line = [row.distribution, f'{row.real_sparsity:.3f}', f'{row.length}x']
    for cell in row.cells.values():
      line += [cell.published, f'{_MARKS[cell.agreement]} {cell.text}'.lstrip()]
    lines.append([*line, row.top_1])
  return formatting.text_table([*header, 'Top-1 %'], lines)


def _markdown_rows(rows: Iterable[Row]) -> str:
  header = ['Distribution', 'Sparsity', 'Length', *_COUNTED, 'Top-1 %', 'Checkpoint']
  lines = []
  texts = {SAME: '{}', LAST_DIGIT: '{} ~', DIFFERENT: '**{} !**'}
  for row in rows:
    line = [row.distribution, f'{row.real_sparsity:.3f}', f'{row.length}x']
    for cell in row.cells.values():
      line.append(f'{cell.published} → {texts[cell.agreement].format(cell.text)}')
    url = CHECKPOINT_URL.format(row.checkpoint)
    link = '-' if row.checkpoint == '-' else f'[link]({url})'
    lines.append([*line, row.top_1, link])
  return formatting.markdown_table(header, lines)


def _legend(tables: dict[str, list[Row]], is_markdown: bool) -> str:
  agreements = [
    cell.agreement for rows in tables.values() for row in rows for cell in row.cells.values()
  ]
  meanings = {
    SAME: f'of {len(agreements)} cells round to the published digits',
    LAST_DIGIT: 'differ by less than one unit of the last published digit',
    DIFFERENT: 'do not follow from the rules; the count is what they give',
  }
  lines = []
  for agreement, meaning in meanings.items():
    mark, number = _MARKS[agreement], agreements.count(agreement)
    if is_markdown:
      mark = f'- `{mark}`' if mark else '-'
    lines.append(f'{mark or " "} {number} {meaning}\n')
  return ''.join(lines)

"""Tests of the published tables."""

import json

import pytest

from rigl.micronet import published_table
from rigl.micronet.published_table import DIFFERENT, LAST_DIGIT, SAME, Cell, count_published
from tests.micronet import published_rows
from tests.micronet.published_rows import ROWS

DISTRIBUTIONS = {'dense': 'Dense'}


@pytest.fixture(scope='module', name='tables')
def _tables():
  return published_table.published_tables()


@pytest.mark.parametrize('row', ROWS, ids=published_rows.row_id)
def test_every_reference_value(row):
  count = count_published(
    f'{row["net"]}_keras',
    DISTRIBUTIONS.get(row['distribution'], row['distribution']),
    row['sparsity'],
    width=row.get('width', 1.0),
    custom_sparsities=published_rows.custom_sparsities(row),
  )
  published_rows.assert_counted(row, count.flops, count.megabytes, count.real_sparsity)


def test_layers_of_their_own_factor():
  # layer2 of LeNet takes 0.9 times the sparsity, layer3 none.
  count = count_published('lenet_300_100', 'Uniform', 0.5)
  assert [layer.sparsity for layer in count.layers] == [0.0, 0.45, 0.0]


@pytest.mark.parametrize('arguments', [(0.9,), (0.0, 1.0, {'conv1': 0.5})])
def test_a_dense_network_has_no_sparsity(arguments):
  with pytest.raises(ValueError, match="'Dense' has no sparsity, got 0.[09]"):
    count_published('resnet50_keras', 'Dense', *arguments)


def test_rows_agree_with_the_reference_rows(tables):
  """The table holds the published cells and counts them as the reference."""
  expected = [row for row in ROWS if row.get('published')]
  rows = {}
  for title, table in tables.items():
    net = 'resnet50' if 'ResNet' in title else 'mobilenet_v1'
    for row in table:
      rows[net, row.distribution.lower(), row.sparsity, row.length] = row
  assert len(rows) == len(expected) == 23
  for reference in expected:
    row = rows[
      reference['net'],
      reference['distribution'].lower(),
      reference['sparsity'],
      reference.get('length', 1),
    ]
    published = reference['published']
    if isinstance(published, list):
      inference = reference['flops']
      published = dict(zip(('train_x', 'inference_x', 'size_mb'), published))
    else:
      inference = reference['inference_x']
      assert row.cells['training'].computed == pytest.approx(reference['train_x_rigl'], abs=5.1e-6)
    assert row.cells['inference'].computed == pytest.approx(inference, abs=5.1e-6)
    assert row.cells['size'].computed == pytest.approx(reference['size_mb'], abs=5.1e-5)
    for cell, key in zip(row.cells.values(), ('train_x', 'inference_x', 'size_mb')):
      if published[key] is not None:
        assert float(cell.published.rstrip('x')) == published[key]


class TestAgreement:
  def test_what_does_not_follow_from_the_rules(self, tables):
    different = {
      (title.split(',')[0], row.distribution, row.sparsity, column)
      for title, rows in tables.items()
      for row in rows
      for column, cell in row.cells.items()
      if cell.agreement == DIFFERENT
    }
    mobilenet = {
      ('MobileNet-v1', distribution, 0.9, column)
      for distribution in ('ERK', 'Uniform')
      for column in ('training', 'inference')
    }
    assert different == mobilenet | {
      ('ResNet-50', 'Uniform', 0.8, 'size'),
      ('ResNet-50', 'ERK', 0.965, 'size'),
      ('MobileNet-v1', 'Uniform', 0.9, 'size'),
    }

  def test_every_other_cell_is_within_one_digit(self, tables):
    agreements = [
      cell.agreement for rows in tables.values() for row in rows for cell in row.cells.values()
    ]
    assert [agreements.count(value) for value in (SAME, LAST_DIGIT, DIFFERENT)] == [48, 5, 16]

  @pytest.mark.parametrize(
    'published, computed, agreement',
    [
      ('0.42x', 0.4249, SAME),
      ('0.42x', 0.4251, LAST_DIGIT),
      ('0.42x', 0.4101, LAST_DIGIT),
      ('0.42x', 0.4301, DIFFERENT),
      ('8.2e9', 8.249e9, SAME),
      ('8.2e9', 8.251e9, LAST_DIGIT),
      ('8.2e9', 8.31e9, DIFFERENT),
      ('5.8x', 5.75, SAME),
      ('23.685', 23.729, DIFFERENT),
    ],
  )
  def test_cells(self, published, computed, agreement):
    assert Cell(published, computed).agreement == agreement

  @pytest.mark.parametrize(
    'published, computed, text',
    [
      ('0.42x', 0.41529, '0.415x'),
      ('8.2e9', 8202340776.0, '8.20e9'),
      ('4.5e17', 4.4888e17, '4.49e17'),
      ('23.683', 23.68358, '23.6836'),
    ],
  )
  def test_one_digit_more_than_published(self, published, computed, text):
    assert Cell(published, computed).text == text


def test_figures_of_the_paper_need_sparse_depthwise_layers():
  dense = count_published('mobilenet_v1_keras', 'Dense', 0.0)
  for distribution, custom, published in (
    ('ERK', {}, '0.27x'),
    ('Uniform', {'conv1': 0.0}, '0.12x'),
  ):
    count = count_published('mobilenet_v1_keras', distribution, 0.9, custom_sparsities=custom)
    assert Cell(published, count.flops / dense.flops).agreement == SAME


class TestRendering:
  def test_text_columns_line_up(self, tables):
    text = published_table.render(tables, is_markdown=False)
    for block in text.split('\n\n'):
      lines = block.splitlines()
      if lines[0].startswith('Distribution'):
        assert len({len(line) for line in lines}) == 1
        assert len(lines[0]) < 120

  def test_text_has_every_published_cell_and_count(self, tables):
    text = published_table.render(tables, is_markdown=False)
    for rows in tables.values():
      for row in rows:
        for cell in row.cells.values():
          assert f' {cell.published} ' in text
          assert f' {cell.text} ' in text
    assert '48 of 69 cells' in text

  def test_notes_are_those_of_the_tables(self, tables):
    resnet = {title: rows for title, rows in tables.items() if 'Res' in title}
    text = published_table.render(resnet, is_markdown=False)
    assert 'Accuracies are copied' in text
    assert 'MobileNet' not in text

  def test_markdown_is_a_table_with_links(self, tables):
    text = published_table.render(tables, is_markdown=True)
    lines = [line for line in text.splitlines() if line.startswith('|')]
    assert len(lines) == 23 + 2 * len(tables)
    assert {line.count('|') for line in lines} == {9}
    assert 'https://storage.googleapis.com/rigl/s99erk100x.tar.gz' in text
    assert '| 6.904 → **6.8686 !** |' in text

  def test_records_are_complete(self, tables):
    records = published_table.as_records(tables)
    assert len(records) == 23
    assert all(list(record) == list(records[0]) for record in records)
    assert json.loads(json.dumps(records)) == records

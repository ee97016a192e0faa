"""The published networks, with the figures of the 2020 implementation."""

from __future__ import annotations

import json

import pytest

from tests.conftest import GOLDENS

ROWS = json.loads((GOLDENS / 'published_flops.json').read_text())['rows']


def row_id(row):
  keys = ('net', 'distribution', 'sparsity', 'length', 'width')
  return '-'.join(str(row.get(key)) for key in keys)


def custom_sparsities(row):
  """Layer name -> sparsity; some rows name kernels, some only describe them."""
  custom = row.get('custom', {})
  if not isinstance(custom, str):
    return {name[: -len('/kernel:0')]: value for name, value in custom.items()}
  names = [f'conv_dw_{i}' for i in range(1, 14)]
  if 'conv1' in custom:
    names.append('conv1')
  return dict.fromkeys(names, 0.0)


def _six_digits(value):
  return float(f'{value:.6g}')


def assert_counted(row, flops, megabytes, real_sparsity):
  """Compares a count at the digits that the rows have."""
  assert _six_digits(flops) == _six_digits(row['flops'])
  assert megabytes == pytest.approx(row['size_mb'], abs=5.1e-5)
  if 'real_sparsity' in row:
    assert real_sparsity == pytest.approx(row['real_sparsity'], abs=5.1e-6)

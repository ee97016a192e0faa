"""Rounding of channels; the tests of graphs and of the counter check the rest."""

from __future__ import annotations

import pytest

from rigl import networks


@pytest.mark.parametrize(
  'channels, divisor, expected',
  [
    (32, 8, 32),
    (9, 8, 16),
    (12, 8, 16),
    (19, 8, 24),
    (38, 8, 40),
    (76, 8, 80),
    (67, 8, 64),
    (1, 8, 8),
    (19, 1, 19),
  ],
)
def test_make_divisible(channels, divisor, expected):
  # 9 and 19 would lose more than a tenth by going down to 8 and 16.
  assert networks.make_divisible(channels, divisor) == expected

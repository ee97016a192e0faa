"""The checks of single values, and their errors."""

import math
import re

import numpy as np
import pytest

from rigl.core import checks


@pytest.mark.parametrize(
  'check, values',
  [
    (checks.integer, (-1, 0, 2**70, np.int32(3))),
    (checks.positive, (1, 1e-30, 2**70)),
    (checks.not_negative, (0, 0.0, 3)),
    (checks.finite, (-1e300, 0)),
    (checks.in_unit_interval, (0, 0.5, 1)),
    (checks.below_one, (0, 0.999)),
  ],
)
def test_good_values_pass(check, values):
  for value in values:
    check('x', value)


@pytest.mark.parametrize(
  'check, value, message',
  [
    (checks.integer, 1.5, 'x must be an integer, got 1.5.'),
    (checks.integer, 2.0, 'x must be an integer, got 2.0.'),
    (checks.integer, '2', "x must be an integer, got '2'."),
    (checks.number, '2', "x must be a number, got '2'."),
    (checks.positive, None, 'x must be a number, got None.'),
    (checks.not_negative, '1', "x must be a number, got '1'."),
    (checks.finite, 'a', "x must be a number, got 'a'."),
    (checks.in_unit_interval, '0.1', "x must be a number, got '0.1'."),
    (checks.below_one, None, 'x must be a number, got None.'),
    (checks.positive, 0, 'x must be > 0, got 0.'),
    (checks.positive, -1.0, 'x must be > 0, got -1.0.'),
    (checks.positive, math.nan, 'x must be > 0, got nan.'),
    (checks.positive, math.inf, 'x must be finite, got inf.'),
    (checks.not_negative, -1, 'x must be >= 0, got -1.'),
    (checks.not_negative, math.nan, 'x must be >= 0, got nan.'),
    (checks.not_negative, math.inf, 'x must be finite, got inf.'),
    (checks.finite, -math.inf, 'x must be finite, got -inf.'),
    (checks.finite, math.nan, 'x must be finite, got nan.'),
    (checks.in_unit_interval, 1.01, 'x must be in [0, 1], got 1.01.'),
    (checks.in_unit_interval, math.nan, 'x must be in [0, 1], got nan.'),
    (checks.below_one, 1.0, 'x must be in [0, 1), got 1.0.'),
    (checks.below_one, -0.1, 'x must be in [0, 1), got -0.1.'),
    (checks.below_one, math.nan, 'x must be in [0, 1), got nan.'),
  ],
)
def test_bad_values_are_named(check, value, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    check('x', value)


def test_home_folders_are_expanded(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  for given, path in (
    ('~', '/home/me'),
    ('~/a/~b', '/home/me/a/~b'),
    ('a/~', 'a/~'),
    ('/~/a', '/~/a'),
    ('', ''),
  ):
    assert checks.expanded_path('x', given) == path


def test_unknown_home_folders_are_named(no_home):
  assert checks.expanded_path('x', '/a/~') == '/a/~'
  for given, user, remedy in (('~/a', '~', ', or set HOME'), ('~me', '~me', '')):
    message = f'x={given!r}: the home folder {user} is unknown here. Give the whole path{remedy}.'
    with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
      checks.expanded_path('x', given)


def test_one_of_names_the_options():
  checks.one_of('depth', 34, {18: 'basic', 34: 'basic'})
  with pytest.raises(ValueError, match="^depth '34' is not one of 18, 34.$"):
    checks.one_of('depth', '34', iter((18, 34)))
  with pytest.raises(ValueError, match='^size .* Did you mean large.$'):
    checks.one_of('size', 'lrge', ('small', 'large'), ('tiny',))
  with pytest.raises(ValueError, match='^size .* Did you mean tiny.$'):
    checks.one_of('size', 'tny', ('small', 'large'), ('tiny',))

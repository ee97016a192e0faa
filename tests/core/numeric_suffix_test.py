"""Tests of rigl.core.numeric_suffix."""

import json
import pathlib

import pytest

from rigl.core import numeric_suffix

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
NUMBERS = json.loads((GOLDENS / 'schedules.json').read_text())['extract_number']


@pytest.mark.parametrize(
  'option, expected', [(t, v) for t, v in NUMBERS.items() if not isinstance(v, str)]
)
def test_numbers_are_those_of_the_reference(option, expected):
  assert numeric_suffix.split(option)[1] == expected


@pytest.mark.parametrize('option', [t for t, v in NUMBERS.items() if isinstance(v, str)])
def test_what_the_reference_rejects_is_rejected(option):
  with pytest.raises(ValueError, match=repr(option)):
    numeric_suffix.split(option)


@pytest.mark.parametrize(
  'option, name',
  [
    ('grad_scale_10', 'grad_scale'),
    ('a_1_2', 'a_1'),
    ('zeros', 'zeros'),
    ('x_-3', 'x_-3'),
    ('x_1e3', 'x_1e3'),
    ('x_.5', 'x'),
    ('_2', ''),
    ('', ''),
    ('x_3\n', 'x_3\n'),
  ],
)
def test_names(option, name):
  assert numeric_suffix.split(option)[0] == name


@pytest.mark.parametrize('option', [None, 3, 0.0, b'zeros', ['zeros']])
def test_only_strings_have_a_number(option):
  with pytest.raises(ValueError, match='not a string'):
    numeric_suffix.split(option)

"""Trainings of these tests do not optimise their graphs."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='module', autouse=True)
def _quick():
  from tests import quick_sessions

  with quick_sessions.of_scripts():
    yield

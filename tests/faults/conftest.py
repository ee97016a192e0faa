"""Fixtures of the tests of faults: data, and servers of the scripts."""

from __future__ import annotations

import contextlib

import pytest

from tests.faults import scripts


@pytest.fixture(scope='session')
def data(tmp_path_factory):
  """{script: folder of what it trains on}."""
  return scripts.write_data(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='session')
def servers(tmp_path_factory):
  """fn(script) -> the server of its runs, started once."""
  with contextlib.ExitStack() as stack:
    started = {}

    def get(script):
      if script not in started:
        started[script] = stack.enter_context(
          scripts.server(script, tmp_path_factory.mktemp(script))
        )
      return started[script]

    yield get

"""Terminals of any encoding."""

from __future__ import annotations

import io
import sys
from typing import Callable

import pytest


def printed(monkeypatch: pytest.MonkeyPatch, encoding: str, show: Callable[[], object]) -> str:
  """What `show` prints on a terminal of an encoding."""
  with io.TextIOWrapper(io.BytesIO(), encoding) as terminal:
    with monkeypatch.context() as context:
      context.setattr(sys, 'stdout', terminal)
      show()
    terminal.flush()
    return terminal.buffer.getvalue().decode(encoding)

"""Skips these tests if the extra `inference` is not installed."""

from __future__ import annotations

import importlib.util
from importlib import metadata

if metadata.version('keras').startswith('2.') or not all(
  map(importlib.util.find_spec, ('ai_edge_litert', 'numba'))
):
  collect_ignore_glob = ['*_test.py']

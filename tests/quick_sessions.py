"""Sessions that run small graphs as they are.

Optimising a small graph takes longer than running it. What optimised graphs
compute is tested in tests/faults, where the scripts are processes.
"""

from __future__ import annotations

import contextlib
from typing import Iterator

import pytest

from rigl.compat import tf
from rigl.training import distribution


def unoptimized(config: tf.ConfigProto | None = None) -> tf.ConfigProto:
  """The config, or a new one, with the optimisation of graphs switched off."""
  config = config or tf.ConfigProto()
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  return config


@contextlib.contextmanager
def of_scripts() -> Iterator[None]:
  """In this context the scripts do not optimise their graphs."""
  make = distribution.session_config
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(distribution, 'session_config', lambda *arguments: unoptimized(make(*arguments)))
    yield

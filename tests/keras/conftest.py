"""Trains small networks without what takes longer than it saves."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture(scope='module', autouse=True)
def _unoptimized():
  """Switches off Grappler; programs that are processes of their own have it."""
  if keras.backend.backend() != 'tensorflow':
    yield
    return
  from rigl.compat import tf2

  tf2.config.optimizer.set_experimental_options({'disable_meta_optimizer': True})
  yield
  tf2.config.optimizer.set_experimental_options({'disable_meta_optimizer': False})

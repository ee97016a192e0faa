"""The one place that imports TensorFlow.

Every other module takes the graph-mode API from here:

    from rigl.compat import tf

and, where only the TensorFlow 2 API has it, `tf2`. TensorFlow, which takes
seconds to load, is loaded when the first attribute of either is used. Modules
that use none at import time, such as those that define flags, load fast. This
module switches no behaviour: a script that runs a graph calls
`tf.disable_v2_behavior()` itself.

TensorFlow's C++ log is off: it warns of CUDA libraries that most users do not
have, and errors reach Python as exceptions anyway. Set the environment variable
TF_CPP_MIN_LOG_LEVEL to 0 to see it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import importlib
import os
import re
import sys
import tempfile
import threading
import types
from typing import TYPE_CHECKING, Any, Iterator

__all__ = ['hidden_log', 'tf', 'tf2']

# The lines of the log that were hidden while TensorFlow was loaded.
hidden_log: list[str] = []

_NO_LOG = '3'
_LOG_LINE = re.compile(
  r'^(?:WARNING: All log messages before absl::|[IWE]\d{4} [\d:.]+ ).*\n', re.MULTILINE
)

# Set at import, so that it holds for programs that load TensorFlow themselves.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', _NO_LOG)


@contextlib.contextmanager
def _hiding_log() -> Iterator[None]:
  """Keeps TensorFlow's log off standard error while TensorFlow is loaded.

  TensorFlow 2.16 and later write some lines from C++ before they read
  TF_CPP_MIN_LOG_LEVEL, so the file descriptor itself is redirected meanwhile.
  Everything else that was printed follows at the end, and so does the log if
  loading fails. If loading crashes, Python's stack is shown.
  """
  level = os.environ.get('TF_CPP_MIN_LOG_LEVEL')
  if level != _NO_LOG or sys.__stderr__ is None:
    yield
    return
  as_text: dict[str, Any] = {'encoding': 'utf-8', 'errors': 'replace'}
  with tempfile.TemporaryFile('w+', **as_text) as held, open(os.dup(2), 'w', **as_text) as stderr:
    shows_crashes = faulthandler.is_enabled()
    if not shows_crashes:
      faulthandler.enable(stderr)
    os.dup2(held.fileno(), 2)
    is_loaded = False
    try:
      yield
      is_loaded = True
    finally:
      os.dup2(stderr.fileno(), 2)
      if not shows_crashes:
        faulthandler.disable()
      held.seek(0)
      text = held.read()
      if is_loaded:
        hidden_log.extend(_LOG_LINE.findall(text))
        text = _LOG_LINE.sub('', text)
      stderr.write(text)


# Only one thread at a time may redirect standard error.
_LOADING = threading.RLock()


@functools.cache
def _loaded(name: str) -> types.ModuleType:
  with _LOADING, _hiding_log():
    return importlib.import_module(name)


def _loaded_at_first_use(name: str) -> types.ModuleType:
  """A module that loads another at first use and has its attributes."""
  module = types.ModuleType(name)
  # Python calls this for attributes that the module itself lacks.
  vars(module)['__getattr__'] = lambda attribute: getattr(_loaded(name), attribute)
  return module


if TYPE_CHECKING:
  import tensorflow as tf2
  import tensorflow.compat.v1 as tf
else:
  tf2 = _loaded_at_first_use('tensorflow')
  tf = _loaded_at_first_use('tensorflow.compat.v1')

"""The one place that imports TensorFlow.

Every other module takes the graph-mode API from here:

    from rigl.compat import tf

and, where only the TensorFlow 2 API has it, `tf2`. TensorFlow, which takes
seconds to load, is loaded when the first attribute of either is used: so a
module that uses none while it is imported, as those that define flags, costs
nothing. No behaviour is switched: a script that runs a graph decides by itself
whether to call `tf.disable_v2_behavior()`.

TensorFlow's C++ log is off, since it tells every user about CUDA libraries they
do not have, while errors reach Python as exceptions. To see it, set the
environment variable TF_CPP_MIN_LOG_LEVEL to 0.
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
    r'^(?:WARNING: All log messages before absl::|[IWE]\d{4} [\d:.]+ ).*\n',
    re.MULTILINE)

# Now, so that it also holds for a program that loads TensorFlow by itself.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', _NO_LOG)


@contextlib.contextmanager
def _hiding_log() -> Iterator[None]:
  """Keeps TensorFlow's log off standard error while TensorFlow is loaded.

  TensorFlow 2.16 and later write some lines before they read
  TF_CPP_MIN_LOG_LEVEL. They come from C++, so the file descriptor itself has to
  lead elsewhere meanwhile. Everything else that was printed follows at the end,
  and so does the log if loading fails. Of a crash, Python's stack is shown.
  """
  level = os.environ.get('TF_CPP_MIN_LOG_LEVEL')
  if level != _NO_LOG or sys.__stderr__ is None:
    yield
    return
  as_text: dict[str, Any] = {'encoding': 'utf-8', 'errors': 'replace'}
  with tempfile.TemporaryFile('w+', **as_text) as held, (
      open(os.dup(2), 'w', **as_text)) as stderr:
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


# Two threads must not put standard error aside at once.
_LOADING = threading.RLock()


@functools.cache
def _loaded(name: str) -> types.ModuleType:
  with _LOADING, _hiding_log():
    return importlib.import_module(name)


def _loaded_at_first_use(name: str) -> types.ModuleType:
  """A module with the attributes of another, which the first use loads."""
  module = types.ModuleType(name)
  # Python calls it for attributes that the module itself does not have.
  vars(module)['__getattr__'] = lambda attribute: (
      getattr(_loaded(name), attribute))
  return module


if TYPE_CHECKING:
  import tensorflow as tf2
  import tensorflow.compat.v1 as tf
else:
  tf2 = _loaded_at_first_use('tensorflow')
  tf = _loaded_at_first_use('tensorflow.compat.v1')

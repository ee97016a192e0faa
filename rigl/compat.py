"""The one place that imports TensorFlow.

Every other module takes the graph-mode API from here:

    from rigl.compat import tf

and, where only the TensorFlow 2 API has it, `tf2`. No behaviour is switched at
import: a script that runs a graph decides by itself whether to call
`tf.disable_v2_behavior()`.

TensorFlow's C++ log is off, since it tells every user about CUDA libraries they
do not have, while errors reach Python as exceptions. To see it, set the
environment variable TF_CPP_MIN_LOG_LEVEL to 0.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import sys
import tempfile
from typing import Iterator

__all__ = ['hidden_log', 'tf', 'tf2']

# The lines of the log that were hidden while TensorFlow was loaded.
hidden_log: list[str] = []

_NO_LOG = '3'
_LOG_LINE = re.compile(
    r'^(?:WARNING: All log messages before absl::|[IWE]\d{4} [\d:.]+ ).*\n',
    re.MULTILINE)


@contextlib.contextmanager
def _hiding_log() -> Iterator[None]:
  """Keeps TensorFlow's log off standard error while TensorFlow is loaded.

  TensorFlow 2.16 and later write some lines before they read
  TF_CPP_MIN_LOG_LEVEL. They come from C++, so the file descriptor itself has to
  lead elsewhere meanwhile. Everything else that was printed follows at the end,
  and so does the log if loading fails. Of a crash, Python's stack is shown.
  """
  level = os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', _NO_LOG)
  if level != _NO_LOG or sys.__stderr__ is None:
    yield
    return
  as_text = {'encoding': 'utf-8', 'errors': 'replace'}
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


with _hiding_log():
  import tensorflow as tf2
  import tensorflow.compat.v1 as tf

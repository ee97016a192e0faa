"""What errors of TensorFlow have to say to a user."""

from __future__ import annotations


def reason(error: Exception) -> str:
  """The message of an error in one line, without TensorFlow's traceback.

  Args:
    error: of TensorFlow or of Python.
  """
  text = getattr(error, 'message', None) or str(error)
  # TensorFlow says it between where an operation was made and a stack trace.
  before, mark, _ = text.partition('[[{{node')
  lines = before.strip().splitlines()
  said = lines[-1] if mark and lines else text
  return ' '.join(said.split()) or type(error).__name__

"""The environment of processes whose output is compared."""

from __future__ import annotations

import os


def without_log_level(**others: str) -> dict[str, str]:
  """The environment of this process, without the log level of TensorFlow.

  Args:
    **others: further variables.
  """
  return {
    **{name: value for name, value in os.environ.items() if name != 'TF_CPP_MIN_LOG_LEVEL'},
    **others,
  }

"""The one place that knows which TensorFlow is installed.

Every other module takes the graph-mode API from here:

    from rigl.compat import tf

and, where only the TensorFlow 2 API has it, `tf2`. No behaviour is switched at
import: a script that runs a graph decides by itself whether to call
`tf.disable_v2_behavior()`.
"""

from __future__ import annotations

import os
import sys
import types

# The C++ log tells every user about CUDA libraries they do not have; errors
# reach Python as exceptions anyway. Set the variable to see it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf2
import tensorflow.compat.v1 as tf

__all__ = ['MissingEstimatorError', 'estimator_module', 'tf', 'tf2']


class MissingEstimatorError(RuntimeError):
  """The installed TensorFlow cannot train; the message says which one can."""


def _advice() -> str:
  """How the running Python gets a TensorFlow with Estimator."""
  if sys.version_info < (3, 12):
    return 'To fix this, run: pip install "tensorflow==2.15.*"'
  # There is no build of it for any other.
  return ('TensorFlow 2.15 runs on Python 3.9, 3.10 and 3.11; this is Python '
          f'{sys.version.split()[0]}. To fix this, install rigl in an '
          'environment of one of those.')


def estimator_module() -> types.ModuleType:
  """Returns the module that holds `Estimator` and `tpu.TPUEstimator`.

  TensorFlow 2.15 is the last release with Estimator. It loads it on first use,
  so the look-up happens at the call and the rest of the library works without.

  Returns:
    The module `tf.compat.v1.estimator`.

  Raises:
    MissingEstimatorError: If the installed TensorFlow has no usable Estimator.
  """
  try:
    module = tf.estimator
    # A lazily loaded module shows that it is broken only when it is used.
    _ = module.tpu.TPUEstimator
  except (AttributeError, ImportError) as error:
    raise MissingEstimatorError(
      f'TensorFlow {tf.__version__} has no usable Estimator, which training'
      f' runs on: it was removed in TensorFlow 2.16. {_advice()}'
    ) from error
  return module

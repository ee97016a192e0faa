"""The one place that imports TensorFlow.

Every other module takes the graph-mode API from here:

    from rigl.compat import tf

and, where only the TensorFlow 2 API has it, `tf2`. No behaviour is switched at
import: a script that runs a graph decides by itself whether to call
`tf.disable_v2_behavior()`.
"""

from __future__ import annotations

import os

# The C++ log tells every user about CUDA libraries they do not have; errors
# reach Python as exceptions anyway. Set the variable to see it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import tensorflow as tf2
import tensorflow.compat.v1 as tf

__all__ = ['tf', 'tf2']

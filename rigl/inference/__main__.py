"""`python -m rigl.inference`, see `rigl.inference.cli`."""

import os
import sys

# TensorFlow's converter reads models of Keras on TensorFlow. Set before Keras is imported.
os.environ['KERAS_BACKEND'] = 'tensorflow'

from rigl.inference import cli

sys.exit(cli.main())

"""Small and fast files of sparse networks, for inference.

    rigl.inference.export(model, 'model.tflite')
    network = rigl.inference.load('model.tflite')
    logits = network(images)

`python -m rigl.inference --help` does the same from the command line; see
docs/inference.md.
"""

from rigl.inference.exporting import export
from rigl.inference.loading import load

__all__ = ['export', 'load']

"""Sparse training of neural networks with RigL and related methods.

Importing this package does not import TensorFlow; the sub-packages do when they
need it. The method is described in "Rigging the Lottery: Making All Tickets
Winners", https://arxiv.org/abs/1911.11134.
"""

__version__ = '0.1.0'

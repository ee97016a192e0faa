"""Counts FLOPs and bytes of dense and sparse networks.

The rules are those of the MicroNet Challenge at NeurIPS 2019
(https://micronet-challenge.github.io/), as the RigL paper applies them; see
`rigl.micronet.counting`. Nothing here imports TensorFlow, save the reader of
checkpoints at the moment it reads one. `python -m rigl.micronet --help` counts
from the command line.
"""

"""Counts FLOPs and bytes of dense and sparse networks.

The rules are those of the MicroNet Challenge at NeurIPS 2019
(https://micronet-challenge.github.io/), as the RigL paper applies them; see
`rigl.micronet.counting`. Only reading a checkpoint imports TensorFlow. See
`python -m rigl.micronet --help` for the command line.
"""

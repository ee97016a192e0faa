"""The algorithms as pure functions: no variables, flags or sessions.

Importing this package loads no submodule and therefore not TensorFlow; the
modules that are numpy only (`distributions`) stay usable without it.
"""

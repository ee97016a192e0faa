"""The algorithms as pure functions: no variables, flags or sessions.

Importing this package loads no submodule and therefore not TensorFlow; the
modules that do without it (`checks`, `distributions`, `layer_names`,
`messages`, `ordering`, `seeding`, `tokens`) stay usable where it is not
installed.
"""

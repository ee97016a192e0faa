"""The algorithms as pure functions: no variables, flags or sessions.

All but `tf_selection` and `shared_graphs`, TensorFlow's own ways, work where
TensorFlow is not installed.
"""

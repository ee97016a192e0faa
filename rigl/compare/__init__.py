"""Trains several methods at several sparsities and compares them.

See `python -m rigl.compare --help`. `plan` lists the runs of a script,
`workers` trains them, `results` reads their results and `figures` plots them.
"""

"""Trains several methods at several sparsities and compares them.

`python -m rigl.compare --help` says how. `plan` lists the runs of a script,
`workers` trains them, `results` reads and `figures` draws what came of them.
"""

"""Makes `setup.py` work as an entry point; pyproject.toml has the metadata."""

import setuptools

# Older ones do not read pyproject.toml and would build an empty package.
if int(setuptools.__version__.split('.')[0]) < 64:
  raise SystemExit(
    f'setuptools {setuptools.__version__} is too old to build rigl.'
    ' To fix this, run: pip install --upgrade "setuptools>=64"'
  )

setuptools.setup(license='Apache-2.0')

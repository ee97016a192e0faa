"""`python -m rigl.inference`, see `rigl.inference.cli`."""

import sys

from rigl.inference import cli

sys.exit(cli.main())

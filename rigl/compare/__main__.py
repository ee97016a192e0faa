"""`python -m rigl.compare`, see `rigl.compare.cli`."""

import sys

from rigl.compare import cli

sys.exit(cli.main())

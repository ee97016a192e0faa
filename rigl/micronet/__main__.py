"""`python -m rigl.micronet`, see `rigl.micronet.cli`."""

import sys

from rigl.micronet import cli

sys.exit(cli.main())

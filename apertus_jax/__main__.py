"""`python -m apertus_jax COMMAND`."""

import sys

from apertus_jax.cli import main

sys.exit(main())

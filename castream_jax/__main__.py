"""`python -m castream_jax` is `castream`."""

import sys

from castream_jax.cli import main

sys.exit(main())

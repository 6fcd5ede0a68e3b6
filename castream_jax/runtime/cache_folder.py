"""The folder of what is kept between runs: published weights and compiled programs."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """That of the environment variable CASTREAM_CACHE, by default the user's cache folder. It need not exist."""
    return Path(os.environ.get("CASTREAM_CACHE") or platformdirs.user_cache_dir("castream_jax")).expanduser().absolute()

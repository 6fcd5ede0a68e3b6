"""Paths of what is written on this machine, told from addresses on the network that are given in their place."""

import os
from pathlib import Path
import re


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether this is an address on the network, which people give where a path is wanted; also one made a `Path`.

    >>> is_address("s3://bucket/run"), is_address(Path("s3://bucket/run")), is_address("/runs/digits")
    (True, True, False)
    """
    return re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path), re.IGNORECASE) is not None


def local_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path.

    Raises:
        ValueError: it is an address, of which `Path` would make folders `s3:` and below.
    """
    if is_address(path):
        raise ValueError(f"{os.fspath(path)} is an address, and a path on this machine is needed.")
    return Path(path).expanduser().resolve()

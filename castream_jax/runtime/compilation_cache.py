"""Compiled programs, kept between runs of the command line: the second start does not compile again.

The folder is that of the environment variable CASTREAM_COMPILATION_CACHE ("off" for none), by default `compiled` in
the cache folder. JAX's own JAX_COMPILATION_CACHE_DIR goes before both.

JAX's own limit, `jax_compilation_cache_max_size`, is not used (jax 0.10.2): one program without its time of access, as
a killed process leaves, makes every later write fail, and each write reads the whole folder: 33 ms with 1,000 programs,
where 14 ms once per start do it here.
"""

import contextlib
import hashlib
import os
from pathlib import Path
import platform
from typing import Any

import jax

from castream_jax.runtime.cache_folder import cache_folder

_OFF = ("off", "0", "no", "false")
_MIN_SECONDS = 0.1  # compilations that took less are not worth a file
_MAX_BYTES = 2 * 2**30  # of all files together: ResNet-50's programs take a few MB each


def use_compilation_cache() -> Path | None:
    """Makes JAX keep compiled programs on disk. Must come before anything is compiled.

    Returns:
        The folder; None where the cache is turned off, there is no place for it or its folder cannot be written.
    """
    config: Any = jax.config  # its fields are not declared
    if config.jax_compilation_cache_dir:
        return Path(config.jax_compilation_cache_dir)
    setting = os.environ.get("CASTREAM_COMPILATION_CACHE", "")
    if setting.lower() in _OFF:
        return None
    try:
        root = Path(setting) if setting else cache_folder() / "compiled"
        folder = root.expanduser().resolve() / _processor()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    if not os.access(folder, os.W_OK):
        return None
    _drop_oldest(folder, _MAX_BYTES)
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", _MIN_SECONDS)
    return folder


def _processor() -> str:
    """A name for this kind of processor: a home folder is often shared by several, and code for one may not run on
    another."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"


def _drop_oldest(folder: Path, max_bytes: int) -> None:
    """Deletes the files written first until at most `max_bytes` are left; other processes may do the same."""
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for _, size, path in sorted(files, reverse=True):
        total += size
        if total > max_bytes:
            path.unlink(missing_ok=True)

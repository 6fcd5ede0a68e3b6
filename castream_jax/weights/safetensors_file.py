"""Writes safetensors files whole or not at all."""

from collections.abc import Mapping
import os
from pathlib import Path

import numpy as np
import safetensors.numpy


def write_safetensors(tensors: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Replaces `path` by a file of `tensors` at once: a reader, a second writer or a crash never sees half of it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask says; safetensors would let only the owner read
        safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

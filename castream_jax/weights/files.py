"""Weight files: read whatever their format, written as safetensors."""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import re
from typing import Any
import zipfile

import numpy as np
import safetensors
import safetensors.numpy

from castream_jax.runtime.atomic_files import replacing
from castream_jax.runtime.local_path import is_address, local_path
from castream_jax.weights.guess import guess
from castream_jax.weights.names import few, without_wrappers
from castream_jax.weights.torch_file import read_torch_file

# The trunk within a directory that `save_pretrained` wrote.
TRUNK_FILE = "trunk.safetensors"
# What describes an imported trunk in its folder.
IMPORTED_FILE = "trunk.json"


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Tensors of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.th` file, by name. No code in the file is run.

    Of a checkpoint, its weights are taken out; what training wrapped the network in is taken off the names, see
    `castream_jax.weights.names.without_wrappers`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, truncated or corrupted, or holds no weights, or several.
    """
    if is_address(path):
        raise ValueError(f"{path} is an address, and weights are read from files: download it, and give its path.")
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}: check the path.")
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif path.suffix == ".npz":
        tensors = _read_npz(path)
    elif path.suffix in (".pth", ".pt", ".th"):
        tensors = _state_dict(path, read_torch_file(path))
    else:
        raise ValueError(
            f"{path}: weights are read from .safetensors, .npz, .pth, .pt and .th files; a PyTorch file of another "
            "name (.bin, .ckpt, .tar) is read once its name ends in .pth."
        )
    return without_wrappers(tensors)


def imported_name(folder: str | os.PathLike[str]) -> str | None:
    """The name of the trunk in a folder of `castream import`; None where this is no such folder."""
    path = Path(folder).expanduser() / IMPORTED_FILE
    if not os.fspath(folder) or not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["name"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): import the network again.") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is truncated, corrupted or no safetensors file: {error}.") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is truncated, corrupted or no npz file: {error}.") from error


def _state_dict(path: Path, saved: Any) -> dict[str, np.ndarray]:
    """The weights in what PyTorch saved: all of it, or the one entry of a checkpoint that holds tensors alone."""
    if _is_state_dict(saved):
        return saved
    entries = saved if isinstance(saved, dict) else {}
    found = {name: entry for name, entry in entries.items() if _is_state_dict(entry)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ValueError(
            f"{path} holds several sets of weights, {few([*found])}: save one of them in a file of its own."
        )
    inside = f" It holds the entries {few([*map(str, entries)])}." if entries else ""
    looks = guess(map(str, entries))
    raise ValueError(f"{path} holds no state_dict of tensors.{inside}{f' It looks like {looks}.' if looks else ''}")


def _is_state_dict(saved: Any) -> bool:
    return (
        isinstance(saved, dict)
        and bool(saved)
        and all(isinstance(name, str) and isinstance(value, np.ndarray) for name, value in saved.items())
    )


def write_safetensors(tensors: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Replaces `path` by a file of `tensors` at once: a reader, a second writer or a crash never sees half of it.

    Raises:
        ValueError: if `path` is an address.
        OSError: if the system does not let it be written, as on a full disk.
    """
    with replacing(local_path(path)) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask says; safetensors would let only the owner read
        arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        try:
            safetensors.numpy.save_file(arrays, temporary)
        except safetensors.SafetensorError as error:
            if not (system := re.search(r"\(os error (\d+)\)", str(error))):
                raise
            number = int(system[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        temporary.chmod(mode)

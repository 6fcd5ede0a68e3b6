"""Weight files: read whatever their format, written as safetensors."""

from collections.abc import Mapping
import os
from pathlib import Path
import zipfile

import numpy as np
import safetensors
import safetensors.numpy

from castream_jax.runtime.atomic_files import replacing
from castream_jax.weights.torch_file import read_torch_file

# The trunk within a directory that `save_pretrained` wrote.
TRUNK_FILE = "trunk.safetensors"


def read_weights(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Tensors of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.th` file, by name. No code in the file is run.

    A checkpoint's `state_dict` entry is unwrapped, and DataParallel's `module.` prefix taken off.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, truncated or corrupted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}: check the path.")
    if path.suffix == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is truncated, corrupted or no safetensors file: {error}.") from error
    if path.suffix == ".npz":
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is truncated, corrupted or no npz file: {error}.") from error
    if path.suffix not in (".pth", ".pt", ".th"):
        raise ValueError(f"{path}: weights are read from .safetensors, .npz, .pth, .pt and .th files.")
    saved = read_torch_file(path)
    state_dict = saved.get("state_dict", saved) if isinstance(saved, dict) else saved
    if not isinstance(state_dict, dict) or not all(isinstance(value, np.ndarray) for value in state_dict.values()):
        raise ValueError(f"{path} holds no state_dict of tensors.")
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}
    return state_dict


def write_safetensors(tensors: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Replaces `path` by a file of `tensors` at once: a reader, a second writer or a crash never sees half of it."""
    with replacing(Path(path)) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask says; safetensors would let only the owner read
        safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, temporary)
        temporary.chmod(mode)

"""Files that a config imports for their backbones, methods and sources: found, run, and kept in the workdir."""

from collections.abc import Iterable
import os
from pathlib import Path
from typing import Any

from castream_jax.plugins import import_file
from castream_jax.runtime.atomic_files import write_atomically

FOLDER = "imports"  # in a workdir


def import_files(paths: Iterable[str | os.PathLike[str]], folder: Path) -> tuple[str, ...]:
    """Imports files, relative paths being those from `folder`, and returns their absolute paths, each once.

    Raises:
        ValueError: as `castream_jax.plugins.import_file`.
    """
    files = [folder / Path(path).expanduser() for path in paths]
    for file in files:
        import_file(file)
    return tuple(dict.fromkeys(str(file.resolve()) for file in files))


def store_imports(config: Any, workdir: Path) -> Any:
    """The config with copies of its imports, and of what these took from their folders, in the workdir.

    Its `imports` are then relative to the workdir, which can be moved, and shows the code that its numbers come from
    whatever becomes of the originals.

    Raises:
        ValueError: if two files would have one name.
    """
    copies: dict[str, bytes] = {}
    for path in config.imports:
        for name, content in import_file(path).contents.items():
            if copies.setdefault(name, content) != content:
                raise ValueError(f"config.imports has two files {name}, which differ: rename one.")
    for name, content in copies.items():
        target = workdir / FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content.decode())
    stored = config.copy_and_resolve_references()
    stored.imports = tuple(f"{FOLDER}/{Path(path).name}" for path in config.imports)
    return stored

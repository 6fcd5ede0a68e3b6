"""The folder of an imported trunk: `trunk.json`, `arrays.safetensors`, and `NAME.stablehlo` of each program."""

from collections.abc import Mapping
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from castream_jax.backbones.backbone import Taps
from castream_jax.backbones.imported import Boundary, ImportedBackbone, Program, Trunk
from castream_jax.runtime.atomic_files import json_text
from castream_jax.runtime.atomic_folder import writing_folder
from castream_jax.runtime.local_path import local_path
from castream_jax.version import __version__
from castream_jax.weights.files import IMPORTED_FILE as DESCRIPTION_FILE
from castream_jax.weights.files import write_safetensors
from castream_jax.weights.names import check_names

ARRAYS_FILE = "arrays.safetensors"
_PROGRAM_SUFFIX = ".stablehlo"
_FORMAT = 1  # raised when an older release would misread what a newer one writes


def is_imported(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an imported trunk."""
    return (Path(folder).expanduser() / DESCRIPTION_FILE).is_file()


def imported_files(trunk: Trunk) -> set[str]:
    """Names of the files of its folder."""
    return {DESCRIPTION_FILE, ARRAYS_FILE, *(name + _PROGRAM_SUFFIX for name, _ in trunk.programs)}


def write_imported(backbone: ImportedBackbone, directory: str | os.PathLike[str]) -> Path:
    """Writes the folder, whole or not at all; replaces an earlier one.

    Raises:
        FileExistsError: if `directory` holds anything else.
        ValueError: if it is an address.
    """
    directory = local_path(directory)
    ours = imported_files(backbone.trunk)
    with writing_folder(directory, may_replace=ours, marker=DESCRIPTION_FILE, what="import") as folder:
        fill_folder(backbone, folder)
    return directory


def fill_folder(backbone: ImportedBackbone, folder: Path, *, arrays: bool = True) -> None:
    """Writes the files into a folder that is there; without the arrays where these lie elsewhere."""
    host = jax.device_get(backbone.arrays())
    trunk = backbone.trunk
    values = {
        "castream_jax": __version__,
        "format": _FORMAT,
        **{field.name: getattr(trunk, field.name) for field in dataclasses.fields(trunk)},
        "boundaries": [dataclasses.asdict(boundary) for boundary in trunk.boundaries],
        "programs": {name: program.sha256 for name, program in trunk.programs},
        "checked": dict(trunk.checked),
        "made_with": dict(trunk.made_with),
        "arrays": {name: [str(value.dtype), list(value.shape)] for name, value in host.items()},
    }
    (folder / DESCRIPTION_FILE).write_text(json_text(values, DESCRIPTION_FILE, indent=2) + "\n", encoding="utf-8")
    for name, program in trunk.programs:
        (folder / f"{name}{_PROGRAM_SUFFIX}").write_bytes(program.content)
    if arrays:
        write_safetensors(host, folder / ARRAYS_FILE)


def read_imported(folder: str | os.PathLike[str], *, taps: Taps | None = None) -> ImportedBackbone:
    """The trunk of a folder.

    Raises:
        ValueError: if the folder is damaged, or a newer release wrote it.
    """
    folder = local_path(folder)
    trunk, shapes = read_trunk(folder)
    path = folder / ARRAYS_FILE
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is missing, truncated or corrupted ({error}): import the network again.") from error
    check_names(
        f"the imported {trunk.name}",
        expected={name: shape.shape for name, shape in shapes.items()},
        given={name: array.shape for name, array in arrays.items()},
    )
    return ImportedBackbone(trunk, {name: jax.device_put(np.asarray(value)) for name, value in arrays.items()}, taps)


def abstract_imported(folder: Path, taps: Taps | None = None) -> ImportedBackbone:
    """The trunk of a folder without values, a `jax.ShapeDtypeStruct` for each."""
    return ImportedBackbone(*read_trunk(folder), taps)


def read_trunk(folder: Path) -> tuple[Trunk, Mapping[str, jax.ShapeDtypeStruct]]:
    """What is known of a trunk but for its arrays, and the arrays' shapes.

    Raises:
        ValueError: if a file is damaged or missing, or a newer release wrote the folder.
    """
    path = folder / DESCRIPTION_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, number = values.pop("castream_jax"), values.pop("format")
        if number > _FORMAT:
            raise ValueError(f"{path} was written by castream_jax {version}: upgrade castream_jax to read it.")
        arrays = values.pop("arrays")
        programs = tuple((name, _read_program(folder, name, digest)) for name, digest in values["programs"].items())
        fields: dict[str, Any] = (
            values
            | {name: tuple(values[name]) for name in ("mean", "std", "class_names", "classifier")}
            | {name: tuple(sorted(values[name].items())) for name in ("checked", "made_with")}
            | {"boundaries": tuple(Boundary(**one) for one in values["boundaries"]), "programs": programs}
        )
        trunk = Trunk(**fields)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): import the network again.") from error
    return trunk, {name: jax.ShapeDtypeStruct(shape, dtype) for name, (dtype, shape) in arrays.items()}


def _read_program(folder: Path, name: str, sha256: str) -> Program:
    path = folder / f"{name}{_PROGRAM_SUFFIX}"
    if not path.is_file():
        raise ValueError(f"{path} is missing: import the network again.")
    program = Program(path.read_bytes())
    if program.sha256 != sha256:
        raise ValueError(
            f"{path} is damaged, its SHA-256 is not the one in {DESCRIPTION_FILE}: import the network again."
        )
    return program

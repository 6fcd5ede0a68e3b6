"""A folder of prepared data: which files it holds, and whether they are what they were when they were written.

    prepared.json              source, transform, counts and hashes; it is written last, so that its folder is finished
    preparation.json           what is being prepared; what a second run compares itself with
    train.npz                  the columns of all records of the split "train"; `train-pairs.npz`: of pairs
    train-00000.arrayrecord    encoded images, one a record, in the order of the columns
    train-00000.npz            the columns of these records, and the SHA-256 of the shard

A column is an array with a row for each record: `label`, `size` (height and width of the original), `stored` (of the
encoded image), and, where the source has them, `box` (in pixels of the original), `target`, `target_mask`. Names are a
column of JSON text, as bytes.
"""

from collections.abc import Iterator, Mapping
import hashlib
import json
from pathlib import Path
import re
from typing import Any
import zipfile

import numpy as np

from castream_jax.runtime.atomic_files import replacing

FORMAT = 1  # of folders; another one is another layout
MANIFEST, BEGUN = "prepared.json", "preparation.json"
PAIRS = "pairs"

Columns = dict[str, np.ndarray]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a finished folder holds.

    Raises:
        FileNotFoundError: there is no such folder, or it is not finished.
        ValueError: its manifest is damaged, or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / BEGUN).is_file():
            raise FileNotFoundError(
                f"'{folder}' is not finished: run the command that prepares it again, and it continues there"
            )
        raise FileNotFoundError(
            f"no prepared data in '{folder}', which would hold {MANIFEST}: give the --out of `castream data prepare`"
        )
    return _read_json(path)


def read_begun(folder: Path) -> dict[str, Any] | None:
    """What is being prepared in a folder; None if nothing is. Raises as `read_manifest`."""
    path = folder / BEGUN
    return _read_json(path) if path.is_file() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        made_by = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged: prepare the data again, in another folder") from error
    if made_by != FORMAT:
        raise ValueError(
            f"'{path.parent}' was prepared in format {made_by}, and this version reads format {FORMAT}: prepare the "
            "data again, in another folder"
        )
    return values


def stem_of(split: str) -> str:
    """What the files of a split are called: its name, where that can stand in a file name."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", split) and not split.endswith(f"-{PAIRS}"):
        return split
    return f"split-{hashlib.sha256(split.encode()).hexdigest()[:8]}" if split else "all"


def shard_file(split: str, number: int) -> str:
    return f"{stem_of(split)}-{number:05}.arrayrecord"


def write_columns(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns, which replace what was there at once."""
    with replacing(path) as temporary:
        np.savez(temporary, **dict(columns))  # pyright: ignore[reportArgumentType]


def read_columns(path: Path) -> Columns:
    """Raises a ValueError if the file is missing or damaged."""
    try:
        with np.load(path) as columns:
            return dict(columns)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"'{path}' is missing or damaged: the command that prepared the data makes it again"
        ) from error


def as_text_column(values: Any) -> np.ndarray:
    """JSON as bytes: names need no fixed width, and neither pickle."""
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


def from_text_column(column: np.ndarray) -> Any:
    return json.loads(column.tobytes())


def file_hash(path: Path) -> str:
    """SHA-256 of a file, "" if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def check_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises a ValueError that names the first of these files which is missing, or longer or shorter than it was."""
    for name, noted in files.items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != noted["bytes"]:
            found = "is missing" if size is None else f"has {size:,} bytes and not {noted['bytes']:,}"
            raise ValueError(f"'{path}' {found}: the command that prepared the data makes it again")


def damaged_files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Names of the files whose content is not what was written, all of which are read."""
    for split in manifest["splits"].values():
        for name, noted in split["files"].items():
            if file_hash(folder / name) != noted["sha256"]:
                yield name

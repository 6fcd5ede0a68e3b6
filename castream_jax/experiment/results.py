"""The tables of an evaluation: a file per part of the images, read as one. Nothing here waits for JAX."""

from collections.abc import Sequence
from pathlib import Path
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from castream_jax.runtime.atomic_files import replacing


def part_name(number: int) -> str:
    """Name of a part's file, without the suffix."""
    return f"part-{number:05}"


def write_table(path: Path, table: pa.Table) -> None:
    """Replaces a Parquet file at once."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def read_arrays(path: Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an npz file, by default all of them, each decompressed once.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in names or arrays.files}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()).rstrip(".")
    return ValueError(f"{path} is damaged ({reason}): remove it, and run `castream evaluate` again.")


def read_parts(folder: Path, columns: Sequence[str], where: pc.Expression | None = None) -> pa.Table | None:
    """All parts in a folder as one table, image by image; None where there is no part.

    Args:
        folder: `rows` or `predictions` of a `Workdir`.
        columns: to read; those that the files lack are left out.
        where: rows to keep.

    Raises:
        ValueError: if a file is damaged.
    """
    tables = []
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            file = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise _damaged(path, error) from error
        table = file.read([name for name in columns if name in file.schema_arrow.names])
        tables.append(table if where is None else table.filter(where))
    return pa.concat_tables(tables) if tables else None

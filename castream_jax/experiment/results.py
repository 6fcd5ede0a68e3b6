"""The tables of an evaluation: a file per part of the images, read as one. Nothing here waits for JAX."""

from collections.abc import Sequence
from pathlib import Path

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
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{path} is damaged ({reason}): remove it, and run `castream evaluate` again.") from error
        table = file.read([name for name in columns if name in file.schema_arrow.names])
        tables.append(table if where is None else table.filter(where))
    return pa.concat_tables(tables) if tables else None

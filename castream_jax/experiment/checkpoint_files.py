"""The files of a checkpoint: what writes them, and whether they are what was written."""

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import zlib

import jax
import orbax.checkpoint as ocp

from castream_jax.runtime.bucket_folder import is_copy, send

CHECKSUMS = "checksums.json"  # written last: in a bucket, a checkpoint without is not there


def is_written_alone(folder: Path) -> bool:
    """Whether one of several processes writes the checkpoints in this folder, from arrays on the host.

    On a disk all processes do it together, as Orbax wants to; of a folder in a bucket they have a scratch copy each.
    """
    return is_copy(folder) and jax.process_count() > 1


def open_checkpointer(folder: Path, written: Callable[[], None]) -> ocp.AsyncCheckpointer | None:
    """Writes the checkpoints in a folder in the background; None where this process has no part in it.

    Args:
        folder: of all checkpoints.
        written: called in a thread when the files of one are written and have not yet their final name.
    """
    processes = ocp.options.MultiprocessingOptions()
    if is_written_alone(folder):
        if jax.process_index() != 0:
            return None
        processes = ocp.options.MultiprocessingOptions(active_processes={0}, barrier_sync_key_prefix="castream")
    return ocp.AsyncCheckpointer(
        ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=processes)),
        async_options=ocp.AsyncOptions(post_finalization_callback=written),
        multiprocessing_options=processes,
    )


def write_checksums(temporary: Path, final: Path) -> None:
    """Writes the checksums of a checkpoint that has yet its temporary name; if it is for a bucket, sends it there."""
    written = (path for item in ("about", "model", "training") for path in (temporary / item).rglob("*"))
    checksums = {str(path.relative_to(temporary)): _checksum(path) for path in written if path.is_file()}
    (temporary / CHECKSUMS).write_text(json.dumps(checksums), encoding="utf-8")
    send(temporary, to=final, marker=CHECKSUMS)


def changed_file(folder: Path) -> str | None:
    """The first file of a checkpoint that is missing or other than it was written."""
    checksums: Mapping[str, int] = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    return next(
        (name for name, sum_ in checksums.items() if not (folder / name).is_file() or _checksum(folder / name) != sum_),
        None,
    )


def _checksum(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return checksum

"""Files that replace what was there at once: a reader or a crash never sees half of one."""

from collections.abc import Iterator
import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from castream_jax.runtime.bucket_folder import is_copy, send


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text` at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Replaces `path` by `values` at once, as JSON that every reader takes.

    Raises:
        ValueError: a number is NaN or infinite, which JSON has no word for; nothing is written.
    """
    write_atomically(path, json_text(values, str(path), indent=2) + "\n")


def json_text(values: Any, what: str, **options: Any) -> str:
    """`values` as JSON; of numbers that are not finite, a ValueError names the first, and `what` it is a part of."""
    try:
        return json.dumps(values, allow_nan=False, **options)
    except ValueError as error:
        place, value = next(_not_finite(values), ("", error))
        raise ValueError(f"{what} cannot be written: {place or 'a value'} is {value}, which is not finite.") from error


def _not_finite(values: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(values, dict | list | tuple):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _not_finite(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, float) and not math.isfinite(values):
        yield place, values


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which then replaces `path` at once: a reader or a crash never sees half of it.

    So it does in a bucket, to which the file is sent.
    """
    if is_copy(path):  # of a folder that may have been made by another process, on another machine
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")  # the suffix stays, some writers insist on theirs
    try:
        yield temporary
        os.replace(temporary, path)
        send(path)
    finally:
        temporary.unlink(missing_ok=True)

"""Files that replace what was there at once: a reader or a crash never sees half of one."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text` at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write, which then replaces `path` at once: a reader or a crash never sees half of it."""
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")  # the suffix stays, some writers insist on theirs
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

"""Writes a folder as a whole or not at all, and replaces nothing but an earlier export."""

from collections.abc import Collection, Iterator
import contextlib
from pathlib import Path
import shutil
import tempfile

from castream_jax.runtime.bucket_folder import is_copy, names_in, send_whole


@contextlib.contextmanager
def writing_folder(
    directory: Path, *, may_replace: Collection[str], marker: str | None = None, what: str = "export"
) -> Iterator[Path]:
    """A new folder to fill, which then takes the place of `directory` at once: a crash never leaves half of it.

    Args:
        directory: absolute path, or one of `open_folder`; its parents are made. In a bucket, files are replaced one by
            one, and `marker` is not there meanwhile.
        may_replace: names of files and folders that an earlier export has, which this one may take the place of.
        marker: the file that an earlier export has in any case.
        what: an export is called in sentences.

    Raises:
        FileExistsError: if `directory` is a file, or holds anything else; nothing is touched.
    """
    _check(directory, may_replace, marker, what)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    try:
        mode = directory.parent.stat().st_mode & 0o777
        yield temporary
        temporary.chmod(mode & 0o755)  # mkdtemp lets only the owner read
        _check(directory, may_replace, marker, what)  # it may have taken minutes
        if directory.exists():
            directory.rename(replaced)
        try:
            temporary.rename(directory)
        except OSError:
            if replaced.exists():
                replaced.rename(directory)
            raise
        send_whole(directory, marker)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _check(directory: Path, may_replace: Collection[str], marker: str | None, what: str) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise FileExistsError(f"{directory} is a file: choose a folder.")
    there = names_in(directory)
    foreign = [name for name in there if name not in may_replace]
    unmarked = there and marker is not None and marker not in there
    if foreign or (unmarked and not is_copy(directory)):  # in a bucket, it was killed
        named = ", ".join((foreign or there)[:3])
        raise FileExistsError(
            f"{directory} holds what this {what} would not write ({named}), and is left as it is: give a new folder, "
            f"or an earlier {what} of the same format."
        )

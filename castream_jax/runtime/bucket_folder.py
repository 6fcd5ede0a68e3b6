"""A folder in a bucket as a folder of this machine: what is read is fetched when it is first asked for, what is written
is sent at once.

Libraries that write files need a disk: Orbax, Parquet, TensorBoard. So each folder in a bucket has a scratch copy,
which one process fills and removes. The bucket is what counts: a process that is killed loses what it had not sent,
and the next one starts from the bucket. One object is replaced at once. Of a folder that means something only as a
whole, one file is the marker, which is sent last and removed first: without it, the rest counts as not there.

All functions take paths of any folder, and leave those on a disk alone.
"""

import atexit
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import os
from pathlib import Path, PosixPath, PurePosixPath
import shutil
import tempfile
from typing import Any, TypeVar

from etils import epath

from castream_jax.runtime.bucket import file_system, in_one_sentence, is_bucket
from castream_jax.runtime.local_path import local_path

_AT_ONCE = 8  # objects on their way
_READ_WHOLE = 2**26  # bytes of a file that may grow while it is sent, and is read before

Place = Path | epath.Path  # what callers are given: a path, or an address in a bucket

T = TypeVar("T")


class BucketPath(PosixPath):
    """A path of a scratch copy. In a sentence it is its address in the bucket, for libraries a path like any other."""

    def __format__(self, spec: str) -> str:
        return format(address_of(self) or str(self), spec)


@dataclasses.dataclass
class _Copy:
    """A folder in a bucket and its scratch copy. Names are those of files, from the folder."""

    address: str
    folder: str
    files: Any  # an fsspec file system
    same: dict[str, str] = dataclasses.field(default_factory=dict)  # which version of a file both have
    newer: dict[str, str] = dataclasses.field(default_factory=dict)  # which version of a file only the bucket has
    sent: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)  # bytes and time of a file when sent


_copies: dict[str, _Copy] = {}  # by address


def open_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of a path, which need not exist; of an address in a bucket, its scratch copy as the bucket is now.

    Raises:
        OSError, ValueError: see `in_one_sentence` and `file_system`.
    """
    if not is_bucket(path):
        folder = local_path(path)
        return BucketPath(folder) if _place(folder) else folder
    address = os.fspath(path).rstrip("/")
    copy = _copies.get(address)
    if copy is None:
        copy = _Copy(address, "", file_system(address))
    _look(copy)
    if not copy.folder:
        root = Path(tempfile.mkdtemp(prefix="castream-")).resolve()
        atexit.register(_remove_scratch, root, os.getpid())
        copy.folder = str(root / address.rpartition("/")[2])
        _copies[address] = copy
    Path(copy.folder).mkdir(exist_ok=True)
    return BucketPath(copy.folder)


def is_copy(path: str | os.PathLike[str]) -> bool:
    """Whether a path is one of a scratch copy."""
    return _place(path) is not None


def address_of(path: str | os.PathLike[str]) -> str:
    """The address in a bucket that a path of a scratch copy stands for; of any other path, none."""
    place = _place(path)
    return "" if place is None else _address(*place)


def as_given(path: Path) -> Place:
    """What callers are given of a path: the path itself or, of a scratch copy, its address in the bucket."""
    return epath.Path(address_of(path)) if is_copy(path) else path


def look_again() -> None:
    """Takes note of what other processes have put into the buckets of open folders, or removed."""
    for copy in _copies.values():
        _look(copy)


def names_in(folder: Path) -> list[str]:
    """Names of the files and folders in a folder, whether fetched or not; sorted."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if (place := _place(folder)) is not None:
        copy, name = place
        below = [one.removeprefix(f"{name}/" if name else "") for one in _under(copy.newer, name)]
        names |= {one.partition("/")[0] for one in below}
    return sorted(names)


def fetch(path: Path, marker: str = "") -> Path:
    """`path`, when what the bucket has of it is here.

    Args:
        path: of a file or a folder.
        marker: of the folders in this one, those are fetched that have a file of this name.
    """
    if (place := _place(path)) is not None and (newer := _under(place[0].newer, place[1])):
        copy, name = place
        if marker:
            whole = {child for child in _children(newer, name) if f"{child}/{marker}" in copy.newer | copy.same}
            newer = [one for one in newer if _child(one, name) in whole]
        _in_threads(lambda one: _get(copy, one), newer)
    return path


def send(path: Path, to: Path | None = None, marker: str = "") -> None:
    """Puts a file, or those files of a folder that have changed, into the bucket.

    Args:
        path: what to send; hidden files in a folder stay here.
        to: the path that it is to have there, if not its own.
        marker: the file of the folder that is sent last.
    """
    place = _place(to or path)
    if place is None:
        return
    copy, name = place
    if path.is_file():
        _put(copy, path, name)
        return
    found = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = {"/".join(filter(None, (name, file.relative_to(path).as_posix()))): file for file in found}
    last = "/".join(filter(None, (name, marker)))
    _in_threads(lambda one: _put(copy, files[one], one), [one for one in files if not marker or one != last])
    if marker:
        _put(copy, files[last], last)


def send_whole(folder: Path, marker: str | None) -> None:
    """Makes a folder in a bucket what its scratch copy is; meanwhile it has no marker."""
    if (place := _place(folder)) is None:
        return
    copy, name = place
    if marker:
        remove_there(folder / marker)
    stays = {"/".join(filter(None, (name, file.relative_to(folder).as_posix()))) for file in folder.rglob("*")}
    for one in [one for one in _under(copy.newer | copy.same, name) if one not in stays]:
        remove_there(Path(copy.folder, one))
    copy.sent.clear()
    send(folder, marker=marker or "")


def remove(path: Path, marker: str = "") -> None:
    """Removes a file or a folder, if it is there; of a folder in a bucket, the file `marker` first."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    remove_there(path, marker)


def remove_there(path: Path, marker: str = "") -> None:
    """Removes a file or a folder from the bucket, and leaves the scratch copy."""
    if (place := _place(path)) is None:
        return
    copy, name = place
    address = _address(copy, name)
    with in_one_sentence(address):
        found = copy.files.find(address)
        first = [one for one in found if marker and one == copy.files._strip_protocol(f"{address}/{marker}")]
        for some in (first, [one for one in found if one not in first]):
            if some:
                copy.files.rm(some)
    for versions in (copy.same, copy.newer, copy.sent):
        for one in _under(versions, name):
            versions.pop(one, None)


def remove_unfinished(folder: Path, marker: str) -> None:
    """Of the folders in this one, removes those from the bucket that have no file `marker`."""
    if (place := _place(folder)) is None:
        return
    copy, name = place
    versions = copy.newer | copy.same
    for child in _children(_under(versions, name), name):
        if f"{child}/{marker}" not in versions and any(_under(versions, f"{child}/")):
            remove(Path(copy.folder, child))


def move(path: Path, target: Path) -> None:
    """Gives a file or a folder another place in the same folder; in a bucket it is there twice for a moment."""
    path.rename(target)
    if is_copy(target):
        send(target)
        remove_there(path)


def _look(copy: _Copy) -> None:
    before = set(copy.same)  # what a thread sends meanwhile may be missing in the listing
    with in_one_sentence(copy.address):
        found = copy.files.find(copy.address, detail=True)
    root = f"{copy.files._strip_protocol(copy.address)}/"
    there = {
        name.removeprefix(root): _version(entry)
        for name, entry in found.items()
        if name.startswith(root) and not name.endswith("/") and ".." not in PurePosixPath(name).parts
    }
    for gone in before - there.keys():
        Path(copy.folder, gone).unlink(missing_ok=True)
        copy.same.pop(gone, None)
    copy.newer = {name: version for name, version in there.items() if copy.same.get(name) != version}


def _get(copy: _Copy, name: str) -> None:
    target = Path(copy.folder, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f".{os.getpid()}.tmp.{target.name}")
    version = copy.newer[name]
    address = _address(copy, name)
    try:
        with in_one_sentence(address):
            try:
                copy.files.get_file(address, str(half))
            except FileNotFoundError:  # just removed by another process
                return
        os.replace(half, target)
        copy.same[name], copy.sent[name] = version, _stamp(target)
    finally:
        half.unlink(missing_ok=True)
        copy.newer.pop(name, None)


def _put(copy: _Copy, path: Path, name: str) -> None:
    stamp = _stamp(path)
    if copy.sent.get(name) == stamp:
        return
    address = _address(copy, name)
    with in_one_sentence(address):
        if stamp[0] <= _READ_WHOLE:
            copy.files.pipe_file(address, path.read_bytes())
        else:
            copy.files.put_file(str(path), address)
        version = _version(copy.files.info(address))
    copy.same[name], copy.sent[name] = version, stamp
    copy.newer.pop(name, None)


def _place(path: str | os.PathLike[str]) -> tuple[_Copy, str] | None:
    """The copy that a path belongs to, and its name there."""
    if not _copies:
        return None
    text = os.fspath(path)
    for copy in _copies.values():
        if text == copy.folder or text.startswith(f"{copy.folder}/"):
            return copy, text[len(copy.folder) + 1 :]
    return None


def _address(copy: _Copy, name: str) -> str:
    return f"{copy.address}/{name}" if name else copy.address


def _under(versions: Mapping[str, Any], name: str) -> list[str]:
    """The names of a file, or of all files in a folder."""
    return [one for one in versions if not name or one == name or one.startswith(f"{name.rstrip('/')}/")]


def _children(names: Iterable[str], folder: str) -> set[str]:
    return {_child(name, folder) for name in names}


def _child(name: str, folder: str) -> str:
    """The file or folder in `folder` that a file belongs to."""
    below = name.removeprefix(f"{folder}/").partition("/")[0]
    return f"{folder}/{below}" if folder else below


def _version(entry: Mapping[str, Any]) -> str:
    """What changes when an object is replaced."""
    tag = entry.get("ETag") or entry.get("etag")
    return str(tag or f"{entry.get('size')} {entry.get('LastModified') or entry.get('mtime')}")


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _in_threads(function: Callable[[str], T], names: list[str]) -> list[T]:
    if len(names) < 2:
        return [function(name) for name in names]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(function, names))


def _remove_scratch(root: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork of it
        shutil.rmtree(root, ignore_errors=True)

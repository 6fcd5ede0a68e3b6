"""Which image files lie in a folder, and which of them a command's arguments name: files, folders, patterns, a list."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import cache
import glob
import os
from pathlib import Path
from typing import NamedTuple
import unicodedata

from castream_jax.data.decode import IMAGE_SUFFIXES

FOLDER, IMAGE = "folder", "image"
# Why anything else is passed over.
NO_IMAGE, BROKEN = "no image by its suffix", "a link that leads nowhere"
NO_FILE = "no regular file"  # a pipe, a socket, a device: reading might never end
LOOP, CLOSED = "a link back into a folder above it", "a folder that may not be opened"

Skipped = dict[str, list[str]]  # reason -> paths

_FolderId = tuple[int, int]


class FoundImages(NamedTuple):
    """What a folder holds: images, in no particular order, and what was passed over, but for hidden files."""

    files: list[str]
    skipped: Skipped


def find_images(root: str | os.PathLike[str], inside: str = "") -> FoundImages:
    """All images in a folder and below it, links followed.

    Args:
        root: where paths in the result start from, with forward slashes.
        inside: the sub-folder of it that is searched through.

    Raises:
        OSError: the folder cannot be listed.
    """
    found = FoundImages([], {})
    pending = [(inside, folders_above(Path(root, inside)))]
    while pending:
        folder, above = pending.pop()
        above = above | {_identity(Path(root, folder))}
        prefix = f"{folder}/" if folder else ""
        try:
            entries = list(list_folder(Path(root, folder), above))
        except PermissionError:
            if folder == inside:
                raise
            found.skipped.setdefault(CLOSED, []).append(folder)
            continue
        for name, kind in entries:
            if kind == FOLDER:
                pending.append((prefix + name, above))
            elif kind == IMAGE:
                found.files.append(prefix + name)
            else:
                found.skipped.setdefault(kind, []).append(prefix + name)
    return found


def list_folder(folder: Path, above: Set[_FolderId]) -> Iterator[tuple[str, str]]:
    """Each name in a folder that is not hidden, and what it is: `FOLDER`, `IMAGE`, or why it is passed over.

    Args:
        folder: the folder.
        above: this folder and those that it lies in: a link to one of them would lead round in a circle.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not os.path.exists(entry.path):
                yield entry.name, BROKEN
            elif entry.is_dir():
                yield entry.name, LOOP if _identity(entry.path) in above else FOLDER
            elif not entry.name.lower().endswith(IMAGE_SUFFIXES):
                yield entry.name, NO_IMAGE
            else:
                yield entry.name, IMAGE if entry.is_file() else NO_FILE


def folders_above(folder: Path) -> frozenset[_FolderId]:
    """Identities of the folders that a folder lies in, by its path as it is given and without links."""
    absolute = folder.absolute()
    return frozenset(_identity(parent) for path in (absolute, absolute.resolve()) for parent in path.parents)


def _identity(folder: str | os.PathLike[str]) -> _FolderId:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def describe_skipped(skipped: Skipped) -> str:
    """One line: what was passed over, and the first three of each kind; "" if nothing was."""
    parts = [
        f"{len(paths)} × {reason}: {', '.join(map(readable_name, sorted(paths)[:3]))}{', …' if len(paths) > 3 else ''}"
        for reason, paths in skipped.items()
    ]
    return "passed over: " + "; ".join(parts) if parts else ""


def readable_name(path: str | os.PathLike[str]) -> str:
    r"""A path as text that may stand in any file, page or terminal: what is neither text nor in one line is escaped.

    A file name may hold everything: a line break becomes `\n`, a byte that is not UTF-8 `\xff`.
    """
    return "".join(_escaped(character) for character in os.fspath(path))


def _escaped(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python keeps the bytes of a name that it cannot decode
        return f"\\x{ord(character) - 0xDC00:02x}"
    special = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return character.encode("unicode_escape").decode() if special else character


def list_images(arguments: Sequence[str], lines: Iterable[str] | None, skipped: Skipped | None = None) -> list[str]:
    """The files that command-line arguments name, each once.

    Args:
        arguments: files, folders, patterns, or "-" for the paths in `lines`.
        lines: standard input, one path on each line, or, as from `find -print0`, with a zero byte behind each.
        skipped: gets what folders hold beside images.

    Raises:
        ValueError: if a folder holds no image, a pattern fits nothing, or the list is empty.
        OSError: a folder cannot be listed.
    """
    files: list[str] = []
    skipped = {} if skipped is None else skipped
    for argument in arguments:
        if argument == "-":
            found = _listed(lines or ())
            missing = "The list of images on stdin is empty: give one path per line."
        elif os.path.isdir(argument):
            inside = find_images(argument)
            found = sorted(os.path.join(argument, *path.split("/")) for path in inside.files)
            for reason, paths in inside.skipped.items():
                skipped.setdefault(reason, []).extend(os.path.join(argument, path) for path in paths)
            passed_over = describe_skipped(inside.skipped)
            missing = f"The folder {readable_name(argument)} holds no images{passed_over and f' ({passed_over})'}."
        elif os.path.exists(argument) or not glob.has_magic(argument):
            found, missing = [argument], ""  # one that is absent is told of when it is its turn, like a broken one
        else:
            identity = cache(_identity)
            fitting = glob.iglob(argument, recursive=True)
            found = sorted(path for path in fitting if os.path.isfile(path) and not _in_loop(path, identity))
            missing = f"No file fits the pattern {readable_name(argument)}."
        if not found:
            raise ValueError(missing)
        files += found
    return list(dict.fromkeys(files))


def _listed(lines: Iterable[str]) -> list[str]:
    text = "".join(lines)
    paths: Iterator[str] = iter(text.split("\0") if "\0" in text else (line.rstrip("\r") for line in text.split("\n")))
    return [path for path in paths if path.strip()]


def _in_loop(path: str, identity: Callable[[Path], _FolderId]) -> bool:
    """Whether a path leads through a link back into a folder above it."""
    folders = [identity(parent) for parent in Path(path).absolute().parents]
    return len(folders) > len(set(folders))

"""Which image files a command's arguments name: files, folders, patterns, a list."""

from collections.abc import Iterable, Iterator, Sequence
import glob
import os

from castream_jax.data.image_folder import IMAGE_SUFFIXES


def list_images(arguments: Sequence[str], lines: Iterable[str] | None) -> list[str]:
    """The files that command-line arguments name, each once.

    Args:
        arguments: files, folders, patterns, or "-" for the paths in `lines`, one on each.
        lines: standard input.

    Raises:
        ValueError: if a folder holds no image, a pattern fits nothing, or the list is empty.
    """
    files: list[str] = []
    for argument in arguments:
        if argument == "-":
            found = [line.rstrip("\r\n") for line in lines or () if line.strip()]
            missing = "The list of images on stdin is empty: give one path per line."
        elif os.path.isdir(argument):
            found = sorted(_images_in(argument))
            missing = f"The folder {argument} holds no images."
        elif os.path.exists(argument) or not glob.has_magic(argument):
            found, missing = [argument], ""  # one that is absent is told of when it is its turn, like a broken one
        else:
            found = sorted(path for path in glob.glob(argument, recursive=True) if os.path.isfile(path))
            missing = f"No file fits the pattern {argument}."
        if not found:
            raise ValueError(missing)
        files += found
    return list(dict.fromkeys(files))


def _images_in(folder: str) -> Iterator[str]:
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                yield os.path.join(inside, name)

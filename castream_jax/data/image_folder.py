"""Any dataset that is one folder of images per class."""

from collections.abc import Sequence
import os
from pathlib import Path

from jaxtyping import Int32
import numpy as np

from castream_jax.data.image_files import ImageFiles
from castream_jax.data.image_paths import (
    FOLDER,
    IMAGE,
    Skipped,
    find_images,
    folders_above,
    list_folder,
    readable_name,
)

_STRAY = "an image outside the class folders"


class ImageFolder(ImageFiles):
    """Images in one folder per class: `root/split/<class>/**/<image>`.

    Classes are numbered in alphabetical order of their folders; records run through the classes in that order
    and alphabetically within each. Links are followed; hidden files and what is no image are passed over.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = ""):
        """Lists the files; opens none.

        Args:
            root: folder of the dataset.
            split: sub-folder to read, such as "train"; "" if the classes lie directly under `root`.

        Raises:
            FileNotFoundError: the folder is missing, or holds no class folder.
            ValueError: some class folders hold no image; names all of them.
        """
        folder = Path(root) / split
        names = class_folders(folder)
        files, numbers, skipped = list_classes(Path(root), folder, names)
        super().__init__(root, files, numbers, names, skipped=skipped)


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in `folder`, in alphabetical order.

    Raises:
        FileNotFoundError: the folder is missing, or holds no class folder.
    """
    layout = "it must hold one sub-folder of images per class"
    if not folder.is_dir():
        beside = _kinds(folder.parent) if folder.parent.is_dir() else {}
        there = sorted(name for name, kind in beside.items() if kind == FOLDER)
        others = f"; in '{folder.parent}' there are {', '.join(there[:5])}" if there else ""
        raise FileNotFoundError(f"image folder '{folder}' does not exist; {layout}{others}")
    kinds = _kinds(folder)
    names = sorted(name for name, kind in kinds.items() if kind == FOLDER)
    if not names:
        images = sorted(name for name, kind in kinds.items() if kind == IMAGE)
        example = folder / "CLASS" / (images[0] if images else "IMAGE.jpg")
        move = f"; move the images in it, {len(images)} in number, into those" if images else ""
        raise FileNotFoundError(f"image folder '{folder}' has no sub-folders; {layout}, such as '{example}'{move}")
    return names


def _kinds(folder: Path) -> dict[str, str]:
    return dict(list_folder(folder, folders_above(folder / "any")))


def list_classes(
    root: Path, folder: Path, names: Sequence[str]
) -> tuple[list[str], Int32[np.ndarray, " images"], Skipped]:
    """Images of the class folders `names` in `folder`.

    Returns:
        Paths relative to `root`, the position of their class, and what else lies there.

    Raises:
        ValueError: some of the folders hold no image; names all of them.
    """
    inside = folder.relative_to(root).as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    skipped: Skipped = {}
    for name, kind in _kinds(folder).items():
        if kind != FOLDER:
            skipped.setdefault(_STRAY if kind == IMAGE else kind, []).append(prefix + name)
    files_of_class = []
    for name in names:
        found = find_images(root, prefix + name)
        files_of_class.append(sorted(found.files))
        for reason, paths in found.skipped.items():
            skipped.setdefault(reason, []).extend(paths)
    empty = [readable_name(name) for name, files in zip(names, files_of_class, strict=True) if not files]
    if empty:
        raise ValueError(
            f"class folders without images in '{folder}': {', '.join(empty)}; add images or remove the folders"
        )
    files = [file for files in files_of_class for file in files]
    numbers = np.repeat(np.arange(len(names), dtype=np.int32), [len(files) for files in files_of_class])
    return files, numbers, skipped

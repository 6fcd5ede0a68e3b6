"""Any dataset that is one folder of images per class."""

from collections.abc import Sequence
import os
from pathlib import Path

from jaxtyping import Int32
import numpy as np

from castream_jax.data.image_files import ImageFiles

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")


class ImageFolder(ImageFiles):
    """Images in one folder per class: `root/split/<class>/**/<image>`.

    Classes are numbered in alphabetical order of their folders; records run through the classes in that order
    and alphabetically within each. Hidden files and files that are no images are passed over.
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
        files, numbers = list_classes(Path(root), folder, names)
        super().__init__(root, files, numbers, names)


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in `folder`, in alphabetical order.

    Raises:
        FileNotFoundError: the folder is missing, or holds no class folder.
    """
    layout = "it must hold one sub-folder of images per class"
    if not folder.is_dir():
        raise FileNotFoundError(f"image folder '{folder}' does not exist; {layout}")
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise FileNotFoundError(f"image folder '{folder}' has no sub-folders; {layout}")
    return names


def list_classes(root: Path, folder: Path, names: Sequence[str]) -> tuple[list[str], Int32[np.ndarray, " images"]]:
    """Images of the class folders `names` in `folder`: paths relative to `root`, and the position of their class.

    Raises:
        ValueError: some of the folders hold no image; names all of them.
    """
    inside = folder.relative_to(root).as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    files_of_class = [sorted(_image_files(root, prefix + name)) for name in names]
    empty = [name for name, files in zip(names, files_of_class, strict=True) if not files]
    if empty:
        raise ValueError(
            f"class folders without images in '{folder}': {', '.join(empty)}; add images or remove the folders"
        )
    files = [file for files in files_of_class for file in files]
    return files, np.repeat(np.arange(len(names), dtype=np.int32), [len(files) for files in files_of_class])


def _image_files(root: Path, folder: str) -> list[str]:
    """Paths, relative to `root`, of all images below its sub-folder `folder`, in no particular order."""
    files: list[str] = []
    pending = [folder]
    while pending:
        inside = pending.pop()
        with os.scandir(root / inside) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(IMAGE_SUFFIXES):
                    files.append(f"{inside}/{entry.name}")
                elif entry.is_dir():
                    pending.append(f"{inside}/{entry.name}")
    return files

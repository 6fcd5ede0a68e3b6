"""MIT-67 Indoor Scenes: photographs of 67 kinds of rooms (Quattoni and Torralba, CVPR 2009)."""

import os
from pathlib import Path

import numpy as np

from castream_jax.data.image_files import ImageFiles, check_present, read_lines
from castream_jax.data.image_folder import class_folders

_LISTS = {"train": "TrainImages.txt", "test": "TestImages.txt"}


class Indoor67(ImageFiles):
    """MIT-67 as its archive unpacks: `Images/<scene>/*.jpg`, with `TrainImages.txt` and `TestImages.txt` beside it.

    Each line of a list is `<scene>/<file>`; images in neither list belong to no split. Classes are numbered in
    alphabetical order of the folders.
    """

    def __init__(self, root: str | os.PathLike[str], split: str):
        """Reads a list; opens no image.

        Args:
            root: folder that holds `Images/` and the two lists.
            split: "train" (80 images of each class) or "test" (20).

        Raises:
            FileNotFoundError: a list is missing, or images it names are.
            ValueError: the split is unknown, or the list is empty.
        """
        if split not in _LISTS:
            raise ValueError(f"unknown split '{split}' of MIT-67; choose one of {', '.join(_LISTS)}")
        root = Path(root)
        lines = read_lines(root / _LISTS[split], f"the {split} images")
        listed = [line.strip().replace("\\", "/") for line in lines]
        names = class_folders(root / "Images")
        check_present(root / "Images", listed, _LISTS[split])
        label_of = {name: label for label, name in enumerate(names)}
        labels = np.array([label_of[file.split("/")[0]] for file in listed], np.int32)
        super().__init__(root, [f"Images/{file}" for file in listed], labels, names)

"""CUB-200-2011: 11,788 photographs of 200 species of birds, one box each."""

import os
from pathlib import Path

import numpy as np

from castream_jax.data.image_files import ImageFiles, check_present, read_table

_SPLITS = {"train": "1", "test": "0"}


class Cub(ImageFiles):
    """Caltech-UCSD Birds 200-2011, as its archive unpacks.

    `images.txt`, `image_class_labels.txt`, `classes.txt`, `train_test_split.txt` and `bounding_boxes.txt` (x, y, width,
    height in pixels) lie beside `images/`; each row begins with the number of its image or class.
    """

    def __init__(self, root: str | os.PathLike[str], split: str):
        """Reads the lists; opens no image.

        Args:
            root: the folder `CUB_200_2011`, or the one it lies in.
            split: "train" (5,994 images) or "test" (5,794).

        Raises:
            FileNotFoundError: a list is missing, or images it names are.
            ValueError: the split is unknown, or a list is damaged.
        """
        if split not in _SPLITS:
            raise ValueError(f"unknown split '{split}' of CUB-200-2011; choose one of {', '.join(_SPLITS)}")
        root = Path(root)
        root = root / "CUB_200_2011" if (root / "CUB_200_2011").is_dir() else root
        files = dict(read_table(root / "images.txt", "the images", 2))
        sides = dict(read_table(root / "train_test_split.txt", "the images of each split", 2))
        class_of = dict(read_table(root / "image_class_labels.txt", "the class of each image", 2))
        boxes = {row[0]: row[1:] for row in read_table(root / "bounding_boxes.txt", "the box of each image", 5)}
        names = dict(read_table(root / "classes.txt", "the names of the classes", 2))

        label_of = {number: label for label, number in enumerate(names)}
        chosen = [image for image in files if sides.get(image) == _SPLITS[split]]
        if not chosen:
            raise ValueError(f"'{root / 'train_test_split.txt'}' names no {split} image; unpack the dataset again")
        try:
            labels = np.array([label_of[class_of[image]] for image in chosen], np.int32)
            left_top_size = np.array([boxes[image] for image in chosen], np.float32)
        except KeyError as error:
            raise ValueError(
                f"the lists in '{root}' do not fit together: one has no row {error}; unpack the dataset again"
            ) from error
        check_present(root / "images", [files[image] for image in chosen], "images.txt")
        corners = np.concatenate([left_top_size[:, :2], left_top_size[:, :2] + left_top_size[:, 2:]], axis=1)
        super().__init__(root, [f"images/{files[image]}" for image in chosen], labels, tuple(names.values()), corners)

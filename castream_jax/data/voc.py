"""Pascal VOC 2012: several of 20 classes in one image, every object with a box."""

from collections import Counter
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from castream_jax.data.image_files import ImageFiles, check_present, read_lines, stack_boxes
from castream_jax.data.pascal_xml import AnnotatedObject, read_objects

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Voc(ImageFiles):
    """Pascal VOC 2012 (or 2007) as unpacked: `Annotations/*.xml`, `ImageSets/Main/<split>.txt`, `JPEGImages/`.

    Records are images, for training, or pairs of an image and a class that it shows, for evaluating one explanation
    each. Both have `target`, 1 for every class shown. Of a pair, `label` is its class and `box` the objects of that
    class; of an image, `label` is the first class it shows, -1 if none, and `box` all objects.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        rows: Literal["images", "pairs"] = "images",
        difficult: Literal["ignore", "count"] = "ignore",
    ):
        """Reads the annotations; opens no image.

        Args:
            root: the folder `VOC2012`, or one that holds it or `VOCdevkit/VOC2012`.
            split: "train", "val" or "trainval" (the annotations of "test" are not public).
            rows: what a record is.
            difficult: whether objects marked difficult count as shown. If they are ignored, as in the challenge, they
                have no box, and a class of which all objects are difficult is neither shown nor absent: its
                `target_mask` is False.

        Raises:
            FileNotFoundError: the split's list, annotations or images are missing.
            ValueError: an option is unknown, an annotation is damaged, or no image shows anything.
        """
        if rows not in ("images", "pairs"):
            raise ValueError(f"unknown rows '{rows}' of Pascal VOC; choose 'images' or 'pairs'")
        if difficult not in ("ignore", "count"):
            raise ValueError(f"difficult is '{difficult}'; choose 'ignore' or 'count'")
        root = _find_root(Path(root))
        lists = root / "ImageSets" / "Main"
        if not (lists / f"{split}.txt").is_file():
            known = [name for name in ("train", "trainval", "val") if (lists / f"{name}.txt").is_file()]
            raise FileNotFoundError(
                f"Pascal VOC in '{root}' has no split '{split}'; it has {', '.join(known) or 'none'}"
            )
        stems = [line.split()[0] for line in read_lines(lists / f"{split}.txt", "the images of the split")]
        if twice := [stem for stem, count in Counter(stems).items() if count > 1]:
            raise ValueError(
                f"'{lists / split}.txt' lists {len(twice)} of its images more than once, such as {twice[0]}: leave one "
                "line for each"
            )
        images = [f"JPEGImages/{stem}.jpg" for stem in stems]
        check_present(root, images, f"ImageSets/Main/{split}.txt")
        check_present(root, [f"Annotations/{stem}.xml" for stem in stems], f"ImageSets/Main/{split}.txt")
        objects = [_read(root / "Annotations" / f"{stem}.xml") for stem in stems]

        counted = [[item for item in of_image if difficult == "count" or not item.difficult] for of_image in objects]
        shown, present = _multi_hot(counted), _multi_hot(objects)
        self._targets, self._masks = shown.astype(np.float32), shown == present
        labels = np.where(shown.any(1), shown.argmax(1), -1).astype(np.int32)
        self._image_of = np.arange(len(images))
        if rows == "pairs":
            self._image_of, labels = (column.astype(np.int32) for column in np.nonzero(shown))
            if not len(labels):
                raise ValueError(f"no image of the split '{split}' in '{root}' shows an object that counts")
        boxes = [
            [_box(item) for item in counted[image] if rows == "images" or item.name == CLASS_NAMES[label]]
            for image, label in zip(self._image_of, labels, strict=True)
        ]
        super().__init__(root, [images[image] for image in self._image_of], labels, CLASS_NAMES, stack_boxes(boxes))
        self._rows = rows

    def open(self, index: int) -> dict[str, Any]:
        image = self._image_of[index]
        return super().open(index) | {"target": self._targets[image], "target_mask": self._masks[image]}

    def name(self, index: int) -> str:
        """Path of the image; of a pair, followed by its class: `JPEGImages/2007_000027.jpg:person`."""
        name = super().name(index)
        return f"{name}:{CLASS_NAMES[self.labels[index]]}" if self._rows == "pairs" else name


def _find_root(root: Path) -> Path:
    for place in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (place / "ImageSets" / "Main").is_dir():
            return place
    raise FileNotFoundError(f"no Pascal VOC in '{root}'; give the folder that holds ImageSets/Main, such as VOC2012")


def _read(path: Path) -> list[AnnotatedObject]:
    objects = read_objects(path)
    unknown = {item.name for item in objects} - set(CLASS_NAMES)
    if unknown:
        raise ValueError(
            f"'{path}' shows a '{min(unknown)}', which is none of the 20 classes of Pascal VOC: correct "
            "its name, or give the images as folders per class"
        )
    return objects


def _box(item: AnnotatedObject) -> tuple[float, float, float, float]:
    """Coordinates of Pascal VOC count from 1, and the last pixel belongs to the object."""
    x0, y0, x1, y1 = item.box
    return x0 - 1, y0 - 1, x1, y1


def _multi_hot(objects: list[list[AnnotatedObject]]) -> np.ndarray:
    target = np.zeros((len(objects), len(CLASS_NAMES)), bool)
    for row, of_image in zip(target, objects, strict=True):
        row[[CLASS_NAMES.index(item.name) for item in of_image]] = True
    return target

"""ImageNet-1k (ILSVRC 2012): folder trees, the flat validation folder, and Kaggle's arrangement of both.

Labels are positions in the alphabetical order of the WordNet ids, which is what published weights predict. The
`ILSVRC2012_ID` of the development kit is another numbering: it is translated by way of the WordNet id.
"""

import csv
from functools import cache
from importlib import resources
import os
from pathlib import Path
import re

import numpy as np

from castream_jax.data.decode import IMAGE_SUFFIXES
from castream_jax.data.image_files import ImageFiles, read_lines, stack_boxes
from castream_jax.data.image_folder import class_folders, list_classes
from castream_jax.data.pascal_xml import Box, read_objects

_VALIDATION_FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_KAGGLE_LABELS = "LOC_val_solution.csv"


@cache
def imagenet_classes() -> dict[str, str]:
    """WordNet id to English name of the 1,000 classes, in the order of the labels."""
    text = resources.files("castream_jax.data").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return dict(line.split(" ", 1) for line in text.splitlines())


class ImageNet(ImageFiles):
    """ILSVRC 2012, with 1,000 classes however many of them are there.

    The images of a split lie in `root/<split>` or, as Kaggle packs them, in `root/[ILSVRC/]Data/CLS-LOC/<split>`:

    - a tree, `<wnid>/*.JPEG`, for training, or for validation once its images have been sorted into one;
    - the flat validation folder, `ILSVRC2012_val_00000001.JPEG` …, beside the development kit, of which
      `ILSVRC2012_devkit_t12/data/` (or `root` itself) holds `ILSVRC2012_validation_ground_truth.txt` and `meta.mat`,
      or beside Kaggle's `LOC_val_solution.csv`.

    Validation images have boxes of their class if `root/bounding_boxes/<split>/` or Kaggle's
    `[ILSVRC/]Annotations/CLS-LOC/<split>/` holds their XML files, or if `LOC_val_solution.csv` is there.
    """

    def __init__(self, root: str | os.PathLike[str], split: str):
        """Lists the files; opens none of the images.

        Args:
            root: folder of the dataset.
            split: "train", "val", or what the folder of images is called.

        Raises:
            FileNotFoundError: there is no such folder, or a flat one lacks the files with its labels.
            ValueError: sub-folders are no ImageNet classes, or images have no label.
        """
        root = Path(root)
        wnids = {wnid: label for label, wnid in enumerate(imagenet_classes())}
        folder = imagenet_folder(root, split)
        if folder is None:
            raise FileNotFoundError(
                f"no ImageNet images in '{root / split}' or '{root / 'Data/CLS-LOC' / split}'; "
                f"give the folder that holds the split '{split}'"
            )
        flat = sorted(entry for entry in os.listdir(folder) if entry.lower().endswith(IMAGE_SUFFIXES))
        skipped = {}
        if flat:
            prefix = folder.relative_to(root).as_posix()
            files, labels = [f"{prefix}/{file}" for file in flat], _validation_labels(root, folder, flat, wnids)
        else:
            names = class_folders(folder)
            unknown = [name for name in names if name not in wnids]
            if unknown:
                raise ValueError(
                    f"{len(unknown)} of {len(names)} folders in '{folder}' are no ImageNet classes such as n01440764: "
                    f"{', '.join(unknown[:3])}; read another dataset with source 'image_folder'"
                )
            files, positions, skipped = list_classes(root, folder, names)
            labels = np.array([wnids[name] for name in names], np.int32)[positions]
        boxes = None if split == "train" else _boxes(root, split, files, labels)
        super().__init__(root, files, labels, tuple(imagenet_classes().values()), boxes, skipped)


def imagenet_folder(root: Path, split: str) -> Path | None:
    """Where the images of a split lie; None if there are none."""
    return _first(*(root / inside / split for inside in (".", "Data/CLS-LOC", "ILSVRC/Data/CLS-LOC")))


def _validation_labels(root: Path, folder: Path, files: list[str], wnids: dict[str, int]) -> np.ndarray:
    """Labels of the flat validation files."""
    named = [_VALIDATION_FILE.fullmatch(file) for file in files]
    strange = [file for file, match in zip(files, named, strict=True) if match is None]
    if strange:
        raise ValueError(
            f"{len(strange)} of {len(files)} images in '{folder}' are not called ILSVRC2012_val_00000001.JPEG or so, "
            f"such as {strange[0]}: their labels are unknown; sort the images into one folder per WordNet id"
        )
    devkit = _first(root / _GROUND_TRUTH, root / "data" / _GROUND_TRUTH,
                    root / "ILSVRC2012_devkit_t12" / "data" / _GROUND_TRUTH)  # fmt: skip
    if devkit is not None:
        of_image = _devkit_labels(devkit, wnids)
        numbers = [int(match[1]) for match in named if match]
        if max(numbers) > len(of_image):
            raise ValueError(f"'{devkit}' labels {len(of_image)} images, and there is an image {max(numbers)}")
        return of_image[np.array(numbers) - 1]
    kaggle = _kaggle_solution(root)
    if kaggle is None:
        raise FileNotFoundError(
            f"the validation images in '{folder}' lie flat, and '{root}' has neither {_KAGGLE_LABELS} nor "
            f"ILSVRC2012_devkit_t12/data/{_GROUND_TRUTH}; unpack the development kit there"
        )
    unlabelled = [file for file in files if Path(file).stem not in kaggle]
    if unlabelled:
        raise ValueError(f"{_KAGGLE_LABELS} has no label of {len(unlabelled)} images, such as {unlabelled[0]}")
    return np.array([wnids[kaggle[Path(file).stem][0]] for file in files], np.int32)


def _devkit_labels(ground_truth: Path, wnids: dict[str, int]) -> np.ndarray:
    """Label of each validation image, from its ILSVRC2012_ID and the table of those in `meta.mat`."""
    from scipy.io import loadmat  # slow to import, and only this layout needs it

    meta = ground_truth.parent / "meta.mat"
    if not meta.is_file():
        raise FileNotFoundError(f"'{meta}' is missing, which says what the numbers in {_GROUND_TRUTH} stand for")
    synsets = loadmat(meta, squeeze_me=True)["synsets"]  # the 1,000 classes and what is above them in WordNet
    classes = {
        int(synset["ILSVRC2012_ID"]): wnids[str(synset["WNID"])] for synset in synsets if str(synset["WNID"]) in wnids
    }
    numbers = [int(line) for line in read_lines(ground_truth, "the classes of the validation images")]
    unknown = set(numbers) - classes.keys()
    if unknown:
        raise ValueError(f"'{meta}' does not say what class {min(unknown)} is; unpack the development kit again")
    return np.array([classes[number] for number in numbers], np.int32)


@cache
def _kaggle_table(path: Path) -> dict[str, tuple[str, list[Box]]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = {row["ImageId"]: row["PredictionString"].split() for row in csv.DictReader(file)}
    # "<wnid> x0 y0 x1 y1" for each object of the image.
    return {
        image: (words[0], [tuple(map(float, words[i + 1 : i + 5])) for i in range(0, len(words), 5)])
        for image, words in rows.items()
    }  # pyright: ignore[reportReturnType]


def _kaggle_solution(root: Path) -> dict[str, tuple[str, list[Box]]] | None:
    path = _first(root / _KAGGLE_LABELS, root.parent / _KAGGLE_LABELS)
    return None if path is None else _kaggle_table(path)


def _boxes(root: Path, split: str, files: list[str], labels: np.ndarray) -> np.ndarray | None:
    """Boxes of each image's class, or None where there are no annotations."""
    wnids = list(imagenet_classes())
    folder = _first(root / "bounding_boxes" / split, root / "Annotations" / "CLS-LOC" / split,
                    root / "ILSVRC" / "Annotations" / "CLS-LOC" / split)  # fmt: skip
    if folder is not None:
        return stack_boxes([_read_boxes(folder, file, wnids[label]) for file, label in zip(files, labels, strict=True)])
    kaggle = _kaggle_solution(root)
    if kaggle is None:
        return None
    return stack_boxes([kaggle[stem][1] if (stem := Path(file).stem) in kaggle else [] for file in files])


def _read_boxes(folder: Path, file: str, wnid: str) -> list[Box]:
    path = _first(folder / f"{Path(file).stem}.xml", folder / wnid / f"{Path(file).stem}.xml")
    return [] if path is None else [item.box for item in read_objects(path) if item.name == wnid]


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists()), None)

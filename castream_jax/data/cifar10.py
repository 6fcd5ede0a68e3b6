"""CIFAR-10 in its binary version. (A folder tree of its images is read by `ImageFolder`.)"""

from functools import cache
import os
from pathlib import Path

from jaxtyping import UInt8
import numpy as np

from castream_jax.data.image_files import read_lines
from castream_jax.data.source import Record

_FILES = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
_ROW = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue plane, row by row
META_FILE = "batches.meta.txt"


class Cifar10:
    """CIFAR-10 as `cifar-10-binary.tar.gz` unpacks: five files to train, one to test, the names of classes."""

    def __init__(self, root: str | os.PathLike[str], split: str):
        """Checks the files and reads the labels; pixels are read when they are asked for.

        Args:
            root: the folder `cifar-10-batches-bin`, or the one it lies in.
            split: "train" (50,000 images) or "test" (10,000).

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: the split is unknown, or a file is damaged.
        """
        if split not in _FILES:
            raise ValueError(f"unknown split '{split}' of CIFAR-10; choose one of {', '.join(_FILES)}")
        folder = binary_folder(root) or Path(root)
        self._class_names = tuple(line.strip() for line in read_lines(folder / META_FILE, "the names of the classes"))
        self._split = split
        self._files = [folder / name for name in _FILES[split]]
        labels = [_rows(file)[:, 0] for file in self._files]
        self._starts = np.cumsum([0, *map(len, labels)])
        self._labels = np.concatenate(labels).astype(np.int32)
        if self._labels.max() >= len(self._class_names):
            raise ValueError(
                f"an image in '{folder}' is of class {self._labels.max()}, and {META_FILE} names "
                f"{len(self._class_names)}; unpack the dataset again"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def labels(self) -> np.ndarray:
        """Class of each image, int32."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} is not one of 0 to {len(self) - 1}")
        file = int(np.searchsorted(self._starts, index, side="right")) - 1
        planes = _rows(self._files[file])[index - self._starts[file], 1:].reshape(3, 32, 32)
        pixels = np.ascontiguousarray(planes.transpose(1, 2, 0))
        return {"pixels": pixels, "label": self._labels[index], "index": index}

    def name(self, index: int) -> str:
        return f"cifar10/{self._split}/{index:05d}"


def binary_folder(root: str | os.PathLike[str]) -> Path | None:
    """The folder with the binary version in or at `root`, None if there is none."""
    places = (Path(root), Path(root) / "cifar-10-batches-bin")
    return next((folder for folder in places if (folder / META_FILE).is_file()), None)


@cache  # not kept by the source, which worker processes get a copy of
def _rows(file: Path) -> UInt8[np.ndarray, "images 3073"]:
    if not file.is_file():
        raise FileNotFoundError(f"'{file}' is missing; unpack the binary version of CIFAR-10 again")
    size = file.stat().st_size
    if not size or size % _ROW:
        raise ValueError(
            f"'{file}' has {size} bytes, no multiple of {_ROW}; unpack the binary version of CIFAR-10 again"
        )
    return np.memmap(file, np.uint8, "r").reshape(-1, _ROW)

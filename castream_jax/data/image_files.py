"""Images in files: what all sources share that are a list of files with labels."""

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any

from jaxtyping import Float32, Int32
import numpy as np

from castream_jax.data.decode import Decoding, EncodedImage
from castream_jax.data.image_paths import Skipped, readable_name
from castream_jax.data.source import Record


class ImageFiles:
    """A source whose record `i` is the file `files[i]` below `root`, of class `labels[i]`.

    Attributes:
        decoding: how files become pixels.
        skipped: what was passed over beside the files, see `describe_skipped`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        files: Sequence[str],
        labels: Int32[np.ndarray, " images"],
        class_names: Sequence[str],
        boxes: Float32[np.ndarray, "images *n 4"] | None = None,
        skipped: Skipped | None = None,
    ):
        """Args:
        root: folder of the dataset.
        files: paths relative to `root`, with forward slashes.
        labels: class of each file.
        class_names: name of class `k` at position `k`.
        boxes: x0, y0, x1, y1 in pixels of each file: one, or several padded with zeros.
        skipped: what was passed over beside the files.
        """
        self.root = Path(root)
        self.files, self.labels, self.boxes = files, labels, boxes
        self.decoding, self.skipped = Decoding(), skipped or {}
        self._class_names = tuple(map(readable_name, class_names))

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    def __len__(self) -> int:
        return len(self.files)

    def open(self, index: int) -> dict[str, Any]:
        """The record with its image still encoded; nothing is read yet."""
        file = self.root / self.files[index]
        image = EncodedImage(file, readable_name(file), decoding=self.decoding)
        record: dict[str, Any] = {"pixels": image, "label": self.labels[index], "index": index}
        if self.boxes is not None:
            record["box"] = self.boxes[index]
        return record

    def __getitem__(self, index: int) -> Record:
        """Decodes one image.

        Raises:
            UnreadableImageError: the file cannot be decoded; names it.
        """
        record: Any = self.open(index)
        return record | {"pixels": record["pixels"].pixels()}

    def name(self, index: int) -> str:
        """Path of the file relative to the dataset, with forward slashes; see `readable_name`."""
        return readable_name(self.files[index])


def read_lines(file: Path, what: str) -> list[str]:
    """Lines of a dataset's list, without the empty ones.

    Raises:
        FileNotFoundError: there is no such file; says that it holds `what`.
        ValueError: it is empty.
    """
    if not file.is_file():
        raise FileNotFoundError(
            f"'{file}' is missing, which lists {what}; give the dataset's folder as it was unpacked"
        )
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"'{file}' is empty, which should list {what}; unpack the dataset again")
    return lines


def read_table(file: Path, what: str, columns: int) -> list[list[str]]:
    """Rows of a dataset's list with `columns` fields separated by blanks; the last one may itself hold blanks.

    Raises:
        FileNotFoundError, ValueError: the file is missing, empty, or a line has too few fields.
    """
    rows = [line.strip().split(maxsplit=columns - 1) for line in read_lines(file, what)]
    for number, row in enumerate(rows, 1):
        if len(row) != columns:
            raise ValueError(
                f"line {number} of '{file}' has {len(row)} fields, not {columns}; unpack the dataset again"
            )
    return rows


def check_present(root: Path, files: Sequence[str], listed_in: str) -> None:
    """Raises a FileNotFoundError that counts the listed files that are not below `root`, and names the first three."""
    missing = [file for file in files if not (root / file).is_file()]
    if missing:
        first = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} images listed in {listed_in} are missing in '{root}': {first}; "
            "unpack the dataset again"
        )


def stack_boxes(boxes: Sequence[Sequence[Sequence[float]]]) -> Float32[np.ndarray, "images n 4"]:
    """The boxes of each image as one array, padded with zeros to the largest number of them, at least one."""
    most = max([1, *map(len, boxes)])
    stacked = np.zeros((len(boxes), most, 4), np.float32)
    for row, of_image in zip(stacked, boxes, strict=True):
        row[: len(of_image)] = np.reshape(of_image, (-1, 4))
    return stacked

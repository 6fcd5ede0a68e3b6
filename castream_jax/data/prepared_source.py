"""Reads what `castream data prepare` has written."""

import os
from typing import Any, Literal, NamedTuple

from grain.sources import ArrayRecordDataSource
from jaxtyping import Int32
import numpy as np

from castream_jax.data.decode import Decoding, UnreadableImageError
from castream_jax.data.prepared_bucket import local_split
from castream_jax.data.prepared_files import PAIRS, check_sizes, from_text_column, read_columns, read_manifest, stem_of
from castream_jax.data.prepared_images import PreparedImage
from castream_jax.data.source import Record
from castream_jax.data.transforms import scale_box

_REMEDY = "run the command that prepared the data again: it makes damaged files anew"
_DECODING = Decoding(remedy=_REMEDY)


class _Shard(NamedTuple):
    """Where the records of a shard lie, as grain wants to be told: so it opens no file to count them."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


class PreparedSource:
    """A split of a folder of prepared data: names, labels, boxes and classes are those of the source it was made of.

    What `open` gives has the size of the original, and its boxes are in pixels of that; what `[]` gives is the image as
    it is stored, and boxes fit that.

    Attributes:
        split: its entry in the manifest.
    """

    def __init__(self, directory: str | os.PathLike[str], split: str, rows: Literal["images", "pairs"] = "images"):
        """Reads the columns; opens no shard.

        Args:
            directory: what `--out` named, or the address of a copy in a bucket.
            split: name of a split that was prepared.
            rows: of images with several labels, whether a record is an image or a pair of an image and a class that it
                shows, as in `Voc`. Of other images, a record is an image.

        Raises:
            FileNotFoundError: there are no prepared data, or they are not finished.
            ValueError: there is no such split, a file is damaged, or of another version.
        """
        folder = local_split(directory, split)
        splits = read_manifest(folder)["splits"]
        if split not in splits:
            raise ValueError(f"'{directory}' has no split '{split}'; it has {', '.join(map(repr, splits))}")
        self.split: dict[str, Any] = splits[split]
        check_sizes(folder, self.split["files"])
        self._columns = read_columns(folder / f"{stem_of(split)}.npz")
        self._rows, pairs = self._columns, f"{stem_of(split)}-{PAIRS}.npz"
        if rows == "pairs" and pairs in self.split["files"]:
            self._rows = read_columns(folder / pairs)
        self._names: list[str] = from_text_column(self._rows["names"])
        self._class_names = tuple(self.split["class_names"])
        shards = [
            _Shard(str(folder / shard["file"]), 0, shard["images"], shard["images"]) for shard in self.split["shards"]
        ]
        self._records = ArrayRecordDataSource(shards)  # pyright: ignore[reportArgumentType]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._class_names

    @property
    def labels(self) -> Int32[np.ndarray, " images"]:
        return self._rows["label"]

    def __len__(self) -> int:
        return len(self._names)

    def open(self, index: int) -> dict[str, Any]:
        """The record with its image still encoded, of the original's size.

        Raises:
            UnreadableImageError: the shard is damaged there; names the image.
        """
        row = int(self._rows["image"][index]) if "image" in self._rows else index
        name = self._names[index]
        try:
            content = self._records[row]
        except (RuntimeError, ValueError, IndexError) as error:
            unreadable = UnreadableImageError(f"cannot read image '{name}' (its shard is damaged); {_REMEDY}")
            unreadable.name, unreadable.reason = name, "its shard is damaged"
            raise unreadable from error
        size, stored = (tuple(self._columns[key][row].tolist()) for key in ("size", "stored"))
        image = PreparedImage(content, name, size, stored, _DECODING)
        record: dict[str, Any] = {"pixels": image, "label": self._rows["label"][index], "index": index}
        return record | {key: self._rows[key][index] for key in ("box", "target", "target_mask") if key in self._rows}

    def __getitem__(self, index: int) -> Record:
        """Decodes one image.

        Raises:
            UnreadableImageError: the image cannot be decoded; names it.
        """
        record: Any = self.open(index)
        (height, width), pixels = record["pixels"].size, record["pixels"].pixels()
        if "box" in record:
            record["box"] = scale_box(record["box"], pixels.shape[1] / width, pixels.shape[0] / height)
        return record | {"pixels": pixels}

    def name(self, index: int) -> str:
        """As the source named it."""
        return self._names[index]


def check_fits(split: dict[str, Any], name: str, path: str, resize: str, image_size: int) -> None:
    """Raises a ValueError if a split was prepared for other images than a config asks for.

    Args:
        split: its entry in the manifest.
        name: what messages call it.
        path: of the folder.
        resize, image_size: those of the config.
    """
    what = f"The split {name!r} of '{path}'"
    if split["lossless"]:
        if (split["resize"], split["image_size"]) != (resize, image_size) and split["resized"]:
            raise ValueError(
                f"{what} holds the exact pixels of resize={split['resize']!r} at image_size={split['image_size']}, and "
                f"config.data.resize is {resize!r}, image_size {image_size}: set these two, or prepare it again"
            )
        return
    if not split["resized"]:
        return
    if resize == "none":
        raise ValueError(
            f"{what} was resized to {split['side']} × {split['side']}, and config.data.resize='none' takes images as "
            "they are: set it to 'squash' or 'center_crop'"
        )
    wanted = image_size * 8 // 7 if resize == "center_crop" else image_size
    if split["side"] < wanted:
        raise ValueError(
            f"{what} was prepared with --side={split['side']}, and resize={resize!r} at image_size={image_size} needs "
            f"{wanted}: prepare it with --side={wanted} or more, or set a smaller config.data.image_size"
        )

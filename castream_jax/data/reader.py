"""From the position of a record to the finished record: open, decode, transform; and what to do with damaged images."""

# grain's abstract methods carry no types, so pyright infers that they return None:
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Sequence
from typing import Any, Literal

import grain
import numpy as np
from PIL import Image

from castream_jax.data.decode import EncodedImage, UnreadableImageError
from castream_jax.data.source import Source, open_record

Transform = grain.transforms.Map | grain.transforms.RandomMap
OnError = Literal["stop", "skip"]

# So many damaged images in a row are no accident: a disk is gone, or the path is wrong.
_MOST_IN_A_ROW = 100
# Stands for an unreadable image; the transforms bring it to the size of the others, if they bring images to one.
_BLACK = np.zeros((8, 8, 3), np.uint8)


class ReadRecord(grain.transforms.RandomMap):
    """Reads the record at a position and applies the transforms to it, in order.

    If an image is unreadable and `on_error` is "skip", its position is added to the record's "unreadable", and either
    the next readable record takes its place (`replace`), or it stays as a black image whose "unreadable" is not empty.
    """

    def __init__(self, source: Source, transforms: Sequence[Transform], on_error: OnError, replace: bool):
        """Raises a ValueError if `on_error` is unknown."""
        if on_error not in ("stop", "skip"):
            raise ValueError(f"on_error is '{on_error}'; choose 'stop' or 'skip'")
        self._source, self._transforms, self._on_error, self._replace = source, transforms, on_error, replace

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, Any]:
        """As `read`."""
        return self.read(element, rng)

    @property
    def is_random(self) -> bool:
        """Whether a transform draws anything."""
        return any(isinstance(transform, grain.transforms.RandomMap) for transform in self._transforms)

    def read_together(self, positions: Sequence[int]) -> tuple[list[dict[str, Any]], np.ndarray | None]:
        """The records at `positions`, if nothing is random, and their pixels as one array; None if they differ.

        Images are decoded where they lie in that array. That spares a copy of each, and memory that the system would
        have to give and take back each time.

        Raises:
            UnreadableImageError: as `read`.
        """
        rng = np.random.default_rng(0)  # which nobody asks
        first = self.read(positions[0], rng)
        like = first["pixels"]
        rows = np.empty((len(positions), *like.shape), like.dtype)
        places = rows if like.dtype == np.uint8 else [None] * len(rows)
        records = [first]
        for position, place in zip(positions[1:], places[1:], strict=True):
            records.append(self.read(position, rng, place))
        for number, record in enumerate(records):
            pixels = record["pixels"]
            if (pixels.shape, pixels.dtype) != (like.shape, like.dtype):
                return records, None
            if not np.may_share_memory(pixels, rows):
                rows[number] = pixels
        return records, rows

    def read(self, position: int, rng: np.random.Generator, out: np.ndarray | None = None) -> dict[str, Any]:
        """The record at `position`.

        Args:
            position: in the source.
            rng: of transforms that are random.
            out: an array that its pixels may be decoded into, if they have that size.

        Raises:
            UnreadableImageError: an image cannot be decoded and `on_error` is "stop", or none of many can.
        """
        unreadable: list[int] = []
        position = int(position)
        while True:
            record: dict[str, Any] = {"label": np.int32(0), "index": position}
            try:
                record = open_record(self._source, position)
                return self._transform(record, rng, out) | {"unreadable": unreadable}
            except UnreadableImageError as error:
                if self._on_error == "stop":
                    raise
                unreadable.append(position)
                if not self._replace:
                    black = {"label": record["label"], "index": record["index"], "pixels": _BLACK}
                    return self._transform(black, rng, out) | {"unreadable": unreadable}
                position = (position + 1) % len(self._source)
                if len(unreadable) == min(_MOST_IN_A_ROW, len(self._source)):
                    raise UnreadableImageError(f"{len(unreadable)} images in a row are unreadable: {error}") from error

    def _transform(self, record: Any, rng: np.random.Generator, out: np.ndarray | None) -> dict[str, Any]:
        for transform in self._transforms:
            if not getattr(transform, "takes_images", False):
                record = _with_array(record)
            if isinstance(transform, grain.transforms.RandomMap):
                record = transform.random_map(record, rng)
            else:
                record = transform.map(record)
        return _with_array(record, out)


def _with_array(record: dict[str, Any], out: np.ndarray | None = None) -> dict[str, Any]:
    pixels = record["pixels"]
    if isinstance(pixels, EncodedImage):
        return record | {"pixels": pixels.pixels(out)}
    return record | {"pixels": np.asarray(pixels)} if isinstance(pixels, Image.Image) else record

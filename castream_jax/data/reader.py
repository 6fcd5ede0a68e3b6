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
        """The record at position `element`.

        Raises:
            UnreadableImageError: an image cannot be decoded and `on_error` is "stop", or none of many can.
        """
        unreadable: list[int] = []
        position = int(element)
        while True:
            record: dict[str, Any] = {"label": np.int32(0), "index": position}
            try:
                record = open_record(self._source, position)
                return self._transform(record, rng) | {"unreadable": unreadable}
            except UnreadableImageError as error:
                if self._on_error == "stop":
                    raise
                unreadable.append(position)
                if not self._replace:
                    black = {"label": record["label"], "index": record["index"], "pixels": _BLACK}
                    return self._transform(black, rng) | {"unreadable": unreadable}
                position = (position + 1) % len(self._source)
                if len(unreadable) == min(_MOST_IN_A_ROW, len(self._source)):
                    raise UnreadableImageError(f"{len(unreadable)} images in a row are unreadable: {error}") from error

    def _transform(self, record: Any, rng: np.random.Generator) -> dict[str, Any]:
        for transform in self._transforms:
            if not getattr(transform, "takes_images", False):
                record = _with_array(record)
            if isinstance(transform, grain.transforms.RandomMap):
                record = transform.random_map(record, rng)
            else:
                record = transform.map(record)
        return _with_array(record)


def _with_array(record: dict[str, Any]) -> dict[str, Any]:
    pixels = record["pixels"]
    if isinstance(pixels, EncodedImage):
        return record | {"pixels": pixels.pixels()}
    return record | {"pixels": np.asarray(pixels)} if isinstance(pixels, Image.Image) else record

"""Per-record transforms that bring images to one size, as grain transforms.

Pixels stay uint8 until they are on the device. Resizing and cropping give the very pixels that Pillow and
torchvision give, because published accuracies depend on them. Boxes follow the pixels; one that falls outside the
image is left without area.

An array in the record gives an array. Between the steps of a loader images stay Pillow's, which saves copies, and
what comes from a file is not decoded yet: with `draft`, a JPEG much larger than is wanted is decoded at 1/2, 1/4 or 1/8
of its size first, as small as leaves at least the wanted size. That saves time and changes pixels a little.
"""

# grain's abstract methods carry no types, so pyright infers that they return None:
# pyright: reportIncompatibleMethodOverride=false

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import grain
from jaxtyping import Float32
import numpy as np
from PIL import Image

from castream_jax.data.decode import EncodedImage
from castream_jax.data.source import Record

Box = Float32[np.ndarray, "*n 4"]


@dataclass(frozen=True)
class Squash(grain.transforms.Map):
    """Resizes to `size` × `size` without keeping the aspect ratio; bilinear, antialiased."""

    takes_images: ClassVar[bool] = True
    size: int
    draft: bool = False

    def map(self, element: Record) -> Record:
        height, width = image_size(element)
        image: Any = element["pixels"]
        if isinstance(image, EncodedImage) and image.decoded_size == (self.size, self.size):
            image = image.as_decoded()
        else:
            image = as_image(element, reduction((height, width), self.size, self.size) if self.draft else 1)
            image = resize(image, self.size, self.size)
        box = None
        if "box" in element:  # annotations reach beyond some images
            box = shift_box(
                scale_box(element["box"], self.size / width, self.size / height), 0, 0, self.size, self.size
            )
        return with_image(element, image, box)


@dataclass(frozen=True)
class CenterCrop(grain.transforms.Map):
    """torchvision's `Resize(resize)`, which sets the shorter side, then `CenterCrop(size)`.

    A crop that reaches beyond the image is filled with black, as torchvision does.
    """

    takes_images: ClassVar[bool] = True
    resize: int
    size: int
    draft: bool = False

    def map(self, element: Record) -> Record:
        height, width = image_size(element)
        new_height, new_width = shorter_side(height, width, self.resize)
        image = as_image(element, reduction((height, width), new_height, new_width) if self.draft else 1)
        left, top = (_corner(side, self.size) for side in (new_width, new_height))
        image = resize(image, new_height, new_width).crop((left, top, left + self.size, top + self.size))
        box = None
        if "box" in element:
            box = scale_box(element["box"], new_width / width, new_height / height)
            box = shift_box(box, left, top, self.size, self.size)
        return with_image(element, image, box)


@dataclass(frozen=True)
class IntoSquare(grain.transforms.Map):
    """What the device crops: an image that fits lies in the upper left of `side` × `side`, another is squashed to it.

    Height and width of the image, as `size`, and of what it is in the square, as `placed`, say where a crop lies.
    """

    takes_images: ClassVar[bool] = True
    side: int
    draft: bool = False

    def map(self, element: Record) -> Record:
        image: Any = element["pixels"]
        size = image_size(element)
        placed = image.decoded_size if isinstance(image, EncodedImage) else size
        record: dict[str, Any] = {**element, "size": np.array(size, np.int32)}
        record.pop("box", None)  # which no training reads
        if max(placed) > self.side:
            record = {**Squash(self.side, self.draft).map(cast(Record, record))}
            placed = self.side, self.side
        elif placed != (self.side, self.side):
            record["pixels"] = np.zeros((self.side, self.side, 3), np.uint8)
            pixels = image.pixels() if isinstance(image, EncodedImage) else image
            record["pixels"][: placed[0], : placed[1]] = pixels
        return cast(Record, record | {"placed": np.array(placed, np.int32)})


def shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image once its shorter side is `side`, as torchvision has it: the other is truncated."""
    if height < width:
        return side, int(side * width / height)
    return int(side * height / width), side


def image_size(record: Record) -> tuple[int, int]:
    """Height and width of the record's image, which need not be decoded yet."""
    pixels: Any = record["pixels"]
    if isinstance(pixels, Image.Image):
        return pixels.height, pixels.width
    return pixels.size if isinstance(pixels, EncodedImage) else pixels.shape[:2]


def as_image(record: Record, reduction: int = 1) -> Image.Image:
    """The record's image, decoded if it is not yet; only decoding can be by a `reduction`."""
    pixels: Any = record["pixels"]
    if isinstance(pixels, Image.Image):
        return pixels
    return pixels.decode(reduction) if isinstance(pixels, EncodedImage) else Image.fromarray(pixels)


def with_image(record: Record, image: Image.Image | EncodedImage, box: Box | None) -> Record:
    """The record with another image and, if it has one, another box."""
    pixels: Any = np.asarray(image) if isinstance(record["pixels"], np.ndarray) else image
    changed: Record = {**record, "pixels": pixels}
    if box is not None:
        changed["box"] = box
    return changed


def reduction(size: tuple[int, int], height: int, width: int) -> int:
    """The largest of 1, 2, 4 and 8 that an image of `size` can be reduced by and still be as high and wide as asked."""
    return max(r for r in (1, 2, 4, 8) if r == 1 or (size[0] // r >= height and size[1] // r >= width))


def resize(image: Image.Image, height: int, width: int) -> Image.Image:
    """Bilinear with antialiasing, as Pillow does it."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def scale_box(box: Box, x: float, y: float) -> Box:
    """The box in an image that was stretched by factors `x` and `y`."""
    return box * np.array([x, y, x, y], np.float32)


def shift_box(box: Box, left: int, top: int, width: int, height: int) -> Box:
    """The box in the window of `width` × `height` whose corner is at (`left`, `top`); no area if it is outside."""
    lowest, highest = np.zeros(4, np.float32), np.array([width, height, width, height], np.float32)
    return np.clip(box - np.array([left, top, left, top], np.float32), lowest, highest)


def _corner(side: int, size: int) -> int:
    """Where a centred window of `size` begins on a side; negative where the image is smaller."""
    # torchvision pads what is too small by floor on one side and ceil on the other, then rounds the corner.
    missing = max(size - side, 0)
    return round((side + missing - size) / 2.0) - missing // 2

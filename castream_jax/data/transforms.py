"""Per-record transforms of images, as grain transforms: resizing, cropping, flipping.

Pixels stay uint8 until they are on the device. Resizing and cropping give the very pixels that Pillow and
torchvision give, because published accuracies depend on them. A random transform draws from the generator
that grain seeds with the record's position in the stream, so the number of workers changes nothing.

Boxes follow the pixels where that is simple (`Squash`, `CenterCrop`); the random transforms drop them.
"""

# grain's abstract methods carry no types, so pyright infers that they return None:
# pyright: reportIncompatibleMethodOverride=false

from dataclasses import dataclass

import grain
from jaxtyping import Float32, UInt8
import numpy as np
from PIL import Image

from castream_jax.data.source import Record

Pixels = UInt8[np.ndarray, "h w 3"]
Box = Float32[np.ndarray, "4"]


@dataclass(frozen=True)
class Squash(grain.transforms.Map):
    """Resizes to `size` × `size` without keeping the aspect ratio; bilinear, antialiased."""

    size: int

    def map(self, element: Record) -> Record:
        height, width = element["pixels"].shape[:2]
        record: Record = {**element, "pixels": _resize(element["pixels"], self.size, self.size)}
        if "box" in element:
            record["box"] = _scale_box(element["box"], self.size / width, self.size / height)
        return record


@dataclass(frozen=True)
class CenterCrop(grain.transforms.Map):
    """torchvision's `Resize(resize)`, which sets the shorter side, then `CenterCrop(size)`.

    A crop that reaches beyond the image is filled with black, as torchvision does.
    """

    resize: int
    size: int

    def map(self, element: Record) -> Record:
        height, width = element["pixels"].shape[:2]
        # torchvision truncates the longer side, and rounds the corner of the crop half to even.
        if height < width:
            new_height, new_width = self.resize, int(self.resize * width / height)
        else:
            new_height, new_width = int(self.resize * height / width), self.resize
        pixels = _resize(element["pixels"], new_height, new_width)
        pixels, left, top = _center_crop(pixels, self.size)
        record: Record = {**element, "pixels": pixels}
        if "box" in element:
            box = _scale_box(element["box"], new_width / width, new_height / height)
            box -= np.array([left, top, left, top], np.float32)
            record["box"] = np.clip(box, 0, self.size)
        return record


@dataclass(frozen=True)
class RandomFlip(grain.transforms.RandomMap):
    """Mirrors left and right with probability one half."""

    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        pixels = element["pixels"]
        return _without_box(element, pixels[:, ::-1] if rng.random() < 0.5 else pixels)


@dataclass(frozen=True)
class RandomCrop(grain.transforms.RandomMap):
    """torchvision's `RandomCrop(size, padding)` at the image's own size: a shift by up to `padding` pixels.

    What enters at the border is black, in uint8 space, before any normalisation.
    """

    padding: int

    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        pixels = element["pixels"]
        height, width = pixels.shape[:2]
        down, right = rng.integers(-self.padding, self.padding, size=2, endpoint=True)
        return _without_box(element, _window(pixels, down, right, height, width))


def _resize(pixels: Pixels, height: int, width: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _center_crop(pixels: Pixels, size: int) -> tuple[Pixels, int, int]:
    """The crop, and its left and top edge in the image (negative where it was padded)."""
    height, width = pixels.shape[:2]
    # torchvision pads what is too small by floor on one side and ceil on the other, then rounds the corner.
    pad_top, pad_bottom = max(size - height, 0) // 2, (max(size - height, 0) + 1) // 2
    pad_left, pad_right = max(size - width, 0) // 2, (max(size - width, 0) + 1) // 2
    top = round((height + pad_top + pad_bottom - size) / 2.0) - pad_top
    left = round((width + pad_left + pad_right - size) / 2.0) - pad_left
    return _window(pixels, top, left, size, size), left, top


def _window(pixels: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """`height` × `width` pixels from (top, left); black where that lies outside the image."""
    source_height, source_width = pixels.shape[:2]
    y0, y1 = (min(max(y, 0), source_height) for y in (top, top + height))
    x0, x1 = (min(max(x, 0), source_width) for x in (left, left + width))
    if y1 - y0 == height and x1 - x0 == width:
        return pixels[y0:y1, x0:x1]
    window = np.zeros((height, width, 3), np.uint8)
    window[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
    return window


def _scale_box(box: Box, x: float, y: float) -> Box:
    return box * np.array([x, y, x, y], np.float32)


def _without_box(record: Record, pixels: Pixels) -> Record:
    return {"pixels": pixels, "label": record["label"], "index": record["index"]}

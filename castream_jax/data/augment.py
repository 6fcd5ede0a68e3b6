"""Random per-record transforms for training, as grain transforms.

Each draws from a generator that is seeded with the record's position in the stream: neither the order of reading nor
the number of threads or workers changes anything. Boxes follow the pixels.
"""

# grain's abstract methods carry no types, so pyright infers that they return None:
# pyright: reportIncompatibleMethodOverride=false

from dataclasses import dataclass
import math
from typing import ClassVar

import grain
import numpy as np
from PIL import Image, ImageEnhance

from castream_jax.data.source import Record
from castream_jax.data.transforms import as_image, image_size, reduction, resize, scale_box, shift_box, with_image


@dataclass(frozen=True)
class RandomResizedCrop(grain.transforms.RandomMap):
    """torchvision's `RandomResizedCrop(size)`: a random part of the image, brought to `size` × `size`.

    Ten times it draws an area, uniform in `scale` of the image's, and an aspect ratio, uniform in its logarithm, and
    takes the first that fits, anywhere in the image; if none does, the largest central part with an allowed ratio.
    """

    takes_images: ClassVar[bool] = True
    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    draft: bool = False

    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        height, width = image_size(element)
        top, left, crop_height, crop_width = self.window(height, width, rng)
        image = as_image(element, reduction((crop_height, crop_width), self.size, self.size) if self.draft else 1)
        # The window in the image as it was decoded: the same, unless that was by a reduction.
        x, y = image.width / width, image.height / height
        corners = (left * x, top * y, (left + crop_width) * x, (top + crop_height) * y)
        image = resize(image.crop(tuple(map(round, corners))), self.size, self.size)  # pyright: ignore[reportArgumentType]
        box = None
        if "box" in element:
            box = shift_box(element["box"], left, top, crop_width, crop_height)
            box = scale_box(box, self.size / crop_width, self.size / crop_height)
        return with_image(element, image, box)

    def window(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part to take of an image of `height` × `width`."""
        lowest, highest = self.ratio
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(lowest), math.log(highest)))
            crop_height, crop_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < crop_height <= height and 0 < crop_width <= width:
                top, left = rng.integers(height - crop_height + 1), rng.integers(width - crop_width + 1)
                return int(top), int(left), crop_height, crop_width
        crop_height, crop_width = height, width
        if width < lowest * height:
            crop_height = round(width / lowest)
        elif width > highest * height:
            crop_width = round(height * highest)
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


@dataclass(frozen=True)
class RandomFlip(grain.transforms.RandomMap):
    """Mirrors left and right with probability one half."""

    takes_images: ClassVar[bool] = True

    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        if rng.random() >= 0.5:
            return element
        box = None
        if "box" in element:
            width = image_size(element)[1]
            box = element["box"][..., [2, 1, 0, 3]]
            box = np.array([width, 0, width, 0], np.float32) - box * np.array([1, -1, 1, -1], np.float32)
        return with_image(element, as_image(element).transpose(Image.Transpose.FLIP_LEFT_RIGHT), box)


@dataclass(frozen=True)
class RandomCrop(grain.transforms.RandomMap):
    """torchvision's `RandomCrop(size, padding)` at the image's own size: a shift by up to `padding` pixels.

    What enters at the border is black, in uint8 space, before any normalisation.
    """

    takes_images: ClassVar[bool] = True
    padding: int

    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        height, width = image_size(element)
        top, left = rng.integers(-self.padding, self.padding, size=2, endpoint=True).tolist()
        box = None if "box" not in element else shift_box(element["box"], left, top, width, height)
        return with_image(element, as_image(element).crop((left, top, left + width, top + height)), box)


@dataclass(frozen=True)
class BrightnessJitter(grain.transforms.RandomMap):
    """torchvision's `ColorJitter(brightness=amount)`: values times a factor within 1 ± `amount`, clipped."""

    takes_images: ClassVar[bool] = True
    amount: float

    def random_map(self, element: Record, rng: np.random.Generator) -> Record:
        factor = rng.uniform(max(0.0, 1 - self.amount), 1 + self.amount)
        return with_image(element, ImageEnhance.Brightness(as_image(element)).enhance(factor), None)

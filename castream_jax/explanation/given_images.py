"""From what people have (a path, a PIL image, an array) to what the model sees and what they are shown."""

from collections.abc import Iterable, Mapping
import os
from pathlib import Path
from typing import Any, NamedTuple
import warnings

from jaxtyping import UInt8
import numpy as np
from PIL import Image

from castream_jax.data.decode import (
    Decoding,
    EncodedImage,
    UnreadableImageError,
    naming,
    orientation_of,
    scale_floats,
    scale_integers,
    to_rgb,
)
from castream_jax.data.image_paths import readable_name
from castream_jax.data.source import Record
from castream_jax.data.transforms import CenterCrop, Squash
from castream_jax.model import ImageSpec
from castream_jax.runtime.local_path import is_address

# Longest side of a picture, in pixels: enough to see what a map points at, and no more than that.
SMALLEST, LARGEST = 256, 640

_IGNORED = (  # without the image's name, so that Python shows it once
    "an image has an EXIF orientation that is not applied: ImageSpec(exif_orientation=True) turns such images, and "
    "Explanation.orientation_ignored tells which they are"
)


class Seen(NamedTuple):
    """An image as the model sees it, and the same part of it as a picture, in its own proportions.

    `orientation_ignored`: it has an EXIF orientation that is not applied.
    """

    name: str
    pixels: UInt8[np.ndarray, "size size 3"]
    picture: Image.Image
    orientation_ignored: bool = False


class OrientationWarning(UserWarning):
    """An image has an EXIF orientation that is not applied."""


def is_image(given: Any) -> bool:
    """Whether this is one image by its type or its axes."""
    return isinstance(given, str | os.PathLike | Image.Image) or getattr(given, "ndim", None) in (2, 3)


def are_images(given: Any) -> bool:
    """Whether these are several images by their type or their axes."""
    axes = getattr(given, "ndim", None)
    if axes is not None:
        return axes == 4
    return isinstance(given, Iterable) and not isinstance(given, bytes | Mapping) and not is_image(given)


def read_image(image: Any, spec: ImageSpec) -> Seen:
    """Brings an image to the model's size by its evaluation transform.

    Args:
        image: a path; a PIL image of any mode; or an array `[h, w, 3]` or `[h, w]` (grey), uint8, uint16 or floating
            point in [0, 1], which is rounded to 8 bits, as a file would be.
        spec: size, way of resizing, and whether an EXIF orientation is applied. An image that is not of the model's
            size is squashed where the way is "none".

    Raises:
        UnreadableImageError: a file or a PIL image cannot be decoded; names it.
        ValueError: an array is of another shape, type or range.
        TypeError: it is something else.
    """
    name, whole, orientation = _open(image, spec.exif_orientation)
    record: Any = {"pixels": whole, "label": np.int32(0), "index": 0}
    pixels = np.asarray(_transform(spec, 1).map(record)["pixels"])
    if spec.resize == "center_crop":
        # The same crop, as many times as large as the image has pixels for.
        scale = min(min(whole.size) / (spec.size * 8 // 7), LARGEST / spec.size)
        picture = _picture(_transform(spec, max(1, int(scale))).map(record))
    else:
        picture = whole.copy()
        picture.thumbnail((LARGEST, LARGEST))
    ignored = orientation != 1 and not spec.exif_orientation
    if ignored:
        warnings.warn(_IGNORED, OrientationWarning, stacklevel=2)
    return Seen(name, pixels, _enlarged(picture, max(SMALLEST, spec.size)), ignored)


def _transform(spec: ImageSpec, scale: int) -> Squash | CenterCrop:
    if spec.resize == "center_crop":
        return CenterCrop(resize=spec.size * 8 // 7 * scale, size=spec.size * scale)
    return Squash(spec.size)


def _enlarged(picture: Image.Image, side: int) -> Image.Image:
    """With its longer side no shorter than `side`."""
    factor = side / max(picture.size)
    if factor <= 1:
        return picture
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC)


def _picture(record: Record) -> Image.Image:
    pixels: Any = record["pixels"]
    return pixels


def _open(image: Any, exif_orientation: bool) -> tuple[str, Image.Image, int]:
    """Name, whole image in RGB, and EXIF orientation."""
    decoding = Decoding(exif_orientation, remedy="give another image")
    if isinstance(image, str | os.PathLike):
        if is_address(image):
            unreadable = UnreadableImageError(
                f"cannot read image '{image}' (an address); download it, and give its path"
            )
            unreadable.name = str(image)
            raise unreadable
        name = readable_name(image)
        encoded = EncodedImage(Path(image).expanduser(), name, decoding=decoding)
        return name, encoded.decode(), encoded.orientation
    if isinstance(image, Image.Image):
        name = readable_name(getattr(image, "filename", "") or "image")
        orientation = orientation_of(image)
        with naming(name, decoding):
            if 0 in image.size:
                raise ValueError("it has no pixels")
            return name, to_rgb(image, exif_orientation), orientation
    if not hasattr(image, "__array__"):
        raise TypeError(f"An image is a path, a PIL image or an array, got {type(image).__name__}.")
    if isinstance(image, np.ma.MaskedArray):
        raise ValueError("An image array has all its pixels, and this one is masked: use .filled(value).")
    return "image", Image.fromarray(_to_uint8(np.asarray(image))).convert("RGB"), 1


def _to_uint8(array: np.ndarray) -> UInt8[np.ndarray, "h w *c"]:
    shape = list(array.shape)
    if array.ndim not in (2, 3) or shape[2:] not in ([], [3]) or 0 in shape:
        raise ValueError(f"An image array must be [h, w, 3] or [h, w], got {shape}.")
    if array.dtype == np.uint8:
        return array
    if array.dtype.newbyteorder("=") == np.uint16:
        return scale_integers(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"An image array must be uint8, uint16, or floating point in [0, 1], got {array.dtype}.")
    if not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"A floating-point image must lie in [0, 1], got {array.min():g} … {array.max():g}.")
    return scale_floats(array)

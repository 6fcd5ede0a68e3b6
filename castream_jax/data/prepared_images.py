"""What becomes of an image when data are prepared: a small JPEG, or the exact pixels that an evaluation resizes to.

Proportions are not kept: a batch of squares is one array, and the original's size, which is kept beside it, tells where
a crop of the original lies in it.
"""

import io
from typing import Any, Literal, NamedTuple

from jaxtyping import UInt8
import numpy as np
from PIL import Image

from castream_jax.data.decode import Decoding, EncodedImage
from castream_jax.data.jpeg import decode_jpeg
from castream_jax.data.source import Record
from castream_jax.data.transforms import as_image, image_size, resize, shorter_side


class JpegForm(NamedTuple):
    """Squashed to `side` × `side`, as JPEG; an image that fits in this keeps its size, and a JPEG all its bytes."""

    side: int
    quality: int

    def encode(self, record: Record) -> "StoredImage":
        size = image_size(record)
        wanted = size if max(size) <= self.side else (self.side, self.side)
        pixels: Any = record["pixels"]
        if wanted == size and isinstance(pixels, EncodedImage) and pixels.is_plain("JPEG"):
            pixels.decode()  # or a damaged file would be found out in training
            return StoredImage(pixels.stored(), size, size)
        return StoredImage(_encoded(resize(as_image(record), *wanted), "JPEG", quality=self.quality), size, wanted)


class LosslessForm(NamedTuple):
    """The very pixels that `resize` of an evaluation gives at `image_size`, as PNG; a crop is left to the reader.

    Of "none", which leaves images as they are, the file itself.
    """

    resize: Literal["squash", "center_crop", "none"]
    image_size: int

    def encode(self, record: Record) -> "StoredImage":
        height, width = size = image_size(record)
        wanted = size
        if self.resize == "squash":
            wanted = self.image_size, self.image_size
        elif self.resize == "center_crop":
            wanted = shorter_side(height, width, self.image_size * 8 // 7)
        pixels: Any = record["pixels"]
        if self.resize == "none" and isinstance(pixels, EncodedImage) and pixels.is_plain():
            pixels.decode()
            return StoredImage(pixels.stored(), size, size)
        return StoredImage(_encoded(resize(as_image(record), *wanted), "PNG", compress_level=1), size, wanted)


class StoredImage(NamedTuple):
    """An encoded image, and height and width of the original and of itself."""

    content: bytes
    size: tuple[int, int]
    stored: tuple[int, int]


class PreparedImage(EncodedImage):
    """An encoded image that stands for a larger one: `size` is that of the original, and decoding gives what is stored.

    So are drafts of JPEGs, and transforms deal with both alike. A coarser decoding is not to be had.
    """

    def __init__(self, content: bytes, name: str, size: tuple[int, int], stored: tuple[int, int], decoding: Decoding):
        """Args:
        content: of a file.
        name: what messages call it.
        size, stored: height and width of the original, and of the image that is in the file.
        decoding: what messages advise.
        """
        super().__init__(content, name, decoding=decoding)
        self._size, self._stored_size = size, stored

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def decoded_size(self) -> tuple[int, int]:
        return self._stored_size

    def as_decoded(self) -> "PreparedImage":
        return PreparedImage(self.stored(), self._name, self._stored_size, self._stored_size, self._decoding)

    def decode(self, reduction: int = 1) -> Image.Image:
        # Pillow need not even look at it: what is known of it saves that.
        pixels = decode_jpeg(self.stored())
        return super().decode() if pixels is None else Image.fromarray(pixels)

    def pixels(self, out: UInt8[np.ndarray, "h w 3"] | None = None) -> UInt8[np.ndarray, "_h _w 3"]:
        pixels = decode_jpeg(self.stored(), out)
        return np.asarray(super().decode()) if pixels is None else pixels


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def as_rows(images: list[StoredImage]) -> dict[str, np.ndarray]:
    """The sizes of images as columns."""
    return {
        "size": np.array([image.size for image in images], np.int32).reshape(-1, 2),
        "stored": np.array([image.stored for image in images], np.int32).reshape(-1, 2),
    }

"""Image files to RGB, as Pillow and torchvision do it; what cannot be decoded is named."""

from collections.abc import Iterator
import contextlib
import functools
import io
from pathlib import Path

from jaxtyping import UInt8
import numpy as np
from PIL import Image

# What Pillow raises on damaged files; SyntaxError is its way of saying "broken PNG".
_DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class UnreadableImageError(ValueError):
    """An image that cannot be decoded; the message names it, and so does `name`."""

    name: str = ""


class EncodedImage:
    """An image file that is not decoded yet: whoever resizes it may ask for a coarser decoding.

    Pixels are what Pillow's `convert("RGB")` makes of a file, whether it is grey, CMYK or palettised. An EXIF
    orientation is *not* applied: torchvision ignores it too, and published ImageNet accuracies rest on that.
    """

    def __init__(self, file: Path | bytes, name: str, remedy: str = "replace or remove the file"):
        """Args:
        file: path, or content of a file, which is read when it is needed.
        name: what messages call it.
        remedy: what messages advise.
        """
        self._file, self._name, self._remedy = file, name, remedy

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole image, in pixels.

        Raises:
            UnreadableImageError: this is no image; names it.
        """
        return self._image.height, self._image.width

    @functools.cached_property
    def _image(self) -> Image.Image:
        with self._named():
            # At once: Pillow would read a file in many small pieces.
            return Image.open(io.BytesIO(self._file if isinstance(self._file, bytes) else self._file.read_bytes()))

    def decode(self, reduction: int = 1) -> Image.Image:
        """The RGB image.

        Args:
            reduction: 1, 2, 4 or 8: how much smaller a JPEG may be decoded, which saves most of the work and gives
                nearly, not exactly, what a resize by a box filter would. Other formats ignore it.

        Raises:
            UnreadableImageError: the file is damaged; names it.
        """
        image = self._image
        with self._named():
            if reduction > 1:
                image.draft(None, (image.width // reduction, image.height // reduction))
            return to_rgb(image)

    def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
        """The whole image, decoded exactly."""
        return np.asarray(self.decode())

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except _DECODE_ERRORS as error:
            unreadable = UnreadableImageError(f"cannot read image '{self._name}' ({error}); {self._remedy}")
            unreadable.name = self._name
            raise unreadable from error


def to_rgb(image: Image.Image) -> Image.Image:
    """What Pillow's `convert("RGB")` makes of an image of any mode; of one in RGB, the image itself, decoded."""
    if image.mode == "P" and "transparency" in image.info:
        # The same colours, without Pillow's warning about transparent palettes.
        image = image.convert("RGBA")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")

"""JPEGs by simplejpeg, where it is installed: the pixels that Pillow gives, in about two thirds of the time.

Both decode by libjpeg-turbo, with the same transform and the same upsampling. What is not surely the same is left to
Pillow: CMYK, whose conversion differs by one level, and every file of which simplejpeg says that it is damaged.
"""

from types import ModuleType

from jaxtyping import UInt8
import numpy as np

try:
    import simplejpeg
except ModuleNotFoundError:  # on machines that it has no wheel for
    simplejpeg: ModuleType | None = None

_SAME_AS_PILLOW = ("Gray", "YCbCr", "RGB")


def decode_jpeg(content: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The RGB pixels of a JPEG; None where Pillow must decode it, or say what is wrong with it."""
    if simplejpeg is None or not content.startswith(b"\xff\xd8"):
        return None
    try:
        if simplejpeg.decode_jpeg_header(content)[2] not in _SAME_AS_PILLOW:
            return None
        return simplejpeg.decode_jpeg(content, "RGB")
    except ValueError:
        return None

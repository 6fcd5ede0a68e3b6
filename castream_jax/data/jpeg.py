"""JPEGs to arrays by libjpeg-turbo itself: Pillow's pixels, without the image and the copy that Pillow makes first.

simplejpeg brings libjpeg-turbo, as Pillow's own wheels do. It is asked for arrays alone: an image of Pillow that is
made of an array costs what it saves.
"""

from jaxtyping import UInt8
import numpy as np

try:
    import simplejpeg
except ImportError:  # a machine without it reads the same pixels, by Pillow
    simplejpeg = None

_SPACES = ("YCbCr", "RGB", "Gray")  # of CMYK, libjpeg-turbo and Pillow make other RGB


def decode_jpeg(content: bytes) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels that Pillow's `convert("RGB")` gives; None of what is left to Pillow: CMYK, and what is not whole.

    Pillow reads past many faults of a damaged file, and says what is wrong with others; here any fault gives None.
    """
    if simplejpeg is None:
        return None
    try:
        space = simplejpeg.decode_jpeg_header(content)[2]
        return simplejpeg.decode_jpeg(content, "RGB") if space in _SPACES else None
    except (ValueError, MemoryError):
        return None
